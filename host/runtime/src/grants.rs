//! What a worker may reach, by the word of the operator alone. Plain data and pure rules.
//!
//! Invariant: nothing that a plugin says of itself gets in here. Whoever holds a capability asks
//! these rules each time; what was checked when the plugin was loaded is a courtesy to the operator,
//! who learns of a missing grant at once and not from the first job that needs it.

mod addresses;
mod needs;
mod origin;

use warren_protocol::{Outcome, Stop, WorkerType};

pub use self::{
    addresses::AddressRange,
    needs::{Need, Standing, needs},
    origin::Origin,
};
pub(crate) use self::{
    addresses::may_connect,
    origin::{Destination, Host, Scheme},
};
use crate::{DatabaseUrl, Fault, RedisUrl, Secrets, Trust};

/// What the operator grants to one worker type. The default is what a file that is dropped into
/// the folder has: the whole bus, a database and keys and values of its own, and no network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants {
    /// The worker types that it may send to and call; `None`: all.
    pub bus: Option<Vec<WorkerType>>,
    /// Whether it has a database.
    pub sql: bool,
    /// Whether it has buckets of keys and values.
    pub keyvalue: bool,
    /// Where its HTTP requests may go. `None`: a plugin that wants to make any is not loaded; an
    /// empty list: it is loaded, and each request is refused.
    pub outgoing_http: Option<Vec<Origin>>,
    /// The addresses that names in `outgoing_http` may stand for beside public ones.
    pub private_addresses: Vec<AddressRange>,
}

/// What one version of a worker can reach: what is granted, and what was read for it when it was
/// loaded. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Reach {
    /// What the operator grants.
    pub grants: Grants,
    /// The server that has its keys and values; `None`: a file of this host has them.
    pub redis: Option<RedisUrl>,
    /// What the guest reads through `wasi:config/store` and nobody else sees.
    pub secrets: Secrets,
    /// The database that it has, as far as `grants` gives it any; `None`: one of its own in the
    /// host's folder.
    pub database: Option<DatabaseUrl>,
    /// Who may sign the certificates of the hosts that it makes requests to; `None`: those whom the
    /// operating system trusts.
    pub trust: Option<Trust>,
}

impl Default for Grants {
    fn default() -> Self {
        Self {
            bus: None,
            sql: true,
            keyvalue: true,
            outgoing_http: None,
            private_addresses: Vec::new(),
        }
    }
}

impl Grants {
    /// Why a job may not go this way, if it may not. Every stop counts: the first one would pass
    /// the job on to the next.
    pub(crate) fn refusal<'a>(&self, stops: impl IntoIterator<Item = &'a Stop>) -> Option<String> {
        let granted = self.bus.as_ref()?;
        let is_granted = |stop: &Stop| {
            let address = stop.address();
            address.is_ok_and(|address| granted.contains(address.worker_type()))
        };
        let stop = stops.into_iter().find(|stop| !is_granted(stop))?;
        Some(format!(
            "this worker may not send to {}: the operator's `bus` does not name its type",
            stop.as_str()
        ))
    }

    /// The entry that lets a request go there.
    pub(crate) fn origin(&self, destination: &Destination) -> Option<&Origin> {
        let mut origins = self.outgoing_http.iter().flatten();
        origins.find(|origin| origin.covers(destination))
    }

    /// Whether the operator has written this very address.
    pub(crate) fn names_address(&self, destination: &Destination) -> bool {
        let mut origins = self.outgoing_http.iter().flatten();
        origins.any(|origin| origin.names_address() && origin.covers(destination))
    }
}

impl Reach {
    /// Looks at a verdict before anybody else does. A route must be granted, but for what the job
    /// itself names: who has sent it, and its own stops. Reasons are shown to others, so they keep
    /// no secrets.
    pub(crate) fn judge(
        &self,
        outcome: Outcome,
        sender: &str,
        route: &[String],
    ) -> Result<Outcome, Fault> {
        Ok(match outcome {
            Outcome::Route(slip) => {
                let is_own = |stop: &&Stop| {
                    let stop = stop.as_str();
                    stop == sender || route.iter().any(|own| own == stop)
                };
                let others = slip.stops.iter().filter(|stop| !is_own(stop));
                match self.grants.refusal(others) {
                    Some(reason) => return Err(Fault::Denied(reason)),
                    None => Outcome::Route(slip),
                }
            }
            Outcome::Retry { after, reason } => Outcome::Retry {
                after,
                reason: self.secrets.hide(&reason).into_owned(),
            },
            Outcome::Reject { reason } => Outcome::Reject {
                reason: self.secrets.hide(&reason).into_owned(),
            },
            other => other,
        })
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use warren_protocol::{Encoding, Payload, Slip};

    use super::*;

    fn reach(bus: Option<&[&str]>) -> Reach {
        let types = |names: &[&str]| {
            let names = names.iter();
            names.map(|name| WorkerType::new(name).unwrap()).collect()
        };
        Reach {
            grants: Grants {
                bus: bus.map(types),
                ..Grants::default()
            },
            ..Reach::default()
        }
    }

    fn refuses(bus: Option<&[&str]>, stops: &[&str]) -> bool {
        let stops: Vec<Stop> = stops.iter().map(|stop| Stop::new(*stop)).collect();
        reach(bus).grants.refusal(&stops).is_some()
    }

    #[test]
    fn every_stop_of_a_route_has_to_be_granted() {
        let id = "WB:2795220940610";
        assert!(!refuses(None, &["WX:*", id]));
        assert!(!refuses(Some(&["WB", "WD"]), &["WD:*", id]));
        assert!(refuses(Some(&["WD"]), &["WD:*", id]));
        assert!(refuses(Some(&["WD"]), &["WB:*"]));
        assert!(refuses(Some(&[]), &["WD:*"]));
        assert!(!refuses(Some(&["WD"]), &[]));
    }

    #[test]
    fn a_job_may_go_back_to_its_sender_and_on_its_own_way_whatever_is_granted() {
        let sender = "WA:2795220940610";
        let route = ["WD:*".to_owned(), "WX:*".to_owned()];
        let judge = |bus: &[&str], stops: &[&str]| {
            let outcome = Outcome::Route(Slip {
                stops: stops.iter().map(|stop| Stop::new(*stop)).collect(),
                data: Payload::new(Encoding::Json, Bytes::from("{}")).unwrap(),
            });
            let judged = reach(Some(bus)).judge(outcome, sender, &route);
            judged.map_err(|fault| fault.reason())
        };
        judge(&[], &[sender]).unwrap();
        judge(&[], &["WX:*", sender]).unwrap();
        judge(&["WB"], &["WB:*", sender]).unwrap();
        assert_eq!(judge(&[], &["WB:*", sender]), Err("denied"));
        // Another worker of the sender's type is not the sender.
        assert_eq!(judge(&[], &["WA:*"]), Err("denied"));
    }
}
