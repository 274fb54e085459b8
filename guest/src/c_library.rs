//! What C code and the crates around it want besides [`c_symbols`](crate::c_symbols): an allocator and what the stack
//! protector calls. [`c_library!`] defines them, in the binary that wants them, so that a library that is tested on a
//! host has those of the host.

use alloc::alloc::{alloc, dealloc, realloc};
use core::alloc::Layout;
use core::ptr;

/// What `malloc` promises to align to (System V ABI for x86-64: that of `max_align_t`).
const ALIGN: usize = 16;

/// Of a block with its length before it.
fn layout(len: usize) -> Option<Layout> {
    Layout::from_size_align(len.checked_add(ALIGN)?, ALIGN).ok()
}

/// The block that an allocator has given, with its length noted.
///
/// # Safety
///
/// `base` is null or the beginning of a block of that layout.
unsafe fn noted(base: *mut u8, len: usize) -> *mut u8 {
    if base.is_null() {
        return base;
    }
    // SAFETY: the block has room for a length before what is given.
    unsafe {
        base.cast::<usize>().write(len);
        base.add(ALIGN)
    }
}

/// `malloc`.
#[must_use]
pub fn allocate(len: usize) -> *mut u8 {
    match layout(len) {
        // SAFETY: the layout has a size, and the block is of it.
        Some(layout) => unsafe { noted(alloc(layout), len) },
        None => ptr::null_mut(),
    }
}

/// `calloc`.
#[must_use]
pub fn allocate_zeroed(count: usize, len: usize) -> *mut u8 {
    let Some(len) = count.checked_mul(len) else {
        return ptr::null_mut();
    };
    let block = allocate(len);
    if !block.is_null() {
        // SAFETY: it has so many bytes.
        unsafe { block.write_bytes(0, len) };
    }
    block
}

/// `realloc`.
///
/// # Safety
///
/// The block is null or of one of these functions, and was not freed.
#[must_use]
pub unsafe fn reallocate(block: *mut u8, len: usize) -> *mut u8 {
    if block.is_null() {
        return allocate(len);
    }
    let Some(wanted) = layout(len) else {
        return ptr::null_mut();
    };
    // SAFETY: the caller's promise: its length lies before it.
    unsafe {
        let base = block.sub(ALIGN);
        let old = base.cast::<usize>().read();
        match layout(old) {
            Some(layout) => noted(realloc(base, layout, wanted.size()), len),
            None => ptr::null_mut(),
        }
    }
}

/// `free`.
///
/// # Safety
///
/// As for [`reallocate`].
pub unsafe fn release(block: *mut u8) {
    if block.is_null() {
        return;
    }
    // SAFETY: as there.
    unsafe {
        let base = block.sub(ALIGN);
        if let Some(layout) = layout(base.cast::<usize>().read()) {
            dealloc(base, layout);
        }
    }
}

/// `__stack_chk_fail`: a function has found that it wrote beyond its own frame.
///
/// # Panics
///
/// Always.
pub fn stack_is_smashed() -> ! {
    panic!("a function in C has written beyond its stack frame");
}

/// Defines `malloc`, `calloc`, `realloc`, `free`, and, for what was compiled with
/// `-mstack-protector-guard=global`, `__stack_chk_guard` and `__stack_chk_fail`. To be called once, in the binary of a guest
/// that links C code. (The guard is a constant: it finds mistakes, and hinders nobody who knows it.)
///
/// Blocks are of the guest's heap, aligned to 16 bytes; where there is no memory they are null.
#[macro_export]
macro_rules! c_library {
    () => {
        const _: () = {
            use ::core::ffi::c_void;
            use $crate::__private as c;

            #[unsafe(no_mangle)]
            extern "C" fn malloc(len: usize) -> *mut c_void {
                c::allocate(len).cast()
            }

            #[unsafe(no_mangle)]
            extern "C" fn calloc(count: usize, len: usize) -> *mut c_void {
                c::allocate_zeroed(count, len).cast()
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn realloc(block: *mut c_void, len: usize) -> *mut c_void {
                // SAFETY: what C promises of a block.
                unsafe { c::reallocate(block.cast(), len).cast() }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn free(block: *mut c_void) {
                // SAFETY: what C promises of a block.
                unsafe { c::release(block.cast()) }
            }

            #[unsafe(no_mangle)]
            static __stack_chk_guard: usize = 0xa10d_0a00_f2c5_93b7;

            #[unsafe(no_mangle)]
            extern "C" fn __stack_chk_fail() -> ! {
                c::stack_is_smashed()
            }
        };
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_aligned_keep_what_is_in_them_and_may_be_null() {
        let block = allocate(5);
        assert_eq!(block.addr() % ALIGN, 0);
        // SAFETY: the blocks have so many bytes, and are freed once.
        unsafe {
            block.copy_from("bytes".as_ptr(), 5);
            let longer = reallocate(block, 5000);
            assert_eq!(core::slice::from_raw_parts(longer, 5), b"bytes");
            release(longer);
            let zeroes = allocate_zeroed(10, 10);
            assert!(
                core::slice::from_raw_parts(zeroes, 100)
                    .iter()
                    .all(|byte| *byte == 0)
            );
            release(zeroes);
            release(reallocate(ptr::null_mut(), 1));
            release(ptr::null_mut());
        }
        assert!(allocate(usize::MAX).is_null());
        assert!(allocate_zeroed(usize::MAX, 2).is_null());
    }
}
