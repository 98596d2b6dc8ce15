//! Runs plugins: from the bytes of a component to the verdict of one job, inside limits.
//!
//! Invariants: the only crate that names wasmtime. It knows no broker and no files but the
//! databases under the folder it is handed. A Store is owned by one run and never survives a trap.
//! Nothing here reads the environment.
//!
//! The way through: [`Engine::load`] turns bytes into a [`Plugin`], [`Pool::new`] puts limits and
//! a [`Worker`] around it, [`Pool::run`] and [`Pool::serve`] run one job and one HTTP request.

mod bindings;
mod capability;
mod engine;
mod fault;
mod grants;
mod http;
mod limits;
mod plugin;
mod pool;
mod probe;
mod run;
mod scheduling;
mod secret;
mod state;

pub use capability::{
    bus::{Call, CallFn},
    metrics::GuestMetrics,
    outgoing::{Outgoing, Trust, TrustError},
    sql::Databases,
};
pub use engine::{Engine, EngineConfig, EngineError, MAX_FILE_BYTES};
pub use fault::Fault;
pub use grants::{AddressRange, Grants, Need, Origin, Reach, Standing, needs};
pub use http::{HttpBody, HttpError, HttpRequest, HttpResponse};
pub use limits::Limits;
pub use plugin::{Description, Digest, LoadError, Plugin};
pub use pool::{Permit, Pool, Worker};
pub use run::{JobRun, Occasion};
pub use secret::{Secret, Secrets};
