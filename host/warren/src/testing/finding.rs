//! What a case has found to be otherwise than expected, and how it is shown.

use serde_json::{Value as Json, json};

use super::{
    matching::{Difference, Mode, differences},
    pattern::Pattern,
};

/// One thing that is otherwise than expected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// What it is about: `outcome`, `call 2`, `rows of …`.
    pub(super) what: String,
    /// What is wrong with it; empty where the differences say it.
    pub(super) message: String,
    /// Where two values differ.
    pub(super) differences: Vec<Difference>,
}

impl Finding {
    pub(super) fn new(what: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            message: message.into(),
            differences: Vec::new(),
        }
    }

    /// What is found when a value is compared; nothing when it is as expected.
    pub(super) fn of(what: &str, expected: &Pattern, actual: &Json, mode: Mode) -> Option<Self> {
        let differences = differences(expected, actual, mode);
        (!differences.is_empty()).then(|| Self {
            what: what.to_owned(),
            message: "is not as expected".to_owned(),
            differences,
        })
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Json {
        let differences = self.differences.iter().map(|difference| {
            json!({
                "path": difference.path,
                "expected": difference.expected,
                "actual": difference.actual,
            })
        });
        json!({
            "what": self.what,
            "message": self.message,
            "differences": differences.collect::<Vec<_>>(),
        })
    }

    /// For people, line by line. `-` is what was expected, `+` what was there.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = vec![format!("{} {}", self.what, self.message)];
        for difference in &self.differences {
            lines.push(format!("  at {}", difference.path));
            let shown = |value: &Option<String>| value.clone().unwrap_or("nothing".to_owned());
            lines.push(format!("  - {}", shown(&difference.expected)));
            lines.push(format!("  + {}", shown(&difference.actual)));
        }
        lines
    }
}
