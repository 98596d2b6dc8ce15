//! The contract in Rust, generated from `wit/`.
//!
//! One world is enough: what a component exports is found by trying the indices of each export
//! (`exports::…::GuestIndices`), so that further exports stay optional.

#![allow(missing_docs, unreachable_pub, reason = "generated code")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "generated code"
)]

wasmtime::component::bindgen!({
    path: "../../wit",
    world: "treating-worker",
    imports: {
        "warren:worker/bus@0.1.0.call": async | trappable,
        "warren:worker/sql@0.1.0": async | trappable,
        "wasi:keyvalue/store@0.2.0-draft2": async | trappable,
        "wasi:keyvalue/atomics@0.2.0-draft2": async | trappable,
        "wasi:keyvalue/batch@0.2.0-draft2": async | trappable,
        default: trappable,
    },
    exports: { default: async },
    with: {
        "warren:worker/sql.transaction": crate::capability::sql::Transaction,
        "wasi:keyvalue/store.bucket": crate::capability::keyvalue::Bucket,
        "wasi:keyvalue/atomics.cas": crate::capability::keyvalue::Cas,
    },
});
