//! What the proxy is told: how the links of a role behave, and what happens at a certain frame.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::frame::{Direction, Frame, Method};
use crate::wait::eventually_within;

/// Which connections are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Every one, also those that have not said their name yet.
    All,
    /// Those whose name ends in this word: `consume`, `publish`.
    Role(&'static str),
}

impl Who {
    pub(super) fn means(&self, role: Option<&str>) -> bool {
        match self {
            Self::All => true,
            Self::Role(wanted) => role == Some(wanted),
        }
    }
}

impl From<&'static str> for Who {
    fn from(role: &'static str) -> Self {
        Self::Role(role)
    }
}

/// A place in the traffic: a method, its direction, and which of them.
#[derive(Clone, Debug)]
pub struct At {
    method: Method,
    direction: Direction,
    who: Who,
    nth: usize,
}

impl At {
    /// The first frame of this method towards the broker, on any connection, from now on.
    #[must_use]
    pub fn to_server(method: Method) -> Self {
        Self::new(method, Direction::ToServer)
    }

    /// The first frame of this method towards the client.
    #[must_use]
    pub fn to_client(method: Method) -> Self {
        Self::new(method, Direction::ToClient)
    }

    fn new(method: Method, direction: Direction) -> Self {
        Self {
            method,
            direction,
            who: Who::All,
            nth: 1,
        }
    }

    /// Only on connections of this role.
    #[must_use]
    pub fn on(mut self, who: impl Into<Who>) -> Self {
        self.who = who.into();
        self
    }

    /// Not the first but the nth, counted from 1.
    #[must_use]
    pub fn nth(mut self, nth: usize) -> Self {
        self.nth = nth;
        self
    }
}

/// What happens at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    /// It waits, and all of the method after it, each with what follows on its channel.
    Hold,
    /// The connection is reset before it passes.
    CutBefore,
    /// The connection ends after it has passed: the receiver sees it and then the end, the sender
    /// a reset.
    CutAfter,
}

/// A rule that was set. Dropping it takes it away, and lets go of what it held.
pub struct Point {
    rule: Arc<Rule>,
    rules: Arc<Rules>,
}

#[derive(Debug)]
pub(super) struct Rule {
    at: At,
    deed: Deed,
    state: Mutex<RuleState>,
}

#[derive(Debug, Default)]
struct RuleState {
    n_seen: usize,
    n_held: usize,
    is_done: bool,
}

/// How connections of a role behave as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flow {
    Pass,
    /// Nothing is forwarded, nothing ends; what was sent comes through when it passes again.
    Blackhole,
    /// Each frame takes this long, each way.
    Delay(Duration),
}

/// All rules of one proxy. Whoever waits for a change subscribes.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Mutex<Vec<Arc<Rule>>>,
    flows: Mutex<Vec<(Who, Flow)>>,
    pub(super) changes: watch::Sender<u64>,
}

impl Rules {
    pub(super) fn new() -> Self {
        Self {
            rules: Mutex::default(),
            flows: Mutex::default(),
            changes: watch::Sender::new(0),
        }
    }

    pub(super) fn set_flow(&self, who: Who, flow: Flow) {
        let mut flows = lock(&self.flows);
        if who == Who::All {
            flows.clear();
        }
        flows.retain(|(other, _)| *other != who);
        flows.push((who, flow));
        drop(flows);
        self.changed();
    }

    /// The one that was set last counts.
    pub(super) fn flow(&self, role: Option<&str>) -> Flow {
        let flows = lock(&self.flows);
        let mut flows = flows.iter().rev();
        let found = flows.find(|(who, _)| who.means(role));
        found.map_or(Flow::Pass, |(_, flow)| *flow)
    }

    pub(super) fn add(self: &Arc<Self>, at: At, deed: Deed) -> Point {
        let rule = Arc::new(Rule {
            at,
            deed,
            state: Mutex::default(),
        });
        lock(&self.rules).push(rule.clone());
        Point {
            rule,
            rules: self.clone(),
        }
    }

    /// The rule that applies to this frame, if one does. Counts it.
    pub(super) fn apply(
        &self,
        frame: &Frame,
        direction: Direction,
        role: Option<&str>,
    ) -> Option<(Deed, Arc<Rule>)> {
        let method = frame.method?;
        let rules = lock(&self.rules);
        for rule in rules.iter() {
            let at = &rule.at;
            if at.method != method || at.direction != direction || !at.who.means(role) {
                continue;
            }
            let mut state = lock(&rule.state);
            if state.is_done {
                continue;
            }
            state.n_seen += 1;
            if state.n_seen < at.nth {
                continue;
            }
            match rule.deed {
                Deed::Hold => state.n_held += 1,
                Deed::CutBefore | Deed::CutAfter => state.is_done = true,
            }
            return Some((rule.deed, rule.clone()));
        }
        None
    }

    fn changed(&self) {
        self.changes.send_modify(|n| *n = n.wrapping_add(1));
    }
}

impl Rule {
    pub(super) fn is_done(&self) -> bool {
        lock(&self.state).is_done
    }
}

impl Point {
    /// Whether the place has been reached: the frame is held, or the connection is cut.
    #[must_use]
    pub fn is_reached(&self) -> bool {
        lock(&self.rule.state).n_seen >= self.rule.at.nth
    }

    /// How many frames are or were held here.
    #[must_use]
    pub fn n_held(&self) -> usize {
        lock(&self.rule.state).n_held
    }

    /// Returns when the place has been reached.
    ///
    /// # Panics
    /// When it is not within a minute.
    pub async fn reached(&self) {
        let what = format!("{:?} passes the proxy", self.rule.at);
        eventually_within(crate::LIMIT, &what, async || {
            self.is_reached().then_some(())
        })
        .await;
    }

    /// Lets everything pass, in the order in which it came.
    pub fn release(self) {}
}

impl Drop for Point {
    fn drop(&mut self) {
        lock(&self.rule.state).is_done = true;
        lock(&self.rules.rules).retain(|rule| !Arc::ptr_eq(rule, &self.rule));
        self.rules.changed();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
