//! What was measured, as a table for people and as an object for programs.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    super::{
        ask::{code, shown},
        output::{Output, clean},
    },
    course::{Course, Pace, per_second},
    drive::Ending,
    measure::Measured,
    record::{Record, Times, micros},
};

/// All that was measured.
pub(super) struct Report {
    pub(super) to: String,
    pub(super) is_embedded: bool,
    /// Whether nobody waited for replies.
    pub(super) no_reply: bool,
    pub(super) id_prefix: String,
    pub(super) measured: Measured,
}

/// One figure of all that was sent, the first job and the warm-up included.
type Figure = fn(&Record) -> u64;

impl Report {
    pub(super) fn print(&self, output: &mut Output) -> anyhow::Result<()> {
        let heads = ["measured", "jobs/s", "p50", "p90", "p99", "p99.9", "max"];
        let rows: Vec<_> = self.measured.courses.iter().map(row).collect();
        output.table(heads, &rows)?;
        output.line("")?;
        let sum = |figure: Figure| {
            self.measured
                .courses
                .iter()
                .map(|c| figure(&c.record))
                .sum::<u64>()
        };
        let (done, failed) = (sum(|r| r.answered), sum(Record::n_failed));
        output.line(&format!(
            "{} sent: {} {}, {} failed, {} still open at the end (and {} before, to warm up)",
            count(sum(|r| r.sent)),
            count(done),
            self.verb(),
            count(failed),
            count(sum(|r| r.unanswered)),
            count(self.n_before()),
        ))?;
        for course in self.measured.warm_up.iter().chain(&self.measured.courses) {
            for (word, failures) in &course.record.failed {
                let (n, example) = (count(failures.n), clean(&failures.example));
                let label = self.label(course);
                output.line(&format!("  {n} × {word} ({label}): {example}"))?;
            }
        }
        for note in self.notes() {
            output.line(&note)?;
        }
        Ok(())
    }

    pub(super) fn json(&self) -> anyhow::Result<Value> {
        let outcome = match &self.measured.ending {
            Ending::Whole => "measured".to_owned(),
            Ending::Interrupted => "interrupted".to_owned(),
            Ending::Broken(error) => code(error)?,
        };
        let mut said = json!({
            "outcome": outcome,
            "to": self.to,
            "bus": if self.is_embedded { "embedded" } else { "rabbitmq" },
            "ends_with": if self.no_reply { "confirm" } else { "reply" },
            "id_prefix": self.id_prefix,
            "n_before": self.n_before(),
            "warm_up": self.measured.warm_up.as_ref().map(measurement),
            "measurements": self.measured.courses.iter().map(measurement).collect::<Vec<_>>(),
            "n_strays": self.measured.n_strays,
        });
        if let (Ending::Broken(error), Some(said)) = (&self.measured.ending, said.as_object_mut()) {
            said.insert("error".to_owned(), json!(error.to_string()));
        }
        Ok(said)
    }

    /// Whether every job that was sent was answered, and some in time for a rate.
    pub(super) fn is_flawless(&self) -> bool {
        let Measured {
            warm_up, courses, ..
        } = &self.measured;
        let all = |course: &Course| course.record.answered == course.record.sent;
        !courses.is_empty()
            && courses
                .iter()
                .all(|c| all(c) && c.record.answered_in_time > 0)
            && warm_up.iter().all(all)
    }

    /// What the figures do not say by themselves.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for course in &self.measured.courses {
            let (label, record) = (self.label(course), &course.record);
            let is_late = course.answered_per_second() * 20.0
                < per_second(record.sent, course.window()) * 19.0;
            match course.pace {
                _ if record.answered > 0 && record.answered_in_time == 0 => notes.push(format!(
                    "{label}: no answer came before the time was up, so there is no rate: raise --duration"
                )),
                Pace::Concurrency(_) => notes.push(format!(
                    "{label}: a closed loop, the next job is sent when one has ended; its percentiles do \
                     not say how long jobs wait that come at their own times"
                )),
                Pace::Rate(wanted) if !course.kept_up() => notes.push(self.saturated(course, wanted)),
                Pace::Rate(_) if is_late && record.n_failed() == 0 => notes.push(format!(
                    "{label}: {} of {} answers came after the time was up: raise --duration",
                    count(record.answered - record.answered_in_time),
                    count(record.answered),
                )),
                Pace::Rate(_) => {}
            }
            let lag = record.lag.percentile(99.0);
            if matches!(course.pace, Pace::Rate(_)) && !course.was_full() && lag > LATE {
                notes.push(format!(
                    "{label}: this machine was busy, jobs were sent up to {} late (p99), which is part of \
                     their latency: run `warren bench` on another one",
                    time(lag)
                ));
            }
        }
        if self.measured.n_strays > 0 {
            notes.push(format!(
                "{} messages came that answer none of these jobs",
                count(self.measured.n_strays)
            ));
        }
        match &self.measured.ending {
            Ending::Whole => {}
            Ending::Interrupted => {
                notes.push("interrupted: this is what was measured until then".to_owned())
            }
            Ending::Broken(error) => notes.push(format!("broken off: {}", shown(error))),
        }
        notes
    }

    fn saturated(&self, course: &Course, wanted: f64) -> String {
        let reached = rate(course.answered_per_second());
        let mut note = format!(
            "{reached} of the wanted {}/s: the worker or the broker is saturated, and the latencies grow \
             with the time that is measured",
            rate(wanted)
        );
        let n_due = course.n_due().unwrap_or_default();
        let n_held_back = n_due.saturating_sub(course.record.sent);
        if course.was_full() {
            let why = match self.is_embedded {
                true => "as many as the host takes at its admin port",
                false => "as many as `warren bench` lets wait",
            };
            note.push_str(&format!(
                "; {} jobs were open at a time, {why}, and {} that were due were never sent",
                count(course.max_open() as u64),
                count(n_held_back)
            ));
        }
        note
    }

    /// How many jobs were sent before the first measurement: the warm-up, and the first of all.
    fn n_before(&self) -> u64 {
        1 + self.measured.warm_up.as_ref().map_or(0, |c| c.record.sent)
    }

    fn verb(&self) -> &'static str {
        if self.no_reply { "stored" } else { "answered" }
    }

    fn label(&self, course: &Course) -> String {
        let is_warm_up = self
            .measured
            .courses
            .iter()
            .all(|other| !std::ptr::eq(other, course));
        let label = label(course.pace);
        if is_warm_up {
            format!("warm-up, {label}")
        } else {
            label
        }
    }
}

