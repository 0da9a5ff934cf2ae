//! The macro that makes an enum and its rows from one table.

/// Makes `enum $name` with one variant per row, and its `ALL`, `row` and `word`. The meaning of a reason is also the
/// documentation of its variant.
macro_rules! reason_table {
    (
        $(#[$meta:meta])*
        pub enum $name:ident of $row:ident {
            $($variant:ident => { word: $word:literal, meaning: $meaning:literal, $($rest:tt)* })*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, enum_map::Enum)]
        pub enum $name {
            $(#[doc = $meaning] $variant,)*
        }

        impl $name {
            /// Every reason, in the order of the table.
            pub const ALL: [Self; [$($word),*].len()] = [$(Self::$variant),*];

            /// Its row.
            pub const fn row(self) -> &'static $row {
                match self {
                    $(Self::$variant => {
                        const ROW: $row = $row { word: $word, meaning: $meaning, $($rest)* };
                        &ROW
                    })*
                }
            }

            /// The word that the answer, the log, the metrics and the advice share.
            pub const fn word(self) -> &'static str {
                self.row().word
            }
        }
    };
}

pub(super) use reason_table;
