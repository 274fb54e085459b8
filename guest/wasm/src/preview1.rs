//! WASI preview 1: `wasi_snapshot_preview1`, on the same operations as 0.2.
//!
//! A function has its arguments in the order of the specification, reads and writes the module's memory,
//! and gives an error number.

mod descriptors;
mod errno;
mod files;
mod memory;
mod paths;
mod poll;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use wakebox_guest::{env, process, random, task, time};
use wasmtime::{Caller, Engine, FuncType, Linker, Result, Val, ValType};

use self::descriptors::Descriptors;
use self::errno::Errno;
use crate::files::status;
use crate::platform::OneThread;

const MODULE: &str = "wasi_snapshot_preview1";

/// What a function gives.
type Outcome = core::result::Result<(), Errno>;

/// What belongs to one instance.
pub(crate) struct State(OneThread<Descriptors>);

impl State {
    pub(crate) async fn new() -> Result<Self> {
        let granted = crate::files::granted().await;
        let granted = granted.map_err(|status| wasmtime::format_err!("{status}"))?;
        Ok(Self(OneThread(Descriptors::new(granted))))
    }
}

/// The instance that calls.
struct Process<'a>(Caller<'a, State>);

impl Process<'_> {
    fn descriptors(&mut self) -> &mut Descriptors {
        &mut self.0.data_mut().0.0
    }
}

/// An argument.
trait Argument {
    const TYPE: ValType;
    fn of(value: &Val) -> Self;
}

impl Argument for u32 {
    const TYPE: ValType = ValType::I32;
    fn of(value: &Val) -> Self {
        value.i32().map_or(0, i32::cast_unsigned)
    }
}

impl Argument for u64 {
    const TYPE: ValType = ValType::I64;
    fn of(value: &Val) -> Self {
        value.i64().map_or(0, i64::cast_unsigned)
    }
}

impl Argument for i64 {
    const TYPE: ValType = ValType::I64;
    fn of(value: &Val) -> Self {
        value.i64().unwrap_or(0)
    }
}

/// Defines [`Function`] of methods of [`Process`].
macro_rules! functions {
    ($($name:ident($($argument:ident: $ty:ty),*);)*) => {
        /// A function that gives an error number.
        #[derive(Clone, Copy)]
        #[allow(non_camel_case_types, reason = "the specification's names")]
        enum Function {
            $($name,)*
        }

        impl Function {
            const ALL: &[Self] = &[$(Self::$name,)*];

            fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            fn parameters(self) -> Vec<ValType> {
                match self {
                    $(Self::$name => alloc::vec![$(<$ty>::TYPE),*],)*
                }
            }

            async fn call(self, mut process: Process<'_>, arguments: &[Val]) -> Outcome {
                // Those that are missing cannot be: the types are checked.
                let mut _next = arguments.iter();
                match self {
                    $(Self::$name => {
                        $(let $argument = _next.next().map_or(0, <$ty>::of);)*
                        process.$name($($argument),*).await
                    })*
                }
            }
        }
    };
}

/// Links all functions. They share what surrounds a call: one of its own for each would double this program.
pub(crate) fn link(engine: &Engine, linker: &mut Linker<State>) -> Result<()> {
    for &function in Function::ALL {
        let ty = FuncType::new(
            engine,
            function.parameters().iter().cloned(),
            [ValType::I32],
        );
        linker.func_new_async(
            MODULE,
            function.name(),
            ty,
            move |caller, arguments, results| {
                Box::new(OneThread(async move {
                    let outcome = function.call(Process(caller), arguments).await;
                    let errno = outcome.map_or_else(|errno| errno as i32, |()| 0);
                    if let Some(result) = results.first_mut() {
                        *result = Val::I32(errno);
                    }
                    Ok(())
                }))
            },
        )?;
    }
    let exit = |code: i32| -> () { process::exit(code) };
    linker.func_wrap(MODULE, "proc_exit", exit)?;
    Ok(())
}

