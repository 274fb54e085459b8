//! A guest in C: `c/wakebox.h` is what it can do, and this is that header's other side. Arguments: the address of an echo
//! server; or `smash`, for a frame that is written beyond its end.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::RefCell;
use core::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_void};
use core::slice;

use wakebox_guest::net::TcpStream;
use wakebox_guest::time::{Duration, sleep};
use wakebox_guest::{env, println, process, spawn};

wakebox_guest::c_library!();

type Done = unsafe extern "C" fn(*mut c_void, c_long);

unsafe extern "C" {
    fn begin(address: *const c_char);
    fn smash(len: usize);
}

/// Streams by number. A guest has one flow of control.
struct Streams(RefCell<Vec<Option<Rc<TcpStream>>>>);

// SAFETY: this guest has one processor and no interrupts.
unsafe impl Sync for Streams {}

static STREAMS: Streams = Streams(RefCell::new(Vec::new()));

fn stream(number: c_long) -> Option<Rc<TcpStream>> {
    let streams = STREAMS.0.borrow();
    streams.get(usize::try_from(number).ok()?)?.clone()
}

/// Does something, and calls back with its result.
fn later(done: Done, me: *mut c_void, what: impl Future<Output = Option<usize>> + 'static) {
    spawn(async move {
        let result = what.await.map_or(-1, |result| result as c_long);
        // SAFETY: C has given them together.
        unsafe { done(me, result) }
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn wakebox_connect(address: *const c_char, done: Done, me: *mut c_void) {
    // SAFETY: the header asks for a string.
    let address = unsafe { CStr::from_ptr(address) }
        .to_string_lossy()
        .into_owned();
    later(done, me, async move {
        let stream = TcpStream::connect(&*address).await.ok()?;
        let mut streams = STREAMS.0.borrow_mut();
        streams.push(Some(Rc::new(stream)));
        Some(streams.len() - 1)
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn wakebox_read(
    number: c_long,
    into: *mut c_uchar,
    len: usize,
    done: Done,
    me: *mut c_void,
) {
    later(done, me, async move {
        // SAFETY: the header lends the buffer until this is done.
        let into = unsafe { slice::from_raw_parts_mut(into, len) };
        stream(number)?.read(into).await.ok()
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn wakebox_write(
    number: c_long,
    from: *const c_uchar,
    len: usize,
    done: Done,
    me: *mut c_void,
) {
    later(done, me, async move {
        // SAFETY: the header lends the buffer until this is done.
        let from = unsafe { slice::from_raw_parts(from, len) };
        stream(number)?.write_all(from).await.ok()?;
        Some(len)
    });
}

#[unsafe(no_mangle)]
extern "C" fn wakebox_close(number: c_long) {
    let mut streams = STREAMS.0.borrow_mut();
    let place = usize::try_from(number)
        .ok()
        .and_then(|at| streams.get_mut(at));
    drop(place.and_then(Option::take));
}

#[unsafe(no_mangle)]
unsafe extern "C" fn wakebox_sleep(millis: u64, done: Done, me: *mut c_void) {
    later(done, me, async move {
        sleep(Duration::from_millis(millis)).await;
        Some(0)
    });
}

#[unsafe(no_mangle)]
unsafe extern "C" fn wakebox_print(line: *const c_char) {
    // SAFETY: the header asks for a string.
    println!("{}", unsafe { CStr::from_ptr(line) }.to_string_lossy());
}

#[unsafe(no_mangle)]
extern "C" fn wakebox_exit(code: c_int) {
    process::exit(code);
}

#[wakebox_guest::main]
async fn main() {
    match env::args().next() {
        // SAFETY: it breaks its own frame, which is what this is about.
        Some("smash") => unsafe { smash(64) },
        address => {
            let address = alloc::ffi::CString::new(address.unwrap_or_default()).unwrap_or_default();
            // SAFETY: it is a string, and is there while C looks at it.
            unsafe { begin(address.as_ptr()) }
            // Only what C has begun goes on.
            sleep(Duration::from_secs(3600)).await;
        }
    }
}
