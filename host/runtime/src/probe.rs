//! Asks a plugin what it is, in an instance that can reach nothing: base WASI is there and empty,
//! because every standard library touches it on the way up; `wasi:http` is there and refuses,
//! because its types are woven into base WASI's; everything else traps.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;
use warren_protocol::{Encoding, WorkerType};
use wasmtime::{
    Trap, bail,
    component::{
        Component, Linker, LinkerInstance, ResourceType,
        types::{ComponentInstance, ComponentItem},
    },
};

use crate::{
    Description, LoadError, Occasion, Worker, bindings::exports::warren::worker::descriptor, fault,
    load::Load, run, scheduling::Scheduling, state::State,
};

/// `describe` only fills in a record. It computes for no longer than that.
const CPU: Duration = Duration::from_secs(5);
/// By the clock it may take longer: others may be computing, too.
const DEADLINE: Duration = Duration::from_secs(20);
/// The longest text that a description may hold, in bytes.
const MAX_TEXT_BYTES: usize = 1024;
/// The packages that the linker of the probe has already.
const BASE_WASI: [&str; 7] = [
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:http/",
    "wasi:io/",
    "wasi:random/",
    "wasi:sockets/",
];

/// Calls `describe`.
pub(crate) async fn describe(
    base: &Linker<State>,
    scheduling: &Arc<Scheduling>,
    component: &Component,
    descriptor: &descriptor::GuestIndices,
    scratch: &Arc<Worker>,
) -> Result<descriptor::Description, LoadError> {
    let failed = |error: &wasmtime::Error| LoadError::Probe(format!("{error:#}"));
    let mut linker = base.clone();
    trap_the_rest(&mut linker, component).map_err(|error| failed(&error))?;
    let pre = linker
        .instantiate_pre(component)
        .map_err(|error| failed(&error))?;
    let _place = scheduling.probes.acquire().await;
    let occasion = Occasion {
        job_id: "describe".to_owned(),
        attempt: 1,
        correlation_id: None,
        trace_parent: None,
    };
    let mut run = run::begin(scratch, occasion, DEADLINE, CancellationToken::new());
    run.meter.limit_cpu(CPU);
    let clock = run.meter.clock();
    let mut store = run::store(&pre, scratch, Encoding::Json, run);
    let descriptor = descriptor.clone();
    let run = async move {
        let run = async {
            let instance = pre.instantiate_async(&mut store).await?;
            let guest = descriptor.load(&mut store, &instance)?;
            guest.call_describe(&mut store).await
        };
        let described = tokio::time::timeout(DEADLINE, run).await;
        (described, store)
    };
    let load = Arc::new(Load::new());
    let (described, store) = scheduling.background.run(&load, clock, Box::pin(run)).await;
    let too_long = || {
        LoadError::Probe(format!(
            "describe() computed for longer than {CPU:?} or took longer than {DEADLINE:?}; it must \
             only fill in a record"
        ))
    };
    match described {
        Err(_) => Err(too_long()),
        Ok(Ok(description)) => Ok(description),
        Ok(Err(error)) if error.downcast_ref() == Some(&Trap::Interrupt) => Err(too_long()),
        Ok(Err(error)) => {
            let last_words = store.data().log.finish();
            let denied = store.data().memory.denied;
            let fault = fault::read(&error, &scratch.limits, denied, &last_words);
            Err(LoadError::Probe(format!("describe() failed: {fault}")))
        }
    }
}

/// Checks what a plugin says of itself.
pub(crate) fn read(
    said: descriptor::Description,
    serves_http: bool,
) -> Result<Description, LoadError> {
    let probe = |text: String| LoadError::Probe(format!("describe() says {text}"));
    let worker_type = WorkerType::new(&said.worker_type)
        .map_err(|error| probe(format!("a wrong worker-type: {error}")))?;
    if said.version.len() > MAX_TEXT_BYTES || said.summary.len() > MAX_TEXT_BYTES {
        return Err(probe(format!(
            "a version or summary of more than {MAX_TEXT_BYTES} bytes"
        )));
    }
    // A terminal obeys control characters.
    if [&said.version, &said.summary]
        .into_iter()
        .any(|text| text.contains(char::is_control))
    {
        return Err(probe(
            "a version or summary with control characters: use one line of text".to_owned(),
        ));
    }
    let accepts = match said.accepts.as_slice() {
        [] => Encoding::Json,
        wanted => wanted
            .iter()
            .find_map(|content_type| Encoding::from_content_type(content_type))
            .ok_or_else(|| {
                probe(
                    "it accepts no content type of the bus (application/json, application/bson, \
                     application/msgpack)"
                        .to_owned(),
                )
            })?,
    };
    let http_path = said
        .annotations
        .into_iter()
        .find_map(|(name, value)| (name == "http.path").then_some(value))
        .filter(|_| serves_http);
    if let Some(path) = &http_path
        && !is_path(path)
    {
        return Err(probe(format!(
            "a wrong http.path: use `/`, then at most {MAX_TEXT_BYTES} visible ASCII characters"
        )));
    }
    Ok(Description {
        worker_type,
        version: said.version,
        summary: said.summary,
        accepts,
        http_path,
    })
}

