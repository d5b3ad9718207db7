//! Names of states and kinds, in the API and the databases: each written once, and none forgotten.

/// Gives an enum without fields its names: `NAMES`, `name`, `from_name` and `Display`.
macro_rules! names {
    ($kind:ident { $($variant:ident = $name:literal),+ $(,)? }) => {
        impl $kind {
            /// All there are, each with its name in the API and the databases.
            pub const NAMES: [(Self, &'static str); [$($name),+].len()] = [$((Self::$variant, $name)),+];

            /// The name in the API and the databases.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name),+
                }
            }

            /// The one of that name.
            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::NAMES.iter().find(|(_, known)| *known == name).map(|(this, _)| *this)
            }
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(crate) use names;