/// Sent later than this, a job says something about this machine.
const LATE: Duration = Duration::from_millis(5);

/// How a measurement is called.
pub(super) fn label(pace: Pace) -> String {
    match pace {
        Pace::Rate(wanted) => format!("at {}/s", rate(wanted)),
        Pace::Concurrency(n) => format!("{} at a time", count(n as u64)),
    }
}

fn row(course: &Course) -> [String; 7] {
    let times = &course.record.latency;
    let percentile = |percentile: f64| match times.is_empty() {
        true => "-".to_owned(),
        false => time(times.percentile(percentile)),
    };
    [
        label(course.pace),
        rate(course.answered_per_second()),
        percentile(50.0),
        percentile(90.0),
        percentile(99.0),
        percentile(99.9),
        percentile(100.0),
    ]
}

fn measurement(course: &Course) -> Value {
    let record = &course.record;
    let failed: serde_json::Map<_, _> = record
        .failed
        .iter()
        .map(|(word, failures)| (word.clone(), json!(failures.n)))
        .collect();
    let mut said = json!({
        "loop": "closed",
        "duration_ms": u64::try_from(course.window().as_millis()).unwrap_or(u64::MAX),
        "sent": record.sent,
        "answered": record.answered,
        "failed": failed,
        "unanswered": record.unanswered,
        "answered_per_second": course.answered_per_second(),
        "latency_us": times(&record.latency),
    });
    let own = match course.pace {
        Pace::Concurrency(n) => json!({ "concurrency": n }),
        Pace::Rate(wanted) => json!({
            "loop": "open",
            "wanted_per_second": wanted,
            "due": course.n_due(),
            "kept_up": course.kept_up(),
            "sent_late_us": times(&record.lag),
        }),
    };
    if let (Some(said), Value::Object(own)) = (said.as_object_mut(), own) {
        said.extend(own);
    }
    said
}

/// `null` where nothing was measured.
fn times(times: &Times) -> Value {
    if times.is_empty() {
        return Value::Null;
    }
    let at = |percentile: f64| micros(times.percentile(percentile));
    json!({
        "p50": at(50.0),
        "p90": at(90.0),
        "p99": at(99.0),
        "p99_9": at(99.9),
        "max": micros(times.max()),
        "mean": times.mean().round(),
    })
}

/// A number with commas between the thousands.
pub(super) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A number a second, in as many digits as mean something.
pub(super) fn rate(per_second: f64) -> String {
    if per_second >= 100.0 || per_second.fract() == 0.0 {
        count(per_second.round() as u64)
    } else {
        format!("{per_second:.1}")
    }
}

/// A latency in three digits.
pub(super) fn time(time: Duration) -> String {
    let micros = time.as_secs_f64() * 1e6;
    let (value, unit) = match micros {
        ..1e3 => (micros, "µs"),
        ..1e6 => (micros / 1e3, "ms"),
        _ => (micros / 1e6, "s"),
    };
    match value {
        _ if unit == "µs" => format!("{value:.0} {unit}"),
        ..10.0 => format!("{value:.2} {unit}"),
        ..100.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.0} {unit}"),
    }
}

#[cfg(test)]
mod tests {
    use warren_protocol::CallError;

    use super::{super::course::Bounds, *};

    /// A measurement of 100 ms, in which the even ones of ten jobs are answered after 4 ms each.
    fn course(pace: Pace) -> Course {
        let ms = Duration::from_millis;
        let bounds = Bounds {
            length: ms(100),
            patience: ms(1000),
            max_open: 10,
            to: "WB:*".to_owned(),
        };
        let mut course = Course::new(pace, bounds, 0).unwrap();
        for n in 0..10 {
            let number = course.next(ms(10 * n)).unwrap();
            let result = match n % 2 {
                0 => Ok(()),
                _ => Err(CallError::Failed {
                    worker: "WB:1".to_owned(),
                    attempts: 1,
                    reason: "the disk is \u{1b}[2Jfull".to_owned(),
                }),
            };
            course.end(number, result, ms(10 * n + 4));
            course.tick(ms(10 * n + 5));
        }
        course
    }

