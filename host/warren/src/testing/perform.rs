//! Carries out one case, from empty files to its findings.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow, bail};
use axum::{body::Body, extract::State};
use bytes::Bytes;
use http::{HeaderValue, Request, header};
use http_body_util::BodyExt;
use serde_json::Value as Json;
use tokio::{sync::Notify, time::timeout};
use warren_bus::{EmbeddedBroker, Kind, Message};
use warren_protocol::{Address, Encoding, Identity, Job, Payload, Slip, Stop, WorkerId};
use warren_runtime::Detour;

use super::{
    bench::{Script, Seen},
    case::{Case, End, Fault, Input, JobIn},
    finding::Finding,
    ground::{Ground, NotLoaded, Shop, Site},
    holdings,
    judge::{self, Answer},
    lines::{Line, Lines},
    outside::Outside,
};
use crate::{http as server, run, witness};

/// Beyond the deadlines of its runs, how long a case may take until it is said to hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// What came of a case.
pub(super) struct Performed {
    /// Empty: it has passed.
    pub(super) findings: Vec<Finding>,
    /// What the worker wrote, and what its host said of it.
    pub(super) lines: Vec<Line>,
    /// All of it, its host and files included.
    pub(super) took: Duration,
}

/// Carries out a case. What keeps it from being carried out is a finding, too.
pub(super) async fn perform(shop: &Shop, case: &Case, lines: &Lines) -> Performed {
    let started = Instant::now();
    let mut performance = Performance {
        case,
        findings: Vec::new(),
        workers: Vec::new(),
    };
    if let Err(error) = performance.run(shop).await {
        let finding = Finding::new("the case", format!("could not be carried out: {error:#}"));
        performance.findings.push(finding);
    }
    let workers = performance.workers.iter();
    let lines: Vec<_> = workers.flat_map(|worker| lines.take(worker)).collect();
    for expected in &case.log {
        let is_there = |line: &Line| line.is_guests && line.text.contains(expected.as_str());
        if !lines.iter().any(is_there) {
            let message = format!("has no line with \"{expected}\"");
            performance.findings.push(Finding::new("the log", message));
        }
    }
    Performed {
        findings: performance.findings,
        lines,
        took: started.elapsed(),
    }
}

/// The runs of a job, as they are settled.
#[derive(Default)]
struct Runs {
    settled: Mutex<Vec<witness::Seen>>,
    more: Notify,
}

impl Runs {
    fn witness(runs: &Arc<Self>) -> witness::Witness {
        let runs = runs.clone();
        witness::Witness::new(move |seen| {
            let settled = runs.settled.lock();
            settled.unwrap_or_else(PoisonError::into_inner).push(seen);
            runs.more.notify_one();
        })
    }

    /// The next one that nobody has asked for yet.
    async fn next(&self) -> witness::Seen {
        loop {
            let first = {
                let settled = self.settled.lock();
                let mut settled = settled.unwrap_or_else(PoisonError::into_inner);
                (!settled.is_empty()).then(|| settled.remove(0))
            };
            match first {
                Some(seen) => return seen,
                None => self.more.notified().await,
            }
        }
    }
}

/// A port of this machine that no program is given.
const NOWHERE: Detour = Detour {
    http: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)),
    https: SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)),
};

struct Performance<'a> {
    case: &'a Case,
    findings: Vec<Finding>,
    /// The ids under which the worker was on the bus.
    workers: Vec<String>,
}

