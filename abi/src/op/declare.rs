//! What a row of the table of operations becomes.

/// Declares [`Opcode`] and one struct for each row of the table of operations.
macro_rules! operations {
    ($($(#[$doc:meta])* $code:literal $name:ident: $effort:ident, $value:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {
        /// The number of an operation.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u16)]
        #[non_exhaustive]
        pub enum Opcode {
            $($(#[$doc])* $name = $code,)*
        }

        impl Opcode {
            /// All operations, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The operation of a number, or `None` if this version has none.
            #[inline]
            #[must_use]
            pub const fn from_code(code: u16) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Bytes of the arena that the parameters of such an operation name; zero for those
            /// that name none or are malformed.
            #[must_use]
            pub fn arena_bytes(self, params: &[u64; Submission::PARAMS]) -> u32 {
                match self {
                    $(Self::$name => $name::from_params(params).map_or(0, |_operation| {
                        0_u32 $(.saturating_add(Param::arena_bytes(_operation.$field)))*
                    }),)*
                }
            }

            /// What it takes to begin it.
            #[inline]
            #[must_use]
            pub const fn effort(self) -> Effort {
                match self {
                    $(Self::$name => Effort::$effort,)*
                }
            }

            /// What the value of its completion is.
            #[must_use]
            pub const fn value(self) -> Value {
                match self {
                    $(Self::$name => Value::$value,)*
                }
            }

            /// The name, for people.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }

        /// Any operation, with its parameters.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs, reason = "each variant is the operation of its name")]
        pub enum Request {
            $($name($name),)*
        }

        impl Request {
            /// What a submission asks for.
            ///
            /// # Errors
            ///
            /// [`Status::Unsupported`] if this version has no operation of that number,
            /// [`Status::InvalidInput`] if a parameter word has no value of its parameter's type.
            #[inline]
            pub fn decode(submission: &Submission) -> Result<Self, Status> {
                match Opcode::from_code(submission.opcode) {
                    $(Some(Opcode::$name) => $name::from_params(&submission.params)
                        .map(Self::$name)
                        .map_err(|Malformed| Status::InvalidInput),)*
                    None => Err(Status::Unsupported),
                }
            }

            /// Which operation it is.
            #[must_use]
            pub const fn opcode(&self) -> Opcode {
                match self {
                    $(Self::$name(_) => Opcode::$name,)*
                }
            }

            /// The entry that asks for it.
            #[inline]
            #[must_use]
            pub fn submission(self, token: Token) -> Submission {
                match self {
                    $(Self::$name(operation) => operation.submission(token),)*
                }
            }
        }

        $(
            $(#[$doc])*
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub struct $name {
                $($(#[$field_doc])* pub $field: $type,)*
            }

            impl Operation for $name {
                const OPCODE: Opcode = Opcode::$name;

                #[inline]
                fn to_params(self) -> [u64; Submission::PARAMS] {
                    #[allow(unused_mut, reason = "an operation may have no parameter")]
                    let mut params = [0; Submission::PARAMS];
                    #[allow(unused_mut, unused_variables, reason = "an operation may have no parameter")]
                    let mut words = params.iter_mut();
                    $(
                        // A row with more parameters than words would lose one: the test
                        // `every_operation_survives_the_round_trip` sees that.
                        if let Some(word) = words.next() {
                            *word = self.$field.to_word();
                        }
                    )*
                    params
                }

                #[inline]
                fn from_params(params: &[u64; Submission::PARAMS]) -> Result<Self, Malformed> {
                    #[allow(unused_mut, unused_variables, reason = "an operation may have no parameter")]
                    let mut words = params.iter();
                    Ok(Self {
                        $($field: Param::from_word(*words.next().ok_or(Malformed)?)?,)*
                    })
                }
            }
        )*
    };
}