    fn bounds(max_open: usize) -> Bounds {
        Bounds {
            length: Duration::from_secs(1),
            patience: Duration::from_secs(10),
            max_open,
            to: "WB:*".to_owned(),
        }
    }

    fn report(courses: Vec<Course>) -> Report {
        Report {
            to: "WB:*".to_owned(),
            is_embedded: false,
            no_reply: false,
            id_prefix: "bench-1-".to_owned(),
            measured: Measured {
                warm_up: None,
                courses,
                ending: Ending::Whole,
                n_strays: 0,
            },
        }
    }

    #[test]
    fn a_row_has_the_rate_and_the_percentiles_of_what_was_answered() {
        let row = row(&course(Pace::Rate(100.0)));
        assert_eq!(row[..3], ["at 100/s", "50", "4.00 ms"]);
        assert_eq!(row[6], "4.00 ms");
        let nothing = Course::new(Pace::Concurrency(64), bounds(64), 0);
        let row = super::row(&nothing.unwrap());
        assert_eq!(row, ["64 at a time", "0", "-", "-", "-", "-", "-"]);
    }

    #[test]
    fn the_object_has_each_figure_with_its_unit() {
        let said = report(vec![
            course(Pace::Rate(100.0)),
            course(Pace::Concurrency(1)),
        ]);
        assert!(!said.is_flawless());
        let said = said.json().unwrap();
        assert_eq!(said["outcome"], "measured");
        let open = &said["measurements"][0];
        assert_eq!((&open["loop"], &open["due"]), (&json!("open"), &json!(10)));
        assert_eq!((&open["sent"], &open["answered"]), (&json!(10), &json!(5)));
        assert_eq!(open["failed"], json!({ "failed": 5 }));
        assert_eq!(open["answered_per_second"], 50.0);
        assert_eq!(
            (&open["kept_up"], &open["wanted_per_second"]),
            (&json!(true), &json!(100.0))
        );
        assert!((4000..4010).contains(&open["latency_us"]["p50"].as_u64().unwrap()));
        let closed = &said["measurements"][1];
        assert_eq!(
            (&closed["loop"], &closed["concurrency"]),
            (&json!("closed"), &json!(1))
        );
    }

    #[test]
    fn what_a_worker_says_is_shown_and_no_terminal_obeys_it() {
        let report = report(vec![course(Pace::Concurrency(1))]);
        let failures = &report.measured.courses[0].record.failed["failed"];
        assert_eq!(failures.n, 5);
        assert!(!clean(&failures.example).contains('\u{1b}'));
        let notes = report.notes();
        assert!(notes[0].contains("closed loop"), "{notes:?}");
    }

    #[test]
    fn a_target_that_does_not_keep_up_is_told_with_both_rates() {
        let mut course = Course::new(Pace::Rate(5000.0), bounds(24), 0).unwrap();
        for ms in 0..=1000 {
            let now = Duration::from_millis(ms);
            course.tick(now);
            while course.next(now).is_some() {}
            course.end(ms, Ok(()), now);
        }
        let notes = Report {
            is_embedded: true,
            ..report(vec![course])
        }
        .notes();
        let [note] = notes.as_slice() else {
            panic!("{notes:?}")
        };
        assert!(note.starts_with("1,001 of the wanted 5,000/s: "), "{note}");
        assert!(note.contains("24 jobs were open at a time"), "{note}");
    }

    #[test]
    fn answers_that_come_too_late_for_a_rate_are_told() {
        let mut course = Course::new(Pace::Rate(10.0), bounds(10), 0).unwrap();
        for ms in (0..1000).step_by(100) {
            let now = Duration::from_millis(ms);
            course.tick(now);
            assert!(course.next(now).is_some());
        }
        for number in 0..10 {
            course.end(number, Ok(()), Duration::from_secs(2));
        }
        let report = report(vec![course]);
        assert!(!report.is_flawless());
        let notes = report.notes();
        assert!(notes[0].contains("raise --duration"), "{notes:?}");
    }

    #[test]
    fn numbers_are_readable() {
        let counted = [0, 999, 1000, 48_120, 1_234_567].map(count);
        assert_eq!(counted, ["0", "999", "1,000", "48,120", "1,234,567"]);
        let rates = [0.42, 12.0, 99.94, 2406.4].map(rate);
        assert_eq!(rates, ["0.4", "12", "99.9", "2,406"]);
        let times = [7, 870, 1_234, 12_345, 123_456, 1_234_567];
        let times = times.map(|micros| time(Duration::from_micros(micros)));
        assert_eq!(
            times,
            ["7 µs", "870 µs", "1.23 ms", "12.3 ms", "123 ms", "1.23 s"]
        );
    }
}
