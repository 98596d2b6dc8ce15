//! What wit-bindgen makes of `wit/`. The rest of the SDK is a pleasanter way to say the same;
//! use these directly for what it does not cover.
//!
//! One module for each part of a plugin: what it imports, and each of the four interfaces that
//! it may export. They are worlds of their own, which the linker merges into the plugin's world,
//! so that any combination of exports can be made of them. (Generating `worker` and
//! `http-worker` side by side would define the export macro of `descriptor` twice.)
//!
//! Invariant: an imported interface exists once, in [`imports`], so that `bus::call` and the
//! like are the same function in every kind of worker.

#![allow(
    unsafe_code,
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated code that crosses the component boundary"
)]

/// What every worker may import.
pub mod imports {
    wit_bindgen::generate!({
        path: "../../wit",
        world: "warren:worker/imports",
        generate_all,
        additional_derives: [PartialEq],
        // It holds a handle, and no handle is another one.
        additional_derives_ignore: ["cas-error"],
    });
}

/// Exports `descriptor`.
pub mod descriptor {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package warren:sdk;
            world descriptor { export warren:worker/descriptor@0.1.0; }
        ",
        world: "warren:sdk/descriptor",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_descriptor",
        default_bindings_module: "warren_sdk::bindings::descriptor",
    });
}

/// Exports `handler`: takes jobs from the bus.
pub mod handler {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package warren:sdk;
            world handler { export warren:worker/handler@0.1.0; }
        ",
        world: "warren:sdk/handler",
        with: { "warren:worker/types@0.1.0": super::imports::warren::worker::types },
        pub_export_macro: true,
        export_macro_name: "export_handler",
        default_bindings_module: "warren_sdk::bindings::handler",
    });
}

/// Imports `wasi:http/outgoing-handler`: makes HTTP requests. Apart from the other imports, since it
/// is not in the world that has them.
pub mod outgoing_handler {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package warren:sdk;
            world outgoing-handler { import wasi:http/outgoing-handler@0.2.12; }
        ",
        world: "warren:sdk/outgoing-handler",
        generate_all,
    });
}

/// Exports `errors`: hears of jobs that were given up.
pub mod errors {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package warren:sdk;
            world errors { export warren:worker/errors@0.1.0; }
        ",
        world: "warren:sdk/errors",
        with: { "warren:worker/types@0.1.0": super::imports::warren::worker::types },
        pub_export_macro: true,
        export_macro_name: "export_errors",
        default_bindings_module: "warren_sdk::bindings::errors",
    });
}

/// Exports `wasi:http/incoming-handler`: answers HTTP requests.
pub mod incoming_handler {
    wit_bindgen::generate!({
        path: "../../wit",
        inline: "
            package warren:sdk;
            world incoming-handler { export wasi:http/incoming-handler@0.2.12; }
        ",
        world: "warren:sdk/incoming-handler",
        generate_all,
        pub_export_macro: true,
        export_macro_name: "export_incoming_handler",
        default_bindings_module: "warren_sdk::bindings::incoming_handler",
    });
}
