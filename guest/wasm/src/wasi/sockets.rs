//! `wasi:sockets`: what the policy grants can be reached, and what is not granted is `access-denied`. What a
//! socket waits for is an operation in flight, so waiting for any number of them is one park.

pub(super) mod newer;
mod streams;
mod tcp;
mod types;
mod udp;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::IntoIter;
use core::net::IpAddr;
use core::pin::Pin;

use wakebox_guest::io::Status;
use wakebox_guest::net;
use wasmtime::Result;
use wasmtime::component::Resource;
use wasmtime_wasi_io::async_trait;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::Error as IoError;

use self::types::{ErrorCode, Family, IpAddress, IpSocketAddress};
use super::define::{Define, Held, Linker, method, method_of, pollable, resource};
use super::value::{Cx, Given, Taken};
use crate::files::status;
use crate::flight::Flight;
use crate::platform::OneThread;

type Outcome<T> = core::result::Result<T, ErrorCode>;

/// What all sockets of an instance are of.
struct Network;

pub(super) fn provide(instance: &mut Linker<'_>, interface: &str) -> Result<()> {
    match interface {
        "network" => {
            resource::<Network>(instance, "network")?;
            instance.define(
                "network-error-code",
                |cx: Cx<'_>, (error,): (Resource<IoError>,)| {
                    let error = cx.data().table.get(&error)?;
                    Ok((error.downcast_ref::<Status>().copied().map(ErrorCode::from),))
                },
            )
        }
        "instance-network" => instance.define("instance-network", |mut cx: Cx<'_>, ()| {
            Ok((cx.data_mut().table.push(Network)?,))
        }),
        "ip-name-lookup" => names(instance),
        "tcp" => tcp::provide(instance),
        "tcp-create-socket" => tcp::create(instance),
        "udp" => udp::provide(instance),
        "udp-create-socket" => udp::create(instance),
        _ => Ok(()),
    }
}

/// Defines a method that is given the network and an address.
fn method_with<T: Held, A: Taken>(
    instance: &mut Linker<'_>,
    name: &str,
    act: fn(&mut T, A) -> Outcome<()>,
) -> Result<()> {
    instance.define(
        name,
        move |mut cx: Cx<'_>, (this, _, argument): (Resource<T>, Resource<Network>, A)| {
            Ok((act(cx.data_mut().table.get_mut(&this)?, argument),))
        },
    )
}

/// What a method awaits: operations that the host does at once.
type Acting<R> = Pin<Box<dyn Future<Output = Outcome<R>>>>;

/// Defines a method that awaits operations.
fn acting<T: Held, A: Taken, R: Given>(
    instance: &mut Linker<'_>,
    name: &str,
    act: fn(&mut T, A) -> Outcome<Acting<R>>,
) -> Result<()> {
    instance.define_async(
        name,
        move |mut cx: Cx<'_>, (this, argument): (Resource<T>, A)| {
            let begun = cx.data_mut().table.get_mut(&this);
            let begun = begun.map(|this| act(this, argument).map(OneThread));
            Box::new(OneThread(async move {
                Ok((match begun? {
                    Ok(acting) => acting.await,
                    Err(code) => Err(code),
                },))
            }))
        },
    )
}

/// As that, without arguments.
fn asking<T: Held, R: Given>(
    instance: &mut Linker<'_>,
    name: &str,
    act: fn(&mut T) -> Outcome<Acting<R>>,
) -> Result<()> {
    instance.define_async(name, move |mut cx: Cx<'_>, (this,): (Resource<T>,)| {
        let begun = cx.data_mut().table.get_mut(&this);
        let begun = begun.map(|this| act(this).map(OneThread));
        Box::new(OneThread(async move {
            Ok((match begun? {
                Ok(acting) => acting.await,
                Err(code) => Err(code),
            },))
        }))
    })
}

/// What sockets of both kinds have.
trait Socket: Sized + 'static {
    /// The resource's name.
    const NAME: &str;

    fn start_bind(&mut self, address: IpSocketAddress) -> Outcome<()>;
    fn finish_bind(&mut self) -> Outcome<()>;
    fn local_address(&mut self) -> Outcome<Acting<IpSocketAddress>>;
    fn family(&self) -> Family;
}

