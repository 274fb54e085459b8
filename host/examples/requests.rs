//! A web service whose rules are a guest's, with a database behind a host function: axum, redb, and a pool of
//! which each request takes a sandbox.
//!
//! Usage: `requests GUEST [out|irq|poll|auto] [--measure | --once]`, where GUEST is the demo `callme`.
//! `cargo xtask run requests` runs it. What it measures wants a release build:
//! `cargo run --release -p wakebox --example requests -- target/guests/release/callme auto --measure`.
//!
//! | path | who adds up the price |
//! |---|---|
//! | `/plain/TENANT/ITEM` | this program |
//! | `/warm/TENANT/ITEM` | one guest, for all requests at once |
//! | `/pooled/TENANT/ITEM` | a sandbox of the pool, for this request alone |
//!
//! The guest learns nothing of tenants: the host function knows by its context for whom it is called. A guest that
//! serves many at once has no such context, and gives everybody the usual price.

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::get;
use futures_util::future::try_join_all;
use redb::{Database, Durability, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wakebox::template::{Open, When};
use wakebox::{HostContext, HostFunctions, Limits, Pool, Running, Sandbox, WakeMode};

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const PRICES: TableDefinition<'_, &str, u32> = TableDefinition::new("prices");
/// How often a tenant has asked for what.
const ASKED: TableDefinition<'_, &str, u64> = TableDefinition::new("asked");

/// Sandboxes that are ready, and most that are taken at once.
const READY: usize = 8;
const MOST: usize = 64;

/// Connections that ask at once, and for how long, and how often each way is measured.
const CONNECTIONS: usize = 64;
const ROUND: Duration = Duration::from_secs(2);
const ROUNDS: usize = 3;

/// For whom a request is.
struct Tenant(String);

#[derive(Serialize)]
struct Order {
    customer: String,
    items: Vec<String>,
}

#[derive(Debug, Deserialize)]
enum Receipt {
    Total { customer: String, cents: u32 },
    Unknown { item: String },
}

#[derive(Clone)]
struct Shop {
    prices: Arc<Database>,
    warm: Arc<Running>,
    pool: Pool,
}

/// What a tenant pays, if it has a price of its own, and else what everybody does; and notes that it has asked. A read
/// and a write of the database, whoever calls.
fn price(prices: &Database, tenant: &str, item: &str) -> Result<Option<u32>> {
    let own = format!("{tenant}/{item}");
    let table = prices.begin_read()?.open_table(PRICES)?;
    let price = match table.get(&*own)? {
        Some(own) => Some(own.value()),
        None => table.get(item)?.map(|usual| usual.value()),
    };
    let mut change = prices.begin_write()?;
    // A disk that is waited for would be all that is measured.
    change.set_durability(Durability::None)?;
    {
        let mut asked = change.open_table(ASKED)?;
        let before = asked.get(&*own)?.map_or(0, |count| count.value());
        asked.insert(&*own, before + 1)?;
    }
    change.commit()?;
    Ok(price)
}

fn functions(prices: Arc<Database>) -> HostFunctions {
    HostFunctions::new().state(prices).host_fn(
        "price",
        async |ctx: HostContext, item: String| -> Option<u32> {
            let tenant = ctx.context::<Tenant>().map_or("", |tenant| &tenant.0);
            price(ctx.state::<Arc<Database>>(), tenant, &item).ok()?
        },
    )
}

async fn checkout(guest: &Running, tenant: String, item: String) -> Result<Receipt> {
    let items = vec![item];
    let order = Order {
        customer: tenant,
        items,
    };
    Ok(guest.call("checkout", &(order,)).await?)
}

/// What a browser is told.
fn answer(receipt: Result<Receipt>) -> (StatusCode, String) {
    match receipt {
        Ok(Receipt::Total { customer, cents }) => (StatusCode::OK, format!("{customer}: {cents}")),
        Ok(Receipt::Unknown { item }) => (StatusCode::NOT_FOUND, item),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

type Asked = (State<Shop>, Path<(String, String)>);

async fn plain((State(shop), Path((tenant, item))): Asked) -> (StatusCode, String) {
    answer(price(&shop.prices, "", &item).map(|cents| match cents {
        Some(cents) => Receipt::Total {
            customer: tenant,
            cents,
        },
        None => Receipt::Unknown { item },
    }))
}

async fn warm((State(shop), Path((tenant, item))): Asked) -> (StatusCode, String) {
    answer(checkout(&shop.warm, tenant, item).await)
}

async fn pooled((State(shop), Path((tenant, item))): Asked) -> (StatusCode, String) {
    let receipt = async {
        let guest = shop.pool.take().await?;
        guest.handle().set_context(Tenant(tenant.clone()));
        checkout(&guest, tenant, item).await
    };
    answer(receipt.await)
}

async fn shop(guest: &str, mode: WakeMode) -> Result<Shop> {
    let file = tempfile::NamedTempFile::new()?;
    let prices = Database::create(file.path())?;
    let change = prices.begin_write()?;
    {
        let mut table = change.open_table(PRICES)?;
        table.insert("tea", 250)?;
        table.insert("ann/tea", 200)?;
    }
    change.commit()?;
    let prices = Arc::new(prices);
    let functions = functions(prices.clone());

    let builder = Sandbox::builder().guest(guest).wake(mode);
    let warm = builder.functions(functions.clone()).build()?.start();
    // What it does when it is called first is done before there are others like it.
    checkout(&warm, "nobody".into(), "tea".into()).await?;
    let template = warm.handle().snapshot(When::Parked, Open::Refuse).await?;
    let pool = Pool::builder(template)
        .idle(READY)
        .max(MOST)
        .settings(move |builder| {
            builder
                .functions(functions.clone())
                .limits(Limits::new().wall_clock(Duration::from_secs(10)))
        })
        .rehearse(|caller| async move {
            let items = vec!["tea".into()];
            let customer = "nobody".into();
            let order = Order { customer, items };
            let _ = caller.call::<_, Receipt>("checkout", &(order,)).await;
        })
        .build()
        .await?;
    let warm = Arc::new(warm);
    Ok(Shop { prices, warm, pool })
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let usage = "usage: requests GUEST [MODE] [--measure | --once]";
    let guest = args.next().ok_or(usage)?;
    let mode: WakeMode = args.next().as_deref().unwrap_or("auto").parse()?;
    let what = args.next();
    let site = Router::new()
        .route("/plain/{tenant}/{item}", get(plain))
        .route("/warm/{tenant}/{item}", get(warm))
        .route("/pooled/{tenant}/{item}", get(pooled))
        .with_state(shop(&guest, mode).await?);
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let server = tokio::spawn(async move { axum::serve(listener, site).await });
    match what.as_deref() {
        Some("--measure") => measure(address).await,
        Some("--once") => once(address).await,
        _ => {
            println!("curl http://{address}/pooled/ann/tea");
            server.await??;
            Ok(())
        }
    }
}

/// Asks each way for what there is and what there is not.
async fn once(address: SocketAddr) -> Result<()> {
    let mut client = Client::connect(address).await?;
    for way in ["plain", "warm", "pooled"] {
        for path in ["ann/tea", "bob/tea", "ann/hat"] {
            let (status, body) = client.get(&format!("/{way}/{path}")).await?;
            println!("{way}/{path}: {status} {body}");
        }
    }
    Ok(())
}

async fn measure(address: SocketAddr) -> Result<()> {
    let ways = ["plain", "warm", "pooled"];
    let mut rates = [const { Vec::new() }; 3];
    // In turns, so that what else the machine does is shared.
    for _ in 0..ROUNDS {
        for (way, rates) in ways.iter().zip(&mut rates) {
            rates.push(rate(address, &format!("/{way}/bob/tea")).await?);
        }
    }
    let median = rates.map(|mut rates| {
        rates.sort_by(f64::total_cmp);
        rates[ROUNDS / 2]
    });
    println!("{CONNECTIONS} connections, median of {ROUNDS} rounds of {ROUND:?}");
    for ((way, rate), bar) in ways.iter().zip(median).zip([None, Some(0.6), Some(0.25)]) {
        let of_plain = rate / median[0];
        let bar = bar.map_or(String::new(), |bar| format!(", {bar} is the goal"));
        println!("{way:<8}{rate:>10.0} requests a second, {of_plain:.2} of plain{bar}");
    }
    Ok(())
}

/// Requests that are answered in a second.
async fn rate(address: SocketAddr, path: &str) -> Result<f64> {
    let begin = Instant::now();
    let clients = (0..CONNECTIONS).map(|_| async {
        let mut client = Client::connect(address).await?;
        let mut answered = 0_u32;
        while begin.elapsed() < ROUND {
            let (status, body) = client.get(path).await?;
            if status != 200 {
                return Err(format!("{path}: {status} {body}").into());
            }
            answered += 1;
        }
        Result::Ok(answered)
    });
    let answered: u32 = try_join_all(clients).await?.iter().sum();
    Ok(f64::from(answered) / begin.elapsed().as_secs_f64())
}

/// A connection that asks for one thing after the other.
struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Client {
    async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let read = Vec::new();
        Ok(Self { stream, read })
    }

    /// The status and the body.
    async fn get(&mut self, path: &str) -> Result<(u16, String)> {
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        self.read.clear();
        loop {
            if self.stream.read_buf(&mut self.read).await? == 0 {
                return Err("the server has closed the connection".into());
            }
            if let Some(answer) = parsed(std::str::from_utf8(&self.read)?) {
                return Ok(answer);
            }
        }
    }
}

/// An answer that is whole.
fn parsed(answer: &str) -> Option<(u16, String)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    let length = lines.find(|(name, _)| name.eq_ignore_ascii_case("content-length"))?;
    let length: usize = length.1.parse().ok()?;
    (body.len() >= length).then(|| (status, body.to_owned()))
}
