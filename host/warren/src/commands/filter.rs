//! Which dead letters are meant: all the conditions of a command line together.

use clap::Args;
use serde_json::Value;
use warren_bus::operator::DeadLetter;

use super::{
    letter,
    moment::{self, Moment},
};

/// The conditions, of which all must hold. Without any, all dead letters are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "Which dead letters")]
pub struct Filter {
    /// With this id; more than once: with one of them
    #[arg(long, value_name = "ID")]
    pub id: Vec<String>,
    /// Given up for this reason, such as permanent, max_attempts, trap, timeout or expired; more
    /// than once: for one of them
    #[arg(long, value_name = "REASON")]
    pub reason: Vec<String>,
    /// With this text somewhere in the error
    #[arg(long, value_name = "TEXT")]
    pub error: Option<String>,
    /// With this text somewhere in the file, version and digest of the plugin that ran it
    #[arg(long, value_name = "TEXT")]
    pub plugin: Option<String>,
    /// Given up at this moment or later: how long ago (90s, 15m, 2h, 7d), or 2026-01-31T12:00:00Z
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    pub since: Option<Moment>,
    /// Given up before this moment
    #[arg(long, value_name = "WHEN", value_parser = moment::parse)]
    pub until: Option<Moment>,
    /// With this value in what the job carries, at a JSON pointer: --where /params/title=Alien
    #[arg(long = "where", value_name = "POINTER=VALUE", value_parser = parse_condition)]
    pub conditions: Vec<Condition>,
}

/// A value at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pointer: String,
    value: String,
}

impl Filter {
    /// Whether this letter is meant.
    pub(super) fn matches(&self, letter: &DeadLetter, now_ms: u64) -> bool {
        let Self {
            id,
            reason,
            error,
            plugin,
            since,
            until,
            conditions,
        } = self;
        let message = &letter.message;
        let contains = |text: &str, part: &Option<String>| {
            part.as_ref().is_none_or(|part| text.contains(part))
        };
        (id.is_empty() || id.contains(&message.id))
            && (reason.is_empty() || reason.contains(&letter.reason))
            && contains(&letter.error, error)
            && contains(letter.plugin.as_deref().unwrap_or_default(), plugin)
            && since.is_none_or(|since| letter.died_ms >= Some(since.ms(now_ms)))
            && until.is_none_or(|until| letter.died_ms.is_some_and(|died| died < until.ms(now_ms)))
            && (conditions.is_empty() || carries(letter, conditions))
    }

    /// The moment before which nothing is meant.
    pub(super) fn since_ms(&self, now_ms: u64) -> Option<u64> {
        self.since.map(|since| since.ms(now_ms))
    }

    /// Whether all dead letters are meant.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl Condition {
    fn holds(&self, data: &Value) -> bool {
        let Some(found) = data.pointer(&self.pointer) else {
            return false;
        };
        match found {
            Value::String(text) => *text == self.value,
            other => serde_json::from_str::<Value>(&self.value).is_ok_and(|value| {
                // 5 and 5.0 are one number to whoever writes it.
                *other == value || (other.is_number() && other.as_f64() == value.as_f64())
            }),
        }
    }
}

fn carries(letter: &DeadLetter, conditions: &[Condition]) -> bool {
    let data = letter.job().ok().and_then(|job| letter::data(&job));
    data.is_some_and(|data| conditions.iter().all(|condition| condition.holds(&data)))
}

fn parse_condition(text: &str) -> Result<Condition, String> {
    let (pointer, value) = text
        .split_once('=')
        .ok_or("write POINTER=VALUE, such as /params/title=Alien")?;
    if !pointer.is_empty() && !pointer.starts_with('/') {
        return Err(format!("a JSON pointer begins with a slash: /{pointer}"));
    }
    Ok(Condition {
        pointer: pointer.to_owned(),
        value: value.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(condition: &str, expected: bool) {
        let data = json!({"method": "GET", "n": 5, "list": [{"id": "7"}], "none": null});
        let condition = parse_condition(condition).unwrap();
        assert_eq!(condition.holds(&data), expected, "{condition:?}");
    }

    #[test]
    fn a_condition_compares_texts_as_they_are_and_other_values_as_json() {
        check("/method=GET", true);
        check("/method=\"GET\"", false);
        check("/n=5", true);
        check("/n=5.0", true);
        check("/n=6", false);
        check("/list/0/id=7", true);
        check("/none=null", true);
        check("/missing=null", false);
        check("/list=[{\"id\":\"7\"}]", true);
    }

    #[test]
    fn a_condition_has_a_pointer_and_a_value() {
        assert!(parse_condition("/method").is_err());
        assert!(
            parse_condition("method=GET")
                .unwrap_err()
                .contains("/method")
        );
    }
}