impl Performance<'_> {
    async fn run(&mut self, shop: &Shop) -> anyhow::Result<()> {
        let case = self.case;
        let folder = tempfile::Builder::new().prefix("warren-test-").tempdir();
        let folder = folder.context("making a folder for the case")?;
        let worker_type = &shop.plugin.description.worker_type;
        let own = case.config.workers.get(worker_type);
        let makes_requests = own.is_some_and(|own| own.grants.outgoing_http.is_some());
        let outside = match makes_requests {
            true => Some(Outside::open(&case.requests).await?),
            false => None,
        };
        let runs = Arc::new(Runs::default());
        let site = Site {
            shop,
            broker: EmbeddedBroker::new(
                run::EMBEDDED_QUEUE_LIMIT,
                run::message_bytes(&case.config),
            ),
            script: Script::new(
                case.calls.clone(),
                first_attempt(case) + case.expect.attempts - 1,
                case.fault,
            ),
            folder: folder.path(),
            // One that may not ask anybody is led to where nobody is.
            detour: outside.as_ref().map_or(NOWHERE, |outside| outside.detour),
            witness: Runs::witness(&runs),
        };
        let raised = site.raise("host", &case.config).await;
        let ground = match (raised, &case.expect.end) {
            (Ok(ground), End::NotLoaded(_)) => {
                ground.close().await;
                bail!("the worker is loaded, and should not be")
            }
            (Err(error), End::NotLoaded(expected)) => {
                let NotLoaded(reason) = error.downcast()?;
                let (what, reason) = ("the reason why it is not loaded", Json::from(reason));
                let found = Finding::of(what, expected, &reason, case.mode);
                self.findings.extend(found);
                return Ok(());
            }
            (raised, _) => raised?,
        };
        self.workers.push(ground.worker().id.to_string());
        if let Err(error) = holdings::prepare(case, &ground).await {
            ground.close().await;
            return Err(error);
        }
        let ended = match &case.input {
            Input::Job(job) => self.job(&site, &ground, job, &runs, outside.as_ref()).await,
            Input::Request { .. } => self.request(&site, &ground).await.map(|()| None),
        };
        // The last host of the case has the files.
        let (second, ended) = match ended {
            Ok(second) => (second, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let last = second.as_ref().unwrap_or(&ground);
        if ended.is_ok() {
            let found = holdings::look(case, last).await;
            self.findings.extend(found);
            if case.fault != Fault::Duplicate {
                self.findings.extend(judge::requests(
                    &case.requests,
                    &outside.as_ref().map(Outside::seen).unwrap_or_default(),
                ));
            }
        }
        if let Some(second) = second {
            second.close().await;
        }
        ground.close().await;
        ended
    }

    /// Lets the worker run a job, as often as the case wants. Returns the host that took over, if the
    /// first one has ended in the middle.
    async fn job(
        &mut self,
        site: &Site<'_>,
        ground: &Ground,
        job: &JobIn,
        runs: &Runs,
        outside: Option<&Outside>,
    ) -> anyhow::Result<Option<Ground>> {
        let case = self.case;
        let message = incoming(case, ground, job)?;
        let delivered = ground.bench.deliver(message.clone()).await;
        delivered.context("handing the job to the bus")?;
        let mut last = self.settled(site, ground, runs).await?;
        match case.fault {
            Fault::None => {
                self.judge("", &last, &site.script.take());
                Ok(None)
            }
            Fault::Duplicate => {
                let before = site.script.take();
                self.judge("", &last, &before);
                self.judge_requests("", outside);
                let delivered = ground.bench.deliver(message).await;
                delivered.context("handing the job to the bus again")?;
                let again = self.settled(site, ground, runs).await?;
                let after = site.script.take();
                self.judge("at the second delivery, ", &again, &after);
                self.judge_requests("at the second delivery, ", outside);
                self.compare(&before, &after);
                Ok(None)
            }
            Fault::Crash | Fault::CrashAtCall(_) => {
                if !site.script.has_crashed() {
                    let message = match case.fault {
                        Fault::CrashAtCall(n) => format!("did not happen: there was no call {n}"),
                        _ => {
                            "did not happen: the job has led to no message, so there is no moment \
                              before its acknowledgement; use fault = \"duplicate\""
                                .to_owned()
                        }
                    };
                    self.findings.push(Finding::new("the crash", message));
                    return Ok(None);
                }
                let before = site.script.take();
                let made = match case.fault {
                    // Its other calls were not made.
                    Fault::CrashAtCall(n) => case.calls.get(..n as usize).unwrap_or(&case.calls),
                    _ => &case.calls,
                };
                let found = judge::calls(made, &before.calls);
                self.note("before the crash, ", found);
                if let Some(outside) = outside {
                    outside.forget();
                }
                site.script.recover();
                let second = site.raise("second host", &case.config).await?;
                self.workers.push(second.worker().id.to_string());
                last = self.settled(site, &second, runs).await?;
                let after = site.script.take();
                self.judge("after the crash, ", &last, &after);
                Ok(Some(second))
            }
        }
    }

    /// Waits until the job has been run as often as the case wants, and all that it led to is done.
    async fn settled(
        &self,
        site: &Site<'_>,
        ground: &Ground,
        runs: &Runs,
    ) -> anyhow::Result<witness::Seen> {
        let case = self.case;
        let last_attempt = first_attempt(case) + case.expect.attempts - 1;
        let deadline = ground.worker().limits.deadline;
        let delays: Duration = case.calls.iter().map(|call| call.delay).sum();
        let wait = deadline.saturating_mul(case.expect.attempts) + delays + PATIENCE;
        let settling = async {
            loop {
                let seen = runs.next().await;
                if seen.end == "retry" && seen.attempt < last_attempt {
                    continue;
                }
                if seen.end != "interrupted" || site.script.has_crashed() {
                    return anyhow::Ok(seen);
                }
            }
        };
        let seen = timeout(wait, settling).await;
        let seen = seen.map_err(|_| anyhow!("the job was not settled within {wait:?}"))??;
        if !site.script.has_crashed() || seen.end != "interrupted" {
            self.quiet(site, ground).await?;
        }
        Ok(seen)
    }

    /// Waits until the worker does nothing any more, and nothing of its is on its way.
    async fn quiet(&self, site: &Site<'_>, ground: &Ground) -> anyhow::Result<()> {
        let ending = async {
            if let Some(seat) = ground.seat() {
                seat.runs.close();
                seat.runs.wait().await;
            }
            loop {
                let changed = site.script.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if site.script.is_settled() || site.script.has_crashed() {
                    return;
                }
                changed.await;
            }
        };
        let ended = timeout(PATIENCE, ending).await;
        ended.map_err(|_| anyhow!("the worker did not come to an end within {PATIENCE:?}"))
    }

    fn judge(&mut self, when: &str, last: &witness::Seen, seen: &Seen) {
        let case = self.case;
        let mut found = judge::outcome(&case.expect, last, case.mode);
        if let Some(stack) = last.stack.as_ref().filter(|_| !found.is_empty()) {
            found.push(Finding::new("the guest was", format!("at\n{stack}")));
        }
        let n_attempts = last.attempt + 1 - first_attempt(case);
        let buried = seen.buried.as_ref().map(|epitaph| epitaph.reason);
        found.extend(judge::attempts(case, n_attempts, buried));
        found.extend(judge::calls(&case.calls, &seen.calls));
        // What a run has sent that failed is sent by nobody.
        let sent: &[Slip] = if last.end == "ok" { &last.sends } else { &[] };
        found.extend(judge::sends(&case.sends, sent));
        self.note(when, found);
    }

    fn judge_requests(&mut self, when: &str, outside: Option<&Outside>) {
        let seen = outside.map(Outside::seen).unwrap_or_default();
        self.note(when, judge::requests(&self.case.requests, &seen));
        if let Some(outside) = outside {
            outside.forget();
        }
    }

    fn note(&mut self, when: &str, found: Vec<Finding>) {
        let found = found.into_iter().map(|finding| Finding {
            what: format!("{when}{}", finding.what),
            ..finding
        });
        self.findings.extend(found);
    }

    /// A job that is delivered twice leads to the same messages, by which the bus and its receivers
    /// know that they are the same.
    fn compare(&mut self, first: &Seen, second: &Seen) {
        let ids = |seen: &Seen| -> Vec<String> {
            seen.handed
                .iter()
                .map(|message| message.id.clone())
                .collect()
        };
        if ids(first) == ids(second) {
            return;
        }
        let shown = |seen: &Seen| {
            let messages = seen.handed.iter().map(|message| {
                let job = message.encoding.decode_job(&message.body);
                let data = job.map_or(Json::Null, |job| judge::json(&job.data));
                format!("{} {data}", message.to)
            });
            messages.collect::<Vec<_>>().join("; ")
        };
        let message = format!(
            "has led to other messages than the first: [{}], and before [{}]. What a job leads to must \
             depend on the job alone, not on the time or on chance",
            shown(second),
            shown(first)
        );
        self.findings
            .push(Finding::new("the second delivery", message));
    }

    /// Lets the worker answer an HTTP request.
    async fn request(&mut self, site: &Site<'_>, ground: &Ground) -> anyhow::Result<()> {
        let case = self.case;
        let Input::Request {
            method,
            path,
            headers,
            body,
        } = &case.input
        else {
            bail!("the case gives no request");
        };
        let mut request = Request::builder().method(method).uri(path.as_str());
        if let Some(all) = request.headers_mut() {
            all.extend(headers.clone());
            let host = HeaderValue::from_static("localhost");
            all.entry(header::HOST).or_insert(host);
        }
        let request = request
            .body(Body::from(body.clone()))
            .context("the request")?;
        let wait = ground.worker().limits.deadline + PATIENCE;
        let answering = async {
            let response = server::answer(State(ground.host.clone()), request).await;
            let (head, body) = response.into_parts();
            let body = body.collect().await;
            let body = body.map(|body| body.to_bytes());
            (head, body)
        };
        let answered = timeout(wait, answering).await;
        let (head, body) = answered.map_err(|_| anyhow!("no response came within {wait:?}"))?;
        let body = body.unwrap_or_else(|error| {
            let message = format!("broke off: {error}");
            self.findings
                .push(Finding::new("the body of the response", message));
            Bytes::new()
        });
        self.quiet(site, ground).await?;
        let answer = Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body: body.to_vec(),
        };
        let seen = site.script.take();
        let mut found = judge::response(case, &answer);
        found.extend(judge::calls(&case.calls, &seen.calls));
        found.extend(judge::sends(&case.sends, &slips(&seen)));
        self.note("", found);
        Ok(())
    }
}