/// Whether there is a function.
pub(crate) fn provides(module: &str, function: &str) -> bool {
    let is_one = |known: &Function| known.name() == function;
    module == MODULE && (function == "proc_exit" || Function::ALL.iter().any(is_one))
}

// In a file of its own, because the compiler has the same list.
include!("preview1/table.rs");

fn arguments() -> Vec<String> {
    // A program's first argument is its name.
    core::iter::once("app")
        .chain(env::args())
        .map(String::from)
        .collect()
}

fn variables() -> Vec<String> {
    let vars = env::vars();
    vars.map(|(name, value)| alloc::format!("{name}={value}"))
        .collect()
}

#[allow(clippy::unused_async, reason = "the functions are called alike")]
impl Process<'_> {
    fn put_strings(&mut self, strings: &[String], mut list: u32, mut text: u32) -> Outcome {
        for string in strings {
            self.put_u32(list, text)?;
            self.put(text, string.as_bytes())?;
            let end = text.wrapping_add(string.len() as u32);
            self.put(end, &[0])?;
            text = end.wrapping_add(1);
            list = list.wrapping_add(4);
        }
        Ok(())
    }

    fn put_sizes(&mut self, strings: &[String], count: u32, bytes: u32) -> Outcome {
        let all: usize = strings.iter().map(|string| string.len() + 1).sum();
        self.put_u32(count, strings.len() as u32)?;
        self.put_u32(bytes, all as u32)
    }

    async fn args_get(&mut self, list: u32, text: u32) -> Outcome {
        self.put_strings(&arguments(), list, text)
    }

    async fn args_sizes_get(&mut self, count: u32, bytes: u32) -> Outcome {
        self.put_sizes(&arguments(), count, bytes)
    }

    async fn environ_get(&mut self, list: u32, text: u32) -> Outcome {
        self.put_strings(&variables(), list, text)
    }

    async fn environ_sizes_get(&mut self, count: u32, bytes: u32) -> Outcome {
        self.put_sizes(&variables(), count, bytes)
    }

    async fn clock_res_get(&mut self, clock: u32, into: u32) -> Outcome {
        clock_now(clock)?;
        self.put_u64(into, 1)
    }

    async fn clock_time_get(&mut self, clock: u32, _precision: u64, into: u32) -> Outcome {
        self.put_u64(into, clock_now(clock)?)
    }

    async fn random_get(&mut self, mut into: u32, mut count: u32) -> Outcome {
        let mut bytes = [0; 256];
        while count > 0 {
            let part = &mut bytes[..count.min(256) as usize];
            random::fill(part).await.map_err(status)?;
            self.put(into, part)?;
            into = into.wrapping_add(part.len() as u32);
            count -= part.len() as u32;
        }
        Ok(())
    }

    async fn sched_yield(&mut self) -> Outcome {
        task::yield_now().await;
        Ok(())
    }

    async fn proc_raise(&mut self, _signal: u32) -> Outcome {
        Err(Errno::Notsup)
    }

    /// No descriptor is a socket.
    fn no_socket(&mut self, fd: u32) -> Outcome {
        self.descriptors().get(fd)?;
        Err(Errno::Notsock)
    }

    async fn sock_accept(&mut self, fd: u32, _: u32, _: u32) -> Outcome {
        self.no_socket(fd)
    }

    async fn sock_recv(&mut self, fd: u32, _: u32, _: u32, _: u32, _: u32, _: u32) -> Outcome {
        self.no_socket(fd)
    }

    async fn sock_send(&mut self, fd: u32, _: u32, _: u32, _: u32, _: u32) -> Outcome {
        self.no_socket(fd)
    }

    async fn sock_shutdown(&mut self, fd: u32, _: u32) -> Outcome {
        self.no_socket(fd)
    }
}

/// Nanoseconds on a clock. Processor time is that of the whole guest, which runs for nobody else.
fn clock_now(clock: u32) -> core::result::Result<u64, Errno> {
    match clock {
        0 => Ok(time::unix_time().as_nanos() as u64),
        1..=3 => Ok(time::now().as_nanos()),
        _ => Err(Errno::Inval),
    }
}
