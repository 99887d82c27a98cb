//! Log sequence numbers and the distance between two of them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A position in the write-ahead log in bytes. JSON holds the integer; people and SQL see `X/X`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Lsn(pub u64);

impl Lsn {
    /// Position zero, which PostgreSQL never uses: "nothing known".
    pub const ZERO: Self = Self(0);

    /// Bytes from `other` up to here; zero when `other` is ahead.
    pub fn bytes_since(self, other: Self) -> u64 {
        self.0.saturating_sub(other.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xffff_ffff)
    }
}

/// Text that is not an LSN.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an LSN of the form X/X")]
pub struct LsnError(String);

impl FromStr for Lsn {
    type Err = LsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = || LsnError(text.to_owned());
        let (high, low) = text.split_once('/').ok_or_else(fail)?;
        let half = |part: &str| u32::from_str_radix(part, 16).map_err(|_| fail());
        Ok(Self(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
    }
}

/// How far a standby is behind. Unknown is a value of its own, never a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lag {
    /// Bytes behind; zero when level or ahead.
    Bytes(u64),
    /// The standby did not publish a position.
    Unknown,
}

impl Lag {
    /// The lag of a standby at `position` behind `reference`.
    pub fn between(reference: Lsn, position: Option<Lsn>) -> Self {
        match position {
            Some(lsn) if lsn != Lsn::ZERO => Self::Bytes(reference.bytes_since(lsn)),
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn text_round_trips(n in any::<u64>()) {
            let lsn = Lsn(n);
            prop_assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }

        #[test]
        fn no_text_panics(text in ".{0,20}") {
            let _ = text.parse::<Lsn>();
        }
    }

    #[test]
    fn lag_of_a_silent_standby_is_unknown() {
        assert_eq!(Lag::between(Lsn(10), None), Lag::Unknown);
        assert_eq!(Lag::between(Lsn(10), Some(Lsn(0))), Lag::Unknown);
        assert_eq!(Lag::between(Lsn(10), Some(Lsn(12))), Lag::Bytes(0));
    }
}
