//! What the operator has configured for this type of worker.

use std::fmt::Display;
use std::str::FromStr;

use crate::bindings::imports::wasi::config::store;
use crate::{OrReject, Result};

/// Reads one value.
///
/// # Errors
/// The configuration cannot be read now (retried).
pub fn get(key: &str) -> Result<Option<String>> {
    Ok(store::get(key)?)
}

/// Reads one value as a number, a boolean or whatever else can be read from text.
///
/// ```no_run
/// # fn handle() -> warren_sdk::Result<()> {
/// let limit: u32 = warren_sdk::config::parse("limit")?.unwrap_or(100);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// The configuration cannot be read now (retried), or the value is of another kind (rejected).
pub fn parse<T>(key: &str) -> Result<Option<T>>
where
    T: FromStr,
    T::Err: Display,
{
    get(key)?.map(|text| parsed(key, &text)).transpose()
}

/// Reads everything, as keys and values.
///
/// # Errors
/// The configuration cannot be read now (retried).
pub fn all() -> Result<Vec<(String, String)>> {
    Ok(store::get_all()?)
}

fn parsed<T>(key: &str, text: &str) -> Result<T>
where
    T: FromStr,
    T::Err: Display,
{
    text.parse().or_reject(format_args!(
        "the configuration key `{key}` has the value `{text}`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_of_the_wrong_kind_names_its_key() {
        assert_eq!(parsed::<u64>("limit", "12"), Ok(12));
        let error = parsed::<u64>("limit", "soon").unwrap_err();
        assert!(error.reason().contains("`limit`"), "{error}");
    }
}