/// Defines the resource and what sockets of both kinds have in 0.2.
fn socket<S: Socket>(instance: &mut Linker<'_>) -> Result<()>
where
    OneThread<S>: Pollable,
{
    let name = |method| alloc::format!("[method]{}.{method}", S::NAME);
    common::<S>(instance)?;
    method_with::<OneThread<S>, _>(instance, &name("start-bind"), |socket, at| {
        socket.0.start_bind(at)
    })?;
    method::<OneThread<S>, _>(instance, &name("finish-bind"), |socket| {
        socket.0.finish_bind()
    })?;
    pollable::<OneThread<S>>(instance, &name("subscribe"))
}

/// What they have in both versions.
fn common<S: Socket>(instance: &mut Linker<'_>) -> Result<()> {
    resource::<OneThread<S>>(instance, S::NAME)?;
    let name = instance.getter(S::NAME, "local-address");
    asking::<OneThread<S>, _>(instance, &name, |socket| socket.0.local_address())?;
    let name = instance.getter(S::NAME, "address-family");
    method::<OneThread<S>, _>(instance, &name, |socket| socket.0.family())?;
    no_setting::<OneThread<S>, u64>(instance, S::NAME, "receive-buffer-size")?;
    no_setting::<OneThread<S>, u64>(instance, S::NAME, "send-buffer-size")
}

/// What the host has no operation for: a setting that can be neither read nor made.
fn no_setting<T: Held, V: Given + Taken + Default + PartialEq>(
    instance: &mut Linker<'_>,
    resource: &str,
    name: &str,
) -> Result<()> {
    let get = instance.getter(resource, name);
    method::<T, Outcome<V>>(instance, &get, |_| Err(ErrorCode::NotSupported))?;
    method_of::<T, V, Outcome<()>>(
        instance,
        &alloc::format!("[method]{resource}.set-{name}"),
        |_, value| {
            Err(match value == V::default() {
                true => ErrorCode::InvalidArgument,
                false => ErrorCode::NotSupported,
            })
        },
    )
}

/// The addresses of a name.
struct Lookup {
    answer: Flight<IntoIter<IpAddr>>,
    addresses: IntoIter<IpAddr>,
}

/// The addresses of a name.
async fn resolve(name: String) -> crate::flight::Result<IntoIter<IpAddr>> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(Status::InvalidInput);
    }
    let mut addresses = net::lookup(&name).await.map_err(status)?;
    addresses.retain(|ip| !matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()));
    Ok(addresses.into_iter())
}

impl Lookup {
    fn of(name: String) -> Self {
        let answer = Flight::start(resolve(name));
        let addresses = alloc::vec::Vec::new().into_iter();
        Self { answer, addresses }
    }

    fn next_address(&mut self) -> Outcome<Option<IpAddress>> {
        match self.answer.take() {
            Some(answer) => self.addresses = answer?,
            None if !self.answer.is_nothing() => return Err(ErrorCode::WouldBlock),
            None => {}
        }
        Ok(self.addresses.next().map(IpAddress::from))
    }
}

#[async_trait]
impl Pollable for Lookup {
    async fn ready(&mut self) {
        self.answer.landed().await;
    }
}

fn names(instance: &mut Linker<'_>) -> Result<()> {
    resource::<Lookup>(instance, "resolve-address-stream")?;
    instance.define(
        "resolve-addresses",
        |mut cx: Cx<'_>, (_, name): (Resource<Network>, String)| {
            let mut lookup = Lookup::of(name);
            // What is no name is known at once.
            if let Flight::Landed(Err(Status::InvalidInput)) = lookup.answer {
                return Ok((Err(lookup
                    .next_address()
                    .err()
                    .unwrap_or(ErrorCode::Unknown)),));
            }
            Ok((Outcome::Ok(cx.data_mut().table.push(lookup)?),))
        },
    )?;
    method(
        instance,
        "[method]resolve-address-stream.resolve-next-address",
        Lookup::next_address,
    )?;
    pollable::<Lookup>(instance, "[method]resolve-address-stream.subscribe")
}
