//! Enumerations that a newer peer may extend: an unknown value is kept as its number and never an error.

/// Declares an open enumeration: its wire numbers, its words for people and JSON, and `Unrecognized` for every number
/// that this build does not know. Number 0 is protobuf's "unspecified" and reads as unrecognized too.
macro_rules! open_enum {
    (
        $(#[$doc:meta])*
        $name:ident {
            $( $(#[$variant_doc:meta])* $variant:ident = $number:literal => $word:literal, )+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $( $(#[$variant_doc])* $variant, )+
            /// A value of a newer peer, kept as its number.
            Unrecognized(i32),
        }

        impl $name {
            /// The number on the wire.
            pub const fn number(self) -> i32 {
                match self {
                    $( Self::$variant => $number, )+
                    Self::Unrecognized(number) => number,
                }
            }

            /// The value with this number on the wire; unknown numbers are kept.
            pub const fn from_number(number: i32) -> Self {
                match number {
                    $( $number => Self::$variant, )+
                    number => Self::Unrecognized(number),
                }
            }

            /// The word that people and JSON see.
            pub const fn word(self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )+
                    Self::Unrecognized(_) => "unrecognized",
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    Self::Unrecognized(number) => write!(f, "unrecognized-{number}"),
                    known => f.pad(known.word()),
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                match text.as_str() {
                    $( $word => Ok(Self::$variant), )+
                    other => other
                        .strip_prefix("unrecognized-")
                        .and_then(|number| number.parse().ok())
                        .map(Self::Unrecognized)
                        .ok_or_else(|| serde::de::Error::unknown_variant(other, &[$($word),+])),
                }
            }
        }
    };
}

pub(crate) use open_enum;
