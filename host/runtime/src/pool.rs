//! A plugin at work: bounds its instances, runs jobs and requests under limits, and can be waited
//! for until it is idle.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use warren_protocol::{Job, JobError, WorkerId};

use crate::{
    CallFn, Databases, GuestMetrics, HttpError, HttpRequest, HttpResponse, InstanceMetrics, JobRun,
    KeyValueStore, Limits, LoadError, Occasion, Outgoing, Plugin, Reach, Reuse, Stop, http,
    reuse::Instances, run, warm,
};

/// The worker that a plugin is: its identity and what it may reach. The operator's side of a run.
pub struct Worker {
    /// Its id on the bus.
    pub id: WorkerId,
    /// What one run may use.
    pub limits: Limits,
    /// What the guest reads through `wasi:config/store`.
    pub config: BTreeMap<String, String>,
    /// Carries the guest's calls out.
    pub call: CallFn,
    /// How long a call waits when the guest does not say.
    pub call_timeout: Duration,
    /// Where the guest's figures go.
    pub metrics: Arc<GuestMetrics>,
    /// Where its database is.
    pub databases: Arc<Databases>,
    /// Where its keys and values are.
    pub keyvalue: KeyValueStore,
    /// Whether an instance serves several runs, and for how long; `None`: one each.
    pub reuse: Option<Reuse>,
    /// Where the figures of its instances go.
    pub instances: Arc<InstanceMetrics>,
    /// What it can reach.
    pub reach: Reach,
    /// Carries its requests to other hosts out.
    pub outgoing: Arc<Outgoing>,
}

/// One version of one worker's code, and the runs of it. Lives until its last run has ended, held
/// by the registry while it is current and by the runs themselves afterwards.
pub struct Pool {
    plugin: Arc<Plugin>,
    worker: Arc<Worker>,
    instances: Arc<Instances>,
    permits: Arc<Semaphore>,
    n_permits: u32,
}

/// The right to one run: the worker's and the engine's. Given back when dropped.
#[derive(Debug)]
#[expect(dead_code, reason = "held, never read")]
pub struct Permit(OwnedSemaphorePermit, OwnedSemaphorePermit);

impl Pool {
    /// Puts a plugin to work.
    #[must_use]
    pub fn new(plugin: Plugin, worker: Worker) -> Self {
        let n_permits = u32::try_from(worker.limits.concurrency.max(1)).unwrap_or(u32::MAX);
        let worker = Arc::new(worker);
        let instances = Instances::new(&worker);
        if instances.are_reused() {
            plugin.scheduling.add(&instances);
        }
        Self {
            plugin: Arc::new(plugin),
            worker,
            instances,
            permits: Arc::new(Semaphore::new(n_permits as usize)),
            n_permits,
        }
    }

    /// Makes the first instance and lets it go, so that the first job finds everything ready.
    ///
    /// # Errors
    /// [`LoadError::Warm`] when it cannot be made under the worker's limits.
    pub async fn warm(&self) -> Result<(), LoadError> {
        warm::warm(&self.plugin, &self.worker).await
    }

    /// The code.
    #[must_use]
    pub fn plugin(&self) -> &Plugin {
        &self.plugin
    }

    /// The worker.
    #[must_use]
    pub fn worker(&self) -> &Worker {
        &self.worker
    }

    /// How many runs are going on.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        (self.n_permits as usize).saturating_sub(self.permits.available_permits())
    }

    /// How many instances are idle, where they are reused.
    #[must_use]
    pub fn idle_instances(&self) -> usize {
        self.instances.n_idle()
    }

    /// Keeps no idle instance any more: another version serves. Runs that have begun go on.
    pub fn retire(&self) {
        self.instances.close();
    }

    /// Waits for the right to one run, first come, first served.
    ///
    /// # Cancel safety
    /// Dropping the future gives up the place in the line and nothing else.
    pub async fn permit(&self) -> Option<Permit> {
        // The worker's first: a worker at its limit must not keep instances from the others.
        let own = self.permits.clone().acquire_owned().await.ok()?;
        let instance = self
            .plugin
            .scheduling
            .instances
            .clone()
            .acquire_owned()
            .await
            .ok()?;
        Some(Permit(own, instance))
    }

    /// Waits until nothing runs. Whoever calls this has made sure that nothing new begins.
    pub async fn idle(&self) {
        let _all = self.permits.acquire_many(self.n_permits).await;
    }

    /// Runs one job, in a fresh instance unless the worker reuses them. `stop` interrupts it.
    pub async fn run(
        &self,
        _permit: &Permit,
        job: &Job,
        occasion: Occasion,
        stop: impl Into<Stop>,
    ) -> JobRun {
        let (plugin, worker, stop) = (&self.plugin, &self.worker, stop.into());
        run::job(plugin, worker, &self.instances, job, occasion, stop).await
    }

    /// Tells the guest that a job which it sent was given up: a run like a job's, whose verdict is
    /// [`Outcome::Done`](warren_protocol::Outcome::Done), or a rejection with the guest's words.
    pub async fn treat(
        &self,
        _permit: &Permit,
        error: &JobError,
        occasion: Occasion,
        stop: impl Into<Stop>,
    ) -> JobRun {
        let (plugin, worker, stop) = (&self.plugin, &self.worker, stop.into());
        run::error(plugin, worker, &self.instances, error, occasion, stop).await
    }

    /// Answers one HTTP request, in a fresh instance unless the worker reuses them. The response may still be streaming when
    /// this returns; the permit is held until the guest has finished.
    ///
    /// # Errors
    /// [`HttpError`] when the guest gave no response. What it sent is dropped then.
    ///
    /// # Cancel safety
    /// Dropping the future does not stop the guest, which keeps its permit until its end or its
    /// deadline; `stop` does. But what it sends is lost then, with a line in the log: a caller
    /// whose client may leave awaits this in a task of its own.
    pub async fn serve(
        &self,
        permit: Permit,
        request: HttpRequest,
        occasion: Occasion,
        stop: CancellationToken,
    ) -> Result<HttpResponse, HttpError> {
        let (plugin, instances) = (self.plugin.clone(), self.instances.clone());
        http::serve(
            plugin,
            &self.worker,
            instances,
            permit,
            request,
            occasion,
            stop,
        )
        .await
    }
}

impl Drop for Pool {
    /// A response that still streams may outlive it.
    fn drop(&mut self) {
        self.retire();
    }
}
