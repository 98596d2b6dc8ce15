//! What is measured, one after the other: a warm-up that does not count, then one measurement or two.

use std::time::Duration;

use super::{
    course::{Bounds, Course, Pace},
    drive::{Around, Ending, drive},
    line::Line,
    report::{count, label, rate},
};

/// What is to be measured.
pub(super) struct Plan {
    /// None when it is zero.
    pub(super) warm_up: Duration,
    pub(super) duration: Duration,
    /// Of the warm-up and the first measurement.
    pub(super) pace: Pace,
    /// Whether a measurement at half of what was reached follows. Then the first one, which only has
    /// to find that out, is half as long.
    pub(super) then_half: bool,
}

/// What has been measured.
pub(super) struct Measured {
    pub(super) warm_up: Option<Course>,
    /// In their order.
    pub(super) courses: Vec<Course>,
    /// Of the last one.
    pub(super) ending: Ending,
    /// How many answers belonged to no job.
    pub(super) n_strays: u64,
}

impl Plan {
    fn first_duration(&self) -> Duration {
        match self.then_half {
            true => self.duration / 2,
            false => self.duration,
        }
    }

    /// What it is going to do, for a person.
    pub(super) fn shown(&self) -> String {
        let length = shown(self.first_duration());
        let mut plan = match self.pace {
            Pace::Rate(wanted) => {
                let n_jobs = (wanted * self.duration.as_secs_f64()).ceil() as u64;
                format!("{} jobs, {}/s for {length}", count(n_jobs), rate(wanted))
            }
            pace => format!("{}, as many as are answered in {length}", label(pace)),
        };
        if self.then_half {
            let length = shown(self.duration);
            plan.push_str(&format!(", then at half of that rate for {length}"));
        }
        if !self.warm_up.is_zero() {
            let length = shown(self.warm_up);
            plan.push_str(&format!(", after {length} of warming up"));
        }
        plan
    }
}

/// A duration as it is written on the command line.
fn shown(duration: Duration) -> String {
    match duration.as_millis() {
        ms if ms % 1000 == 0 => format!("{} s", ms / 1000),
        ms => format!("{ms} ms"),
    }
}

/// Measures what is planned, or as much of it as there is time for. The length in `bounds` is that of
/// the plan.
///
/// # Errors
/// When the timer fails.
pub(super) async fn measure(
    plan: &Plan,
    bounds: Bounds,
    line: Line,
    around: Around<'_>,
) -> anyhow::Result<Measured> {
    let mut measuring = Measuring {
        bounds,
        line,
        around,
        next_number: 0,
        ending: Ending::Whole,
    };
    let warm_up = measuring.course("warming up".to_owned(), plan.pace, plan.warm_up);
    let warm_up = warm_up.await?;
    let mut courses = Vec::new();
    let first = measuring.course(label(plan.pace), plan.pace, plan.first_duration());
    courses.extend(first.await?);
    if let Some(reached) = courses.first().map(Course::answered_per_second)
        && plan.then_half
        && reached > 0.0
    {
        let half = Pace::Rate(reached / 2.0);
        let second = measuring.course(label(half), half, plan.duration);
        courses.extend(second.await?);
    }
    Ok(Measured {
        warm_up,
        courses,
        ending: measuring.ending,
        n_strays: measuring.line.n_strays(),
    })
}

struct Measuring<'a> {
    bounds: Bounds,
    line: Line,
    around: Around<'a>,
    /// Numbers go on from one course to the next, so that late answers are not taken for others.
    next_number: u64,
    ending: Ending,
}

impl Measuring<'_> {
    /// `None` when there is nothing to do any more, or no time for it.
    async fn course(
        &mut self,
        title: String,
        pace: Pace,
        length: Duration,
    ) -> anyhow::Result<Option<Course>> {
        if length.is_zero() || !matches!(self.ending, Ending::Whole) {
            return Ok(None);
        }
        let bounds = Bounds {
            length,
            ..self.bounds.clone()
        };
        let mut course = Course::new(pace, bounds, self.next_number)?;
        self.around.progress.begin(title, length);
        self.ending = drive(&mut course, &mut self.line, &mut self.around).await?;
        self.next_number = course.number_after();
        Ok(Some(course))
    }
}
