//! The first instance of a version, made before its first job: what cannot be instantiated with
//! everything that it may reach is known before it serves, and the pages that every instance begins
//! with are in memory.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{LoadError, Occasion, Plugin, Worker, fault, load::Load, run};

/// An instance only sets up its memory.
const DEADLINE: Duration = Duration::from_secs(20);

/// Makes an instance and lets it go.
pub(crate) async fn warm(plugin: &Plugin, worker: &Arc<Worker>) -> Result<(), LoadError> {
    let _place = plugin.scheduling.probes.acquire().await;
    let occasion = Occasion {
        job_id: "warm".to_owned(),
        attempt: 1,
        correlation_id: None,
        trace_parent: None,
    };
    let run = run::begin(worker, occasion, DEADLINE, CancellationToken::new());
    let clock = run.meter.clock();
    let mut store = run::store(&plugin.pre, worker, plugin.description.accepts, run);
    let (pre, load) = (plugin.pre.clone(), Arc::new(Load::new()));
    let run = async move {
        let made = tokio::time::timeout(DEADLINE, pre.instantiate_async(&mut store)).await;
        (made, store)
    };
    let (made, store) = plugin
        .scheduling
        .background
        .run(&load, clock, Box::pin(run))
        .await;
    match made {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(error)) => {
            let last_words = store.data().log.finish();
            let denied = store.data().memory.denied;
            let fault = fault::read(&error, &worker.limits, denied, &last_words);
            Err(LoadError::Warm(format!(
                "the first instance could not be made: {fault}"
            )))
        }
        Err(_) => Err(LoadError::Warm(format!(
            "the first instance was not made within {DEADLINE:?}"
        ))),
    }
}