fn is_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= MAX_TEXT_BYTES
        && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Defines every other import as a function that traps. (wasmtime's own
/// `define_unknown_imports_as_traps` compares names with their exact version, and would define a
/// second, trapping `wasi:io` for a guest built against another 0.2.x.)
fn trap_the_rest(linker: &mut Linker<State>, component: &Component) -> wasmtime::Result<()> {
    let component_type = component.component_type();
    for (name, item) in component_type.imports(component.engine()) {
        if BASE_WASI.iter().any(|package| name.starts_with(package)) {
            continue;
        }
        if let ComponentItem::ComponentInstance(instance) = item.ty {
            trap_instance(&mut linker.instance(name)?, name, &instance, component)?;
        }
    }
    Ok(())
}

fn trap_instance(
    linker: &mut LinkerInstance<'_, State>,
    instance_name: &str,
    instance: &ComponentInstance,
    component: &Component,
) -> wasmtime::Result<()> {
    for (name, item) in instance.exports(component.engine()) {
        match item.ty {
            ComponentItem::ComponentFunc(_) => {
                let culprit = format!("{instance_name}.{name}");
                linker.func_new(name, move |_, _, _, _| {
                    bail!("describe() called {culprit}; it must only fill in a record")
                })?;
            }
            ComponentItem::Resource(_) => {
                linker.resource(name, ResourceType::host::<()>(), |_, _| Ok(()))?;
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(change: impl FnOnce(&mut descriptor::Description)) -> Result<Description, String> {
        let mut said = descriptor::Description {
            worker_type: "WB".to_owned(),
            version: "1.0.0".to_owned(),
            summary: "Stores movies".to_owned(),
            accepts: Vec::new(),
            annotations: Vec::new(),
        };
        change(&mut said);
        read(said, true).map_err(|error| error.to_string())
    }

    fn path(path: &str) -> Result<Option<String>, String> {
        let annotation = ("http.path".to_owned(), path.to_owned());
        said(|said| said.annotations = vec![annotation]).map(|read| read.http_path)
    }

    #[test]
    fn a_wrong_worker_type_is_named() {
        let error = said(|said| said.worker_type = "W B".to_owned()).unwrap_err();
        assert!(error.contains("`W B`"), "{error}");
    }

    #[test]
    fn the_first_encoding_of_the_bus_is_taken_and_json_when_there_is_no_wish() {
        let accepts = |wanted: &[&str]| {
            let wanted = wanted.iter().map(|&text| text.to_owned()).collect();
            said(|said| said.accepts = wanted).map(|read| read.accepts)
        };
        assert_eq!(accepts(&[]), Ok(Encoding::Json));
        assert_eq!(
            accepts(&["text/csv", "application/msgpack", "application/json"]),
            Ok(Encoding::from_content_type("application/msgpack").unwrap())
        );
        let error = accepts(&["text/csv"]).unwrap_err();
        assert!(error.contains("application/json"), "{error}");
    }

    #[test]
    fn an_http_path_begins_with_a_slash_and_has_nothing_invisible_in_it() {
        assert_eq!(path("/movies/"), Ok(Some("/movies/".to_owned())));
        for wrong in ["", "movies", "/mo vies", "/a\r\nb", "/filme-ü"] {
            let error = path(wrong).unwrap_err();
            assert!(error.contains("http.path"), "{wrong}: {error}");
        }
        path(&"/".repeat(MAX_TEXT_BYTES + 1)).unwrap_err();
    }

    #[test]
    fn what_an_operator_reads_is_short_and_obeys_no_terminal() {
        said(|said| said.summary = "Stores \u{1b}[2Jmovies".to_owned()).unwrap_err();
        said(|said| said.version = "1\n2".to_owned()).unwrap_err();
        said(|said| said.summary = "x".repeat(MAX_TEXT_BYTES + 1)).unwrap_err();
    }
}
