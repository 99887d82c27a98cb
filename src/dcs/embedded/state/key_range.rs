//! Which keys a request means.

use std::ops::Bound;

/// Start and end, as `BTreeMap::range` wants them.
type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// A half-open range of keys, as etcd's pairs of `key` and `range_end` spell it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum KeyRange {
    /// `range_end` is empty: this key alone.
    One(Vec<u8>),
    /// From the first up to but without the second.
    Between(Vec<u8>, Vec<u8>),
    /// `range_end` is one zero byte: this key and all after it.
    From(Vec<u8>),
}

impl KeyRange {
    /// Reads a request's pair.
    pub(crate) fn new(key: &[u8], range_end: &[u8]) -> Self {
        match range_end {
            [] => Self::One(key.to_vec()),
            [0] => Self::From(key.to_vec()),
            end => Self::Between(key.to_vec(), end.to_vec()),
        }
    }

    /// Whether no key can be in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Between(start, end) if start >= end)
    }

    /// Whether `key` is meant.
    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        match self {
            Self::One(one) => one == key,
            Self::Between(start, end) => start.as_slice() <= key && key < end.as_slice(),
            Self::From(start) => start.as_slice() <= key,
        }
    }

    /// The same, for `BTreeMap::range`, which panics on a start behind the end: `None` then.
    pub(crate) fn bounds(&self) -> Option<Bounds<'_>> {
        match self {
            Self::One(one) => Some((Bound::Included(one), Bound::Included(one))),
            Self::Between(..) if self.is_empty() => None,
            Self::Between(start, end) => Some((Bound::Included(start), Bound::Excluded(end))),
            Self::From(start) => Some((Bound::Included(start), Bound::Unbounded)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_zero_byte_as_end_means_everything_after() {
        let range = KeyRange::new(b"b", &[0]);
        assert!(range.contains(b"b") && range.contains(b"z") && !range.contains(b"a"));
        assert!(KeyRange::new(&[0], &[0]).contains(b"a"));
    }

    #[test]
    fn an_end_before_the_start_means_nothing() {
        let range = KeyRange::new(b"b", b"a");
        assert!(range.is_empty() && range.bounds().is_none() && !range.contains(b"a") && !range.contains(b"b"));
        assert!(KeyRange::new(b"b", b"b").is_empty());
    }
}
