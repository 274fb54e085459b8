//! What of a processor's features a program can see and may have come to rely on.

use kvm_bindings::CpuId;

use super::registers::Features;

/// Where a feature is told: leaf and index of CPUID, and the register (`eax` is 0, `edx` 3).
type Word = (u32, u32, usize);

/// The features that programs ask for, by the names that Linux and compilers give them (Intel SDM vol.
/// 2A, CPUID; AMD APM vol. 3, appendix E). Those of the supervisor are of no use to a guest.
const NAMES: [(Word, &[(u32, &str)]); 9] = [
    (
        (1, 0, 2),
        &[
            (0, "sse3"),
            (1, "pclmulqdq"),
            (9, "ssse3"),
            (12, "fma"),
            (13, "cmpxchg16b"),
            (19, "sse4.1"),
            (20, "sse4.2"),
            (22, "movbe"),
            (23, "popcnt"),
            (25, "aes"),
            (26, "xsave"),
            (28, "avx"),
            (29, "f16c"),
            (30, "rdrand"),
        ],
    ),
    (
        (1, 0, 3),
        &[
            (4, "tsc"),
            (8, "cmpxchg8b"),
            (15, "cmov"),
            (19, "clflush"),
            (23, "mmx"),
            (24, "fxsr"),
            (25, "sse"),
            (26, "sse2"),
        ],
    ),
    (
        (7, 0, 1),
        &[
            (3, "bmi1"),
            (5, "avx2"),
            (8, "bmi2"),
            (16, "avx512f"),
            (17, "avx512dq"),
            (18, "rdseed"),
            (19, "adx"),
            (21, "avx512ifma"),
            (23, "clflushopt"),
            (24, "clwb"),
            (28, "avx512cd"),
            (29, "sha"),
            (30, "avx512bw"),
            (31, "avx512vl"),
        ],
    ),
    (
        (7, 0, 2),
        &[
            (1, "avx512vbmi"),
            (5, "waitpkg"),
            (6, "avx512vbmi2"),
            (8, "gfni"),
            (9, "vaes"),
            (10, "vpclmulqdq"),
            (11, "avx512vnni"),
            (12, "avx512bitalg"),
            (14, "avx512vpopcntdq"),
            (22, "rdpid"),
            (27, "movdiri"),
            (28, "movdir64b"),
        ],
    ),
    (
        (7, 0, 3),
        &[
            (8, "avx512vp2intersect"),
            (14, "serialize"),
            (23, "avx512fp16"),
        ],
    ),
    (
        (7, 1, 0),
        &[
            (0, "sha512"),
            (1, "sm3"),
            (2, "sm4"),
            (4, "avxvnni"),
            (5, "avx512bf16"),
            (23, "avxifma"),
        ],
    ),
    ((0xd, 1, 0), &[(0, "xsaveopt"), (1, "xsavec")]),
    (
        (0x8000_0001, 0, 2),
        &[
            (0, "lahf"),
            (5, "lzcnt"),
            (6, "sse4a"),
            (11, "xop"),
            (16, "fma4"),
            (21, "tbm"),
        ],
    ),
    ((0x8000_0001, 0, 3), &[(27, "rdtscp")]),
];

/// The features of a processor with these leaves, by name.
#[must_use]
pub fn names(cpuid: &CpuId) -> Vec<&'static str> {
    let word = |(function, index, register): Word| {
        let mut entries = cpuid.as_slice().iter();
        let entry = entries.find(|entry| entry.function == function && entry.index == index);
        entry.map_or(0, |entry| {
            [entry.eax, entry.ebx, entry.ecx, entry.edx][register]
        })
    };
    let has = NAMES.iter().flat_map(|(at, names)| {
        let word = word(*at);
        let set = names.iter().filter(move |(bit, _)| word >> bit & 1 != 0);
        set.map(|(_, name)| *name)
    });
    has.collect()
}

/// The parts of the extended state that a guest on a processor with these leaves is given: `XCR0`.
#[must_use]
pub fn extended_state(cpuid: &CpuId) -> u64 {
    Features::of(cpuid).xcr0
}

#[cfg(test)]
mod tests {
    use kvm_bindings::kvm_cpuid_entry2;

    use super::*;

    #[test]
    fn features_are_told_by_leaf_index_and_register() {
        let entry = |function, index, ecx, edx| kvm_cpuid_entry2 {
            function,
            index,
            ecx,
            edx,
            ..Default::default()
        };
        let entries = [
            entry(1, 0, 1 << 28, 1 << 25 | 1 << 26),
            entry(7, 0, 1 << 9, 0),
            entry(7, 1, u32::MAX, u32::MAX),
        ];
        let cpuid = CpuId::from_entries(&entries).unwrap();
        assert_eq!(names(&cpuid), ["avx", "sse", "sse2", "vaes"]);
        assert_eq!(extended_state(&cpuid), 0);
    }

    #[test]
    fn no_two_features_have_one_name() {
        let all = NAMES.iter().flat_map(|(_, names)| names.iter());
        let mut names: Vec<_> = all.map(|(_, name)| name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