/// The jobs that a request has sent.
fn slips(seen: &Seen) -> Vec<Slip> {
    let jobs = seen
        .handed
        .iter()
        .filter(|message| message.kind == Kind::Job);
    let jobs = jobs.filter_map(|message| message.encoding.decode_job(&message.body).ok());
    jobs.map(|job| Slip {
        stops: job.route,
        data: job.data,
    })
    .collect()
}

fn first_attempt(case: &Case) -> u32 {
    match &case.input {
        Input::Job(job) => job.attempt,
        Input::Request { .. } => 1,
    }
}

/// The job as the bus brings it.
fn incoming(case: &Case, ground: &Ground, given: &JobIn) -> anyhow::Result<Message> {
    let encoding = case.config.encoding;
    let worker_type = ground.worker().id.worker_type();
    let sender: WorkerId = given.sender.parse().context("the sender")?;
    let to = Address::Any(worker_type.clone());
    let route = match given.route.as_slice() {
        [] => vec![Stop::from(&to)],
        stops => stops.iter().map(Stop::new).collect(),
    };
    let data = Payload::new(Encoding::Json, given.data.to_string().into());
    let job = Job {
        route,
        position: given.position,
        data: data.context("the data of the job")?,
        sender: Identity::from(&sender),
        id: given.id.clone(),
    };
    let body = encoding.encode_job(&job).context("the data of the job")?;
    Ok(Message {
        attempt: given.attempt,
        trace_parent: given.trace_parent.clone(),
        correlation_id: given.is_call.then(|| "case".to_owned()),
        reply_to: given.is_call.then_some(sender),
        ..Message::new(given.id.clone(), to, encoding, body)
    })
}
