//! What an engine can do, in words that both have. What they mean is the contract's.

use async_trait::async_trait;

/// One key of a worker type.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) bucket: &'a str,
    pub(super) key: &'a str,
}

/// Some of the keys of a bucket.
pub(super) struct Page {
    pub(super) keys: Vec<String>,
    /// Where the next page begins.
    pub(super) cursor: Option<String>,
}

/// What came of a swap.
pub(super) enum Swap {
    Done,
    /// There is something else under the key.
    Other(Option<Vec<u8>>),
}

/// Why an engine has not done what it was asked.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// What was asked makes no sense for what is there. It never will.
    Invalid(String),
    /// Not now.
    Unavailable(String),
}

/// The buckets of one worker type.
#[async_trait]
pub(super) trait Engine: Send + Sync {
    async fn get(&self, key: Key<'_>) -> Result<Option<Vec<u8>>, Failure>;

    async fn set(&self, key: Key<'_>, value: Vec<u8>) -> Result<(), Failure>;

    async fn exists(&self, key: Key<'_>) -> Result<bool, Failure>;

    /// At most about so many keys at a time, none of them empty-handed but the last.
    async fn list_keys(
        &self,
        bucket: &str,
        cursor: Option<String>,
        n_keys: usize,
    ) -> Result<Page, Failure>;

    /// Numbers are decimal digits, as [`number`] reads them.
    async fn increment(&self, key: Key<'_>, delta: i64) -> Result<i64, Failure>;

    /// Sets the value if there is still what was seen; in one step, whoever else writes.
    async fn swap(
        &self,
        key: Key<'_>,
        seen: Option<&[u8]>,
        value: Vec<u8>,
    ) -> Result<Swap, Failure>;

    /// A value, or none, for each key. An error where they have more bytes together.
    async fn get_many(
        &self,
        bucket: &str,
        keys: &[String],
        most_bytes: usize,
    ) -> Result<Vec<Option<Vec<u8>>>, Failure>;

    async fn set_many(&self, bucket: &str, pairs: Vec<(String, Vec<u8>)>) -> Result<(), Failure>;

    async fn delete_many(&self, bucket: &str, keys: &[String]) -> Result<(), Failure>;
}

impl Failure {
    pub(super) fn no_number() -> Self {
        Self::Invalid("what is under the key is not a whole number of 64 bits".to_owned())
    }

    pub(super) fn overflow() -> Self {
        Self::Invalid("the sum is not a whole number of 64 bits".to_owned())
    }

    pub(super) fn too_large(n_bytes: impl std::fmt::Display, most_bytes: usize) -> Self {
        Self::Invalid(format!(
            "the values have {n_bytes} bytes together; at most {most_bytes} are handed over \
             (`payload`): ask for fewer"
        ))
    }
}

/// A number as Redis reads one: as it would write it, without spaces, `+` or leading zeros.
pub(super) fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_written_in_one_way() {
        for text in ["0", "-1", "9223372036854775807", "-9223372036854775808"] {
            assert_eq!(number(text.as_bytes()), text.parse().ok());
        }
        for text in [
            "",
            "+1",
            "01",
            "-0",
            " 1",
            "1\n",
            "1.0",
            "9223372036854775808",
        ] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
        assert_eq!(number(b"\xff"), None);
    }
}
