//! A store for a guest: host functions backed by `redb`. `cargo xtask run kv` runs it.
//!
//! Usage: `kv GUEST [out|irq|poll|auto] [TASKS] [KEYS]`
//!
//! The guest has no file and no network; the three functions and the stream below are all that it
//! can reach. What blocks runs in `spawn_blocking`; what takes microseconds runs where it is.

use std::error::Error;

use futures_util::{Stream, stream};
use redb::{Database, Durability, ReadableDatabase, TableDefinition};
use serde::Serialize;
use wakebox::{HostContext, Output, Sandbox, WakeMode};

const TABLE: TableDefinition<'_, &str, &str> = TableDefinition::new("kv");

/// Most bytes of a value.
const VALUE_MAX: usize = 4096;

/// What can go wrong in the store. The guest has the same type, so it arrives as it is.
#[derive(Debug, Serialize)]
enum StoreError {
    EmptyKey,
    ValueTooLong { most: usize },
    Storage(String),
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Storage(error.into().to_string())
    }
}

fn put(store: &Database, key: &str, value: &str) -> Result<Option<String>, StoreError> {
    if key.is_empty() {
        return Err(StoreError::EmptyKey);
    }
    if value.len() > VALUE_MAX {
        return Err(StoreError::ValueTooLong { most: VALUE_MAX });
    }
    let mut change = store.begin_write()?;
    // In memory, until `kv.sync`.
    change.set_durability(Durability::None)?;
    let old = change
        .open_table(TABLE)?
        .insert(key, value)?
        .map(|old| old.value().to_owned());
    change.commit()?;
    Ok(old)
}

fn get(store: &Database, key: &str) -> Result<Option<String>, StoreError> {
    let table = store.begin_read()?.open_table(TABLE)?;
    Ok(table.get(key)?.map(|value| value.value().to_owned()))
}

/// The entries from a key on, read as they are asked for.
fn scan(
    store: &Database,
    from: &str,
) -> Result<impl Stream<Item = (String, String)> + use<>, StoreError> {
    let entries = store.begin_read()?.open_table(TABLE)?.range(from..)?;
    let readable = entries.filter_map(Result::ok);
    let owned = readable.map(|(key, value)| (key.value().to_owned(), value.value().to_owned()));
    Ok(stream::iter(owned))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let guest = args.next().ok_or("usage: kv GUEST [MODE] [TASKS] [KEYS]")?;
    let mode: WakeMode = args.next().as_deref().unwrap_or("auto").parse()?;

    let folder = tempfile::tempdir()?;
    let store = Database::create(folder.path().join("kv.redb"))?;
    let change = store.begin_write()?;
    change.open_table(TABLE)?;
    change.commit()?;

    let mut sandbox = Sandbox::builder()
        .guest(&*guest)
        .args(args)
        .wake(mode)
        .state(store)
        .host_fn(
            "kv.put",
            async |ctx: HostContext, (key, value): (String, String)| put(ctx.state(), &key, &value),
        )
        .host_fn("kv.get", async |ctx: HostContext, key: String| {
            get(ctx.state(), &key)
        })
        .host_fn("kv.sync", async |ctx: HostContext, (): ()| {
            let sync = move || -> Result<(), StoreError> {
                Ok(ctx.state::<Database>().begin_write()?.commit()?)
            };
            let synced = tokio::task::spawn_blocking(sync).await;
            synced.map_err(|error| StoreError::Storage(error.to_string()))?
        })
        .host_stream("kv.scan", |ctx: HostContext, from: String| {
            scan(ctx.state(), &from).expect("the table is there")
        })
        .stdout(Output::Inherit)
        .stderr(Output::Inherit)
        .build()?;
    let outcome = sandbox.run().await?;
    eprintln!("{outcome}\n{}", sandbox.stats());
    if outcome.is_success() {
        Ok(())
    } else {
        Err("the guest found something wrong".into())
    }
}
