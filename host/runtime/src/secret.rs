//! What a worker must know and nobody else may see.
//!
//! Invariant: a value leaves this file only for the guest, or for the server that it opens. It has no `Display`, and its `Debug` is
//! `***`.

use std::{borrow::Cow, collections::BTreeMap, fmt, sync::Arc};

/// Shorter values are not looked for in what a guest writes: they would be found everywhere.
const MIN_HIDDEN_BYTES: usize = 8;
/// What stands where a secret was.
const HIDDEN: &str = "***";

/// One secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

/// The secrets of one worker, by the name under which its guest reads them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Arc<Inner>);

#[derive(Default)]
struct Inner {
    values: BTreeMap<String, Secret>,
    /// What is hidden in texts: values, and the lines of those that have several, because a log is
    /// written by lines. The longest first: one may be part of another.
    hidden: Vec<String>,
}

impl Secret {
    /// A secret with this value.
    #[must_use]
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// For what it opens, and nobody else.
    pub(crate) fn expose(&self) -> &str {
        &self.0
    }
}

impl Secrets {
    /// These secrets.
    #[must_use]
    pub fn new(values: BTreeMap<String, Secret>) -> Self {
        let mut hidden: Vec<String> = values
            .values()
            .flat_map(|Secret(value)| value.lines().map(str::trim).chain([value.trim()]))
            .filter(|text| text.len() >= MIN_HIDDEN_BYTES)
            .map(str::to_owned)
            .collect();
        hidden.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        hidden.dedup();
        Self(Arc::new(Inner { values, hidden }))
    }

    /// For the guest, and nobody else.
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0.values.get(name).map(|Secret(value)| value.clone())
    }

    /// For the guest, and nobody else.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (String, String)> {
        let pairs = self.0.values.iter();
        pairs.map(|(name, Secret(value))| (name.clone(), value.clone()))
    }

    /// A text of the guest as others may read it: guests print what they know when something goes
    /// wrong. This is a net for accidents: a guest that wants to can write a secret in other words.
    pub(crate) fn hide<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut shown = Cow::Borrowed(text);
        for secret in &self.0.hidden {
            if shown.contains(secret) {
                shown = Cow::Owned(shown.replace(secret, HIDDEN));
            }
        }
        shown
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl fmt::Debug for Inner {
    /// The names alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.values).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        let values = values.iter();
        Secrets::new(
            values
                .map(|(name, value)| ((*name).to_owned(), Secret::new((*value).to_owned())))
                .collect(),
        )
    }

    #[test]
    fn no_value_is_in_a_debug_print() {
        let secrets = secrets(&[("api_key", "hunter2hunter2")]);
        let shown = format!("{secrets:?} {secrets:#?}");
        assert!(
            shown.contains("api_key") && shown.contains("***"),
            "{shown}"
        );
        assert!(!shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn values_are_hidden_wherever_they_stand() {
        let secrets = secrets(&[
            ("key", "hunter2hunter2"),
            ("longer", "hunter2hunter2-and-more"),
            ("short", "abc"),
            (
                "pem",
                "-----BEGIN-----\n  0123456789abcdef  \n-----END-----\n",
            ),
        ]);
        for (text, shown) in [
            ("nothing", "nothing"),
            ("a hunter2hunter2, a hunter2hunter2", "a ***, a ***"),
            ("hunter2hunter2-and-more", "***"),
            ("abc", "abc"),
            ("body 0123456789abcdef", "body ***"),
            ("größer hunter2hunter2 größer", "größer *** größer"),
        ] {
            assert_eq!(secrets.hide(text), shown);
        }
        assert!(matches!(secrets.hide("nothing"), Cow::Borrowed(_)));
    }
}
