//! The plugin that `wit/README.md` writes in pieces, word for word: what is read there is built and
//! run (`host/runtime/tests/runtime/readme.rs`).

include!(concat!(env!("OUT_DIR"), "/readme.rs"));
