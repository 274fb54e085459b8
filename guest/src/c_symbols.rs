//! The functions of the C library that the compiler and the precompiled `core` call.
//!
//! In assembly, because a compiler recognizes such loops and turns them into calls of the
//! very function; and so that a debug build copies as fast as a release build. Short
//! blocks go through 16-byte registers with ends that overlap, so that a few
//! comparisons cover all lengths; long ones through `rep movsb` and `rep stosb`, which
//! processors make fast (from about 1 KiB on, as measured).

/// Defines the functions, each with the given attributes.
#[doc(hidden)]
#[macro_export]
macro_rules! __c_symbols {
    ($(#[$attribute:meta])*) => {
        /// Copies `rdx` bytes from `rsi` to `rdi`; right as well if `rdi` is below an
        /// overlapping `rsi`, for [`memmove`].
        #[unsafe(naked)]
        $(#[$attribute])*
        unsafe extern "C" fn memcpy(_to: *mut u8, _from: *const u8, _len: usize) -> *mut u8 {
            ::core::arch::naked_asm!(
                "mov rax, rdi",
                "cmp rdx, 16",
                "jb 4f",
                "cmp rdx, 32",
                "ja 2f",
                // 16 to 32
                "movups xmm0, [rsi]",
                "movups xmm1, [rsi + rdx - 16]",
                "movups [rdi], xmm0",
                "movups [rdi + rdx - 16], xmm1",
                "ret",
                "2:",
                "cmp rdx, 1024",
                "jae 7f",
                // 33 to 1023: the last 32 are read first and written last
                "movups xmm2, [rsi + rdx - 32]",
                "movups xmm3, [rsi + rdx - 16]",
                "lea rcx, [rdi + rdx - 32]",
                "3:",
                "movups xmm0, [rsi]",
                "movups xmm1, [rsi + 16]",
                "movups [rdi], xmm0",
                "movups [rdi + 16], xmm1",
                "add rsi, 32",
                "add rdi, 32",
                "cmp rdi, rcx",
                "jb 3b",
                "movups [rcx], xmm2",
                "movups [rcx + 16], xmm3",
                "ret",
                "4:",
                "cmp edx, 8",
                "jb 5f",
                // 8 to 15
                "mov rcx, [rsi]",
                "mov r8, [rsi + rdx - 8]",
                "mov [rdi], rcx",
                "mov [rdi + rdx - 8], r8",
                "ret",
                "5:",
                "cmp edx, 4",
                "jb 6f",
                // 4 to 7
                "mov ecx, [rsi]",
                "mov r8d, [rsi + rdx - 4]",
                "mov [rdi], ecx",
                "mov [rdi + rdx - 4], r8d",
                "ret",
                "6:",
                "test edx, edx",
                "je 8f",
                // 1 to 3: first, middle and last, which may be the same
                "movzx ecx, byte ptr [rsi]",
                "movzx r8d, byte ptr [rsi + rdx - 1]",
                "mov r9, rdx",
                "shr r9, 1",
                "movzx r10d, byte ptr [rsi + r9]",
                "mov [rdi], cl",
                "mov [rdi + r9], r10b",
                "mov [rdi + rdx - 1], r8b",
                "ret",
                "7:",
                "mov rcx, rdx",
                "rep movsb",
                "8:",
                "ret",
            )
        }

        /// As [`memcpy`], for blocks that may overlap either way.
        #[unsafe(naked)]
        $(#[$attribute])*
        unsafe extern "C" fn memmove(_to: *mut u8, _from: *const u8, _len: usize) -> *mut u8 {
            ::core::arch::naked_asm!(
                // `to - from`, which wraps if `to` is below: only `0..len` must go backwards.
                "mov rcx, rdi",
                "sub rcx, rsi",
                "cmp rcx, rdx",
                "jae {memcpy}",
                // Up to 32 bytes are all read before any is written.
                "cmp rdx, 32",
                "jbe {memcpy}",
                "mov rax, rdi",
                // The first 32 are read first and written last.
                "movups xmm2, [rsi]",
                "movups xmm3, [rsi + 16]",
                "lea r8, [rdi + rdx - 32]",
                "lea r9, [rsi + rdx - 32]",
                "2:",
                "movups xmm0, [r9]",
                "movups xmm1, [r9 + 16]",
                "movups [r8], xmm0",
                "movups [r8 + 16], xmm1",
                "sub r9, 32",
                "sub r8, 32",
                "cmp r8, rdi",
                "ja 2b",
                "movups [rdi], xmm2",
                "movups [rdi + 16], xmm3",
                "ret",
                memcpy = sym memcpy,
            )
        }

        /// Sets `rdx` bytes from `rdi` on to `sil`.
        #[unsafe(naked)]
        $(#[$attribute])*
        unsafe extern "C" fn memset(_to: *mut u8, _byte: i32, _len: usize) -> *mut u8 {
            ::core::arch::naked_asm!(
                "cmp rdx, 1024",
                "jae 6f",
                "mov rax, 0x0101010101010101",
                "movzx esi, sil",
                "imul rsi, rax",
                "mov rax, rdi",
                "cmp edx, 16",
                "jb 3f",
                // 16 to 1023
                "movq xmm0, rsi",
                "punpcklqdq xmm0, xmm0",
                "lea rcx, [rdi + rdx - 16]",
                "2:",
                "movups [rdi], xmm0",
                "add rdi, 16",
                "cmp rdi, rcx",
                "jb 2b",
                "movups [rcx], xmm0",
                "ret",
                "3:",
                "cmp edx, 8",
                "jb 4f",
                "mov [rdi], rsi",
                "mov [rdi + rdx - 8], rsi",
                "ret",
                "4:",
                "cmp edx, 4",
                "jb 5f",
                "mov [rdi], esi",
                "mov [rdi + rdx - 4], esi",
                "ret",
                "5:",
                "test edx, edx",
                "je 7f",
                "mov rcx, rdx",
                "shr rcx, 1",
                "mov [rdi], sil",
                "mov [rdi + rcx], sil",
                "mov [rdi + rdx - 1], sil",
                "ret",
                "6:",
                "mov r8, rdi",
                "mov eax, esi",
                "mov rcx, rdx",
                "rep stosb",
                "mov rax, r8",
                "7:",
                "ret",
            )
        }

        /// Compares `rdx` bytes: the sign of the first difference.
        #[unsafe(naked)]
        $(#[$attribute])*
        unsafe extern "C" fn memcmp(_a: *const u8, _b: *const u8, _len: usize) -> i32 {
            ::core::arch::naked_asm!(
                "xor ecx, ecx",
                "2:",
                "lea r8, [rcx + 16]",
                "cmp r8, rdx",
                "ja 3f",
                "movups xmm0, [rdi + rcx]",
                "movups xmm1, [rsi + rcx]",
                "pcmpeqb xmm0, xmm1",
                "pmovmskb eax, xmm0",
                "xor eax, 0xFFFF",
                "jne 5f",
                "mov rcx, r8",
                "jmp 2b",
                // fewer than 16 are left
                "3:",
                "cmp rcx, rdx",
                "jae 4f",
                "movzx eax, byte ptr [rdi + rcx]",
                "movzx r8d, byte ptr [rsi + rcx]",
                "inc rcx",
                "sub eax, r8d",
                "je 3b",
                "ret",
                "4:",
                "xor eax, eax",
                "ret",
                // the lowest bit is the first difference
                "5:",
                "bsf eax, eax",
                "add rcx, rax",
                "movzx eax, byte ptr [rdi + rcx]",
                "movzx r8d, byte ptr [rsi + rcx]",
                "sub eax, r8d",
                "ret",
            )
        }

        /// As [`memcmp`]; callers only ask whether it is zero.
        #[unsafe(naked)]
        $(#[$attribute])*
        unsafe extern "C" fn bcmp(_a: *const u8, _b: *const u8, _len: usize) -> i32 {
            ::core::arch::naked_asm!("jmp {memcmp}", memcmp = sym memcmp)
        }

        /// Counts the bytes before the first zero.
        #[unsafe(naked)]
        $(#[$attribute])*
        unsafe extern "C" fn strlen(_text: *const ::core::ffi::c_char) -> usize {
            ::core::arch::naked_asm!(
                "xor eax, eax",
                "2:",
                "cmp byte ptr [rdi + rax], 0",
                "je 3f",
                "inc rax",
                "jmp 2b",
                "3:",
                "ret",
            )
        }
    };
}

#[cfg(test)]
mod tests {
    crate::__c_symbols!();

    /// Every length around every boundary in the code, at uneven addresses.
    const LENGTHS: [usize; 28] = [
        0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 47, 48, 63, 64, 65, 95, 96, 97, 127,
        1023, 1024, 1025, 5000,
    ];

    fn pattern(len: usize) -> Vec<u8> {
        (0..len)
            .map(|index| (index * 7 + index / 251) as u8)
            .collect()
    }

    #[test]
    fn blocks_are_copied_and_nothing_else() {
        for len in LENGTHS {
            let from = pattern(len + 3);
            let mut to = vec![0xEE; len + 16];
            // SAFETY: both blocks are long enough.
            let result = unsafe { memcpy(to[5..].as_mut_ptr(), from[3..].as_ptr(), len) };
            assert_eq!(result, to[5..].as_mut_ptr());
            assert_eq!(to[5..5 + len], from[3..], "{len}");
            assert!(
                to[..5]
                    .iter()
                    .chain(&to[5 + len..])
                    .all(|&byte| byte == 0xEE)
            );
        }
    }

    #[test]
    fn overlapping_blocks_are_moved_either_way() {
        for len in LENGTHS {
            for (from, to) in [(0, 1), (1, 0), (0, 17), (17, 0), (0, 40), (40, 0), (9, 9)] {
                let mut block = pattern(len + 48);
                let mut expected = block.clone();
                expected.copy_within(from..from + len, to);
                let start = block.as_mut_ptr();
                // SAFETY: both ranges lie in the block.
                unsafe { memmove(start.add(to), start.add(from), len) };
                assert_eq!(block, expected, "{len} bytes from {from} to {to}");
            }
        }
    }

    #[test]
    fn blocks_are_set_and_nothing_else() {
        for len in LENGTHS {
            let mut to = vec![0xEE; len + 16];
            // SAFETY: the block is long enough.
            let result = unsafe { memset(to[5..].as_mut_ptr(), 0x1A5, len) };
            assert_eq!(result, to[5..].as_mut_ptr());
            assert!(to[5..5 + len].iter().all(|&byte| byte == 0xA5), "{len}");
            assert!(
                to[..5]
                    .iter()
                    .chain(&to[5 + len..])
                    .all(|&byte| byte == 0xEE)
            );
        }
    }

    #[test]
    fn the_first_difference_decides() {
        for len in LENGTHS {
            let a = pattern(len);
            // SAFETY: (all) both blocks are as long as that.
            assert_eq!(unsafe { memcmp(a.as_ptr(), a.clone().as_ptr(), len) }, 0);
            for at in [0, len / 2, len.saturating_sub(1)] {
                let (mut b, mut c) = (a.clone(), a.clone());
                if at >= len || a[at] == 0xFF {
                    continue;
                }
                b[at] += 1;
                c[at..].fill(0xFF);
                // SAFETY: as above.
                unsafe {
                    assert!(memcmp(a.as_ptr(), b.as_ptr(), len) < 0, "{at} of {len}");
                    assert!(memcmp(c.as_ptr(), a.as_ptr(), len) > 0, "{at} of {len}");
                    assert_ne!(bcmp(a.as_ptr(), b.as_ptr(), len), 0);
                }
            }
        }
    }

    #[test]
    fn a_string_ends_at_its_zero() {
        for text in [c"", c"a", c"wakebox"] {
            // SAFETY: a C string.
            assert_eq!(unsafe { strlen(text.as_ptr()) }, text.count_bytes());
        }
    }
}
