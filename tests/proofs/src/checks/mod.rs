//! The checks, by what they are about.
//!
//! Each panics if what it says does not hold.

pub mod bytes;
pub mod entry;
pub mod queue;
pub mod ring;

/// Has each check run under Kani, and as two tests: with every combination of telling values, and
/// with what proptest makes up.
macro_rules! run {
    ($($(#[$attribute:meta])* $check:ident,)*) => {
        #[cfg(kani)]
        mod kani_proofs {
            $(
                #[kani::proof]
                $(#[$attribute])*
                fn $check() {
                    super::$check(&mut crate::Symbolic);
                }
            )*
        }

        #[cfg(test)]
        mod every_combination {
            $(
                #[test]
                fn $check() {
                    let runs = crate::every(|any| super::$check(any));
                    println!("{runs} combinations");
                }
            )*
        }

        #[cfg(test)]
        mod anything {
            use proptest::prelude::*;

            proptest! {
                $(
                    #[test]
                    fn $check(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
                        super::$check(&mut crate::Bytes::new(&bytes));
                    }
                )*
            }
        }
    };
}
pub(crate) use run;
