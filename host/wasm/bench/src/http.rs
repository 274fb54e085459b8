//! Requests that a component answers, each in an instance of its own, beside what `wasmtime serve` does.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail, ensure};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use wakebox::{Output, Policy, Sandbox};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p2::bindings::http::types::Scheme;
use wasmtime_wasi_http::p2::body::HyperOutgoingBody;
use wasmtime_wasi_http::{
    Error as HttpError, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks,
    WasiHttpView,
};
use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

const CONNECTIONS: usize = 64;
/// Requests of each connection in a round.
const REQUESTS: usize = 100;
const ROUNDS: usize = 7;

const LIBRARY: &str = include_str!("../../tests/components/http/server.wat");
const WIT: &str = include_str!("../../tests/components/http/world.wit");

/// A component that says hello.
fn component() -> Result<Vec<u8>> {
    let module = format!(
        r#"(module {LIBRARY} (data (i32.const 4096) "hello")
          (func (export "wasi:http/incoming-handler@0.2.0#handle") (param $request i32) (param $to i32)
            (call $begin (local.get $to) (i32.const 200))
            (call $put (i32.const 4096) (i32.const 5))
            (call $finish)))"#
    );
    let mut module = wat::parse_str(module)?;
    let mut resolve = Resolve::default();
    let package = resolve.push_str("world.wit", WIT)?;
    let world = resolve.select_world(&[package], Some("server"))?;
    embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8)?;
    ComponentEncoder::default().module(&module)?.encode()
}

/// How long it takes until all connections have had all their answers.
async fn round(to: SocketAddr) -> Result<Duration> {
    let mut connections = Vec::new();
    for _ in 0..CONNECTIONS {
        let stream = TcpStream::connect(to).await?;
        stream.set_nodelay(true)?;
        connections.push(stream);
    }
    let start = Instant::now();
    let clients = connections
        .into_iter()
        .map(|stream| tokio::spawn(ask(stream)));
    let clients: Vec<_> = clients.collect();
    for client in clients {
        client.await??;
    }
    Ok(start.elapsed())
}

async fn ask(mut stream: TcpStream) -> Result<()> {
    let mut bytes = [0; 4096];
    for _ in 0..REQUESTS {
        stream
            .write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            .await?;
        let mut filled = 0;
        while !bytes[..filled].ends_with(b"\r\n0\r\n\r\n") {
            let count = stream.read(&mut bytes[filled..]).await?;
            ensure!(count > 0, "the server has ended the connection");
            filled += count;
        }
        let answer = &bytes[..filled];
        let is_good =
            answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"hello\r\n0\r\n\r\n");
        ensure!(is_good, "{}", String::from_utf8_lossy(answer));
    }
    Ok(())
}

pub(crate) async fn all() -> Result<()> {
    let component = component()?;
    let (said, hears) = duplex(1 << 16);
    let policy = Policy::new().allow_listen("127.0.0.1:0".parse()?);
    let builder = Sandbox::builder()
        .guest(wakebox_wasm::image(&component)?)
        .memory(256 << 20)
        .policy(policy)
        .stderr(Output::writer(said))
        .args(["127.0.0.1:0"]);
    let running = builder.build()?.start();
    let mut lines = tokio::io::BufReader::new(hears).lines();
    let line = lines
        .next_line()
        .await?
        .context("it says where it serves")?;
    let ours = line
        .strip_prefix("serving on http://")
        .context("it serves")?;
    let ours = ours.parse()?;
    let theirs = serve(&component).await?;
    let mut least = [Duration::MAX; 2];
    for _ in 0..ROUNDS {
        least[0] = least[0].min(round(ours).await?);
        least[1] = least[1].min(round(theirs).await?);
    }
    let all = (CONNECTIONS * REQUESTS) as f64;
    let [ours, theirs] = least.map(|time| all / time.as_secs_f64());
    println!(
        "{:<48} {ours:>10.0}/s {theirs:>10.0}/s {:>8.2}  at least 1.0",
        format!("wasi:http hello, {CONNECTIONS} connections"),
        ours / theirs,
    );
    drop(running);
    Ok(())
}

/// Asks nobody.
struct Hooks;

type Result<T, E = anyhow::Error> = core::result::Result<T, E>;
type Going = Box<dyn Future<Output = Result<(), HttpError>> + Send>;
type Sent = Box<dyn Future<Output = Result<(hyper::Response<WasiBody>, Going), HttpError>> + Send>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        _: hyper::Request<WasiBody>,
        _: Option<RequestOptions>,
        _: Going,
    ) -> Sent {
        Box::new(async { Err(HttpError::HttpRequestDenied) })
    }
}

struct Client {
    hooks: Hooks,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    table: ResourceTable,
}

impl WasiView for Client {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl WasiHttpView for Client {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView {
            ctx: &mut self.http,
            table: &mut self.table,
            hooks: &mut self.hooks,
        }
    }
}

fn own(error: wasmtime::Error) -> anyhow::Error {
    anyhow!("{error:#}")
}

/// Serves it by Wasmtime, with instances from a pool, as its command does.
async fn serve(component: &[u8]) -> Result<SocketAddr> {
    let mut config = Config::new();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(
        PoolingAllocationConfig::default(),
    ));
    let engine = Engine::new(&config).map_err(own)?;
    let component = Component::new(&engine, component).map_err(own)?;
    let mut linker = Linker::new(&engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).map_err(own)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(&mut linker).map_err(own)?;
    let pre = linker.instantiate_pre(&component).map_err(own)?;
    let pre = Arc::new(ProxyPre::new(pre).map_err(own)?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let pre = pre.clone();
            tokio::spawn(async move {
                let service = service_fn(move |request| answer(pre.clone(), request));
                let served = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                served.await
            });
        }
    });
    Ok(address)
}

async fn answer(
    pre: Arc<ProxyPre<Client>>,
    request: hyper::Request<hyper::body::Incoming>,
) -> Result<hyper::Response<HyperOutgoingBody>> {
    let client = Client {
        hooks: Hooks,
        wasi: WasiCtx::builder().build(),
        http: WasiHttpCtx::new(),
        table: ResourceTable::new(),
    };
    let mut store = Store::new(pre.engine(), client);
    let (sender, receiver) = oneshot::channel();
    let mut http = store.data_mut().http();
    let request = http
        .new_incoming_request(Scheme::Http, request)
        .map_err(own)?;
    let to = store
        .data_mut()
        .http()
        .new_response_outparam(sender)
        .map_err(own)?;
    tokio::spawn(async move {
        let proxy = pre.instantiate_async(&mut store).await?;
        let handler = proxy.wasi_http_incoming_handler();
        handler.call_handle(store, request, to).await
    });
    match receiver.await? {
        Ok(response) => Ok(response),
        Err(code) => bail!("{code:?}"),
    }
}
