//! Runs plugins: from the bytes of a component to the verdict of one job, inside limits.
//!
//! Invariants: the only crate that names wasmtime. It knows no broker and no files but the
//! databases, the stores of keys and values and the compiled plugins under the folders it is handed. A Store is owned by one run at
//! a time and never survives a trap.
//! Nothing here reads the environment.
//!
//! The way through: [`Engine::load`] turns bytes into a [`Plugin`], [`Pool::new`] puts limits and
//! a [`Worker`] around it, [`Pool::run`] and [`Pool::serve`] run one job and one HTTP request.

mod artifacts;
mod background;
mod binary;
mod bindings;
mod capability;
mod compiler;
mod engine;
mod fault;
mod grants;
mod http;
mod instance;
mod limits;
mod load;
mod meter;
mod plugin;
mod pool;
pub mod private_folder;
mod probe;
mod reuse;
mod run;
mod scheduling;
mod secret;
mod stack;
mod state;
mod stop;
mod symbols;
mod task;
mod ticker;
mod warm;

pub use artifacts::ArtifactsConfig;
pub use binary::is_whole;
pub use capability::{
    bus::{Call, CallFn},
    first_use::FirstUse,
    keyvalue::{KeyValueStore, KeyValueStores, RedisUrl},
    metrics::GuestMetrics,
    outgoing::{Detour, Outgoing, Trust, TrustError},
    sql::{Cell, DatabaseUrl, Databases, THREAD_STACK_BYTES, Table},
};
pub use compiler::{CompilerBounds, CompilerConfig, compile_apart};
pub use engine::{Compiled, Engine, EngineConfig, EngineError, MAX_FILE_BYTES};
pub use fault::Fault;
pub use grants::{AddressRange, Grants, Need, Origin, Reach, Standing, needs};
pub use http::{HttpBody, HttpError, HttpRequest, HttpResponse};
pub use limits::{Limits, MAX_TABLE_ELEMENTS};
pub use plugin::{Description, Digest, LoadError, Plugin};
pub use pool::{Permit, Pool, Worker};
pub use reuse::{InstanceMetrics, Reuse};
pub use run::{JobRun, Occasion};
pub use secret::{Secret, Secrets};
pub use stop::Stop;
