//! Which values a setting takes.

/// Type and range of a setting's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Boolean,
    /// A whole number of 32 bits.
    Int {
        /// The smallest.
        min: i32,
        /// The largest.
        max: i32,
    },
    /// A whole number of 64 bits.
    Long {
        /// The smallest.
        min: i64,
        /// The largest.
        max: i64,
    },
    /// One of some words.
    Choice(&'static [&'static str]),
    /// The one value that this version serves.
    Only {
        /// The value.
        value: &'static str,
        /// Kafka's number for the type of the setting.
        type_number: i8,
        /// Why no other is.
        reason: &'static str,
    },
}

/// Kafka's numbers for types of settings.
pub(super) const TYPE_STRING: i8 = 2;
pub(super) const TYPE_INT: i8 = 3;
pub(super) const TYPE_LONG: i8 = 5;
pub(super) const TYPE_LIST: i8 = 7;
const TYPE_BOOLEAN: i8 = 1;

impl Kind {
    /// Checks a value; the error says what is taken.
    pub(super) fn check(&self, value: &str) -> Result<(), String> {
        let in_range = match self {
            Self::Boolean => matches!(value, "true" | "false"),
            Self::Int { min, max } => value.parse().is_ok_and(|number| (min..=max).contains(&&number)),
            Self::Long { min, max } => value.parse().is_ok_and(|number| (min..=max).contains(&&number)),
            Self::Choice(words) => words.contains(&value),
            Self::Only { value: only, .. } => value == *only,
        };
        if in_range { Ok(()) } else { Err(format!("it takes {}", self.describe())) }
    }

    /// The values in words.
    pub fn describe(&self) -> String {
        match self {
            Self::Boolean => "true or false".to_owned(),
            Self::Int { min, max } => describe_range(i64::from(*min), i64::from(*max), i64::from(i32::MAX)),
            Self::Long { min, max } => describe_range(*min, *max, i64::MAX),
            Self::Choice(words) => format!("one of {}", words.join(", ")),
            Self::Only { value, reason, .. } => format!("only {value}: {reason}"),
        }
    }

    /// Whether values are lists of words, separated by commas.
    pub(crate) fn is_list(&self) -> bool {
        self.type_number() == TYPE_LIST
    }

    /// Kafka's number for the type.
    pub(crate) fn type_number(&self) -> i8 {
        match self {
            Self::Boolean => TYPE_BOOLEAN,
            Self::Int { .. } => TYPE_INT,
            Self::Long { .. } => TYPE_LONG,
            Self::Choice(_) => TYPE_STRING,
            Self::Only { type_number, .. } => *type_number,
        }
    }
}

fn describe_range(min: i64, max: i64, largest: i64) -> String {
    if max == largest { format!("a whole number from {min} on") } else { format!("a whole number from {min} to {max}") }
}

/// A value of a Rust type, made from one that was checked.
pub(super) trait FromChecked {
    fn from_checked(value: &str) -> Self;
}

macro_rules! numbers_from_checked {
    ($($number:ty),*) => {$(
        impl FromChecked for $number {
            fn from_checked(value: &str) -> Self {
                // Checked when it was set. A number beyond the type can only be "no limit".
                value.parse().unwrap_or(<$number>::MAX)
            }
        }
    )*};
}

numbers_from_checked!(i32, i64, u32, u64, usize);

impl FromChecked for bool {
    fn from_checked(value: &str) -> Self {
        value == "true"
    }
}

impl FromChecked for String {
    fn from_checked(value: &str) -> Self {
        value.to_owned()
    }
}
