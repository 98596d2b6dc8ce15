//! What is taken for a plugin, and what an operator is told about the rest.

use super::host::{Host, guest};

/// Checks the step at which these bytes are refused, and what the message must say.
async fn refused(bytes: impl Into<Vec<u8>>, step: &str, says: &[&str]) {
    let error = Host::new().load(bytes.into()).await.unwrap_err();
    let text = error.to_string();
    assert_eq!(error.step(), step, "{text}");
    for part in says {
        assert!(text.contains(part), "`{part}` is missing in: {text}");
    }
}

async fn refused_text(component: &str, step: &str, says: &[&str]) {
    refused(wat::parse_str(component).unwrap(), step, says).await;
}

/// A component that exports the names of the contract and runs `start` as it is instantiated.
fn starting(imports: &str, start: &str) -> String {
    format!(
        r#"(component
            {imports}
            (core func $said (canon lower (func $ask)))
            (core module $m
                (import "host" "ask" (func $ask (result i32)))
                (func (export "run"))
                (func $start {start})
                (start $start))
            (core instance $i (instantiate $m
                (with "host" (instance (export "ask" (func $said))))))
            (func $run (canon lift (core func $i "run")))
            (instance $descriptor (export "describe" (func $run)))
            (export "warren:worker/descriptor@0.1.0" (instance $descriptor))
            (instance $handler (export "handle" (func $run)))
            (export "warren:worker/handler@0.1.0" (instance $handler)))"#
    )
}

const CONTEXT: &str = r#"
    (import "warren:worker/context@0.1.0" (instance $context
        (export "attempt" (func (result u32)))))
    (alias export $context "attempt" (func $ask))"#;

#[tokio::test]
async fn the_plugins_that_come_with_warren_are_taken() {
    let host = Host::new();
    for (name, worker_type, serves_http) in [
        ("pilot", "WD", false),
        ("db", "WB", false),
        ("rest", "WA", true),
    ] {
        let plugin = host.load(guest(name)).await.unwrap();
        assert_eq!(plugin.description.worker_type.as_str(), worker_type);
        assert_eq!(plugin.serves_http(), serves_http, "{name}");
        assert_eq!(plugin.takes_jobs(), !serves_http, "{name}");
        assert_eq!(plugin.description.http_path.is_some(), serves_http);
        assert_eq!(plugin.digest.short().len(), 12);
    }
}

#[tokio::test]
async fn an_empty_file_is_truncated() {
    refused("", "validate", &["0 bytes", "truncated"]).await;
}

#[tokio::test]
async fn a_text_is_not_webassembly() {
    refused(
        "#!/bin/sh\nexit 0\n",
        "validate",
        &["not WebAssembly", "magic"],
    )
    .await;
}

#[tokio::test]
async fn a_half_written_component_is_truncated() {
    let mut bytes = guest("pilot");
    bytes.truncate(bytes.len() / 2);
    refused(bytes, "validate", &["truncated", "copy it again"]).await;
}

#[tokio::test]
async fn a_core_module_is_refused_with_the_right_target() {
    refused_text("(module)", "validate", &["core module", "wasm32-wasip2"]).await;
}

#[tokio::test]
async fn a_component_without_exports_is_no_worker() {
    let says = ["warren:worker/descriptor@0.1.0", "exports nothing"];
    refused_text("(component)", "link", &says).await;
}

#[tokio::test]
async fn a_component_that_exports_something_else_is_told_what() {
    let component = r#"(component
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func (export "run") (canon lift (core func $i "f"))))"#;
    let says = ["warren:worker/descriptor@0.1.0", "`run`"];
    refused_text(component, "link", &says).await;
}

#[tokio::test]
async fn a_worker_without_anything_to_do_is_told_what_is_missing() {
    let component = r#"(component
        (core module $m (func (export "f")))
        (core instance $i (instantiate $m))
        (func $f (canon lift (core func $i "f")))
        (instance $d (export "describe" (func $f)))
        (export "warren:worker/descriptor@0.1.0" (instance $d)))"#;
    let says = ["warren:worker/handler@0.1.0", "wasi:http/incoming-handler"];
    refused_text(component, "link", &says).await;
}

#[tokio::test]
async fn an_unknown_import_is_named_with_what_there_is() {
    let component = r#"(component
        (import "acme:thing/x" (instance (export "f" (func)))))"#;
    refused_text(component, "link", &["acme:thing/x", "warren:worker@0.1"]).await;
}

#[tokio::test]
async fn a_function_that_this_host_lacks_is_named() {
    let component = r#"(component
        (import "warren:worker/context@0.1.0" (instance (export "moon-phase" (func)))))"#;
    refused_text(component, "link", &["warren:worker/context", "moon-phase"]).await;
}

#[tokio::test]
async fn the_last_words_of_a_describe_that_panics_are_in_the_error() {
    let says = [
        "describe() failed",
        "the plugin has nothing to say of itself",
    ];
    refused(guest("traps_in_describe"), "probe", &says).await;
}

#[tokio::test]
async fn a_describe_that_never_returns_is_stopped() {
    let component = starting(CONTEXT, "(loop $again (br $again))");
    refused_text(&component, "probe", &["computed for longer than 5s"]).await;
}

#[tokio::test]
async fn a_describe_that_uses_a_capability_is_refused_and_it_is_named() {
    let component = starting(CONTEXT, "(drop (call $ask))");
    let says = [
        "warren:worker/context@0.1.0.attempt",
        "only fill in a record",
    ];
    refused_text(&component, "probe", &says).await;
}

#[tokio::test]
async fn a_describe_of_another_type_is_refused() {
    let component = starting(CONTEXT, "");
    refused_text(&component, "probe", &["describe"]).await;
}

#[tokio::test]
async fn damaged_bytes_are_refused_with_their_place() {
    let mut bytes = guest("pilot");
    let middle = bytes.len() / 2;
    bytes[middle..middle + 64].fill(0xff);
    refused(bytes, "compile", &["offset"]).await;
}

/// Names one mebibyte of its memory 4000 times in one list.
const AMPLIFYING: &str = r#"(component
    (import "warren:worker/metrics@0.1.0" (instance $metrics
        (type $pairs (list (tuple string string)))
        (export "labels" (type $labels (eq $pairs)))
        (export "count" (func
            (param "name" string) (param "labels" $labels) (param "by" u64)))))
    (alias export $metrics "count" (func $count))
    (core module $memory (memory (export "memory") 32))
    (core instance $memory (instantiate $memory))
    (alias core export $memory "memory" (core memory $bytes))
    (core func $lowered (canon lower (func $count) (memory $bytes)))
    (core module $m
        (import "host" "memory" (memory 32))
        (import "host" "count" (func $count (param i32 i32 i32 i32 i64)))
        (func (export "run"))
        (func $start (local $at i32)
            (local.set $at (i32.const 1048576))
            (loop $next
                (i32.store offset=12 (local.get $at) (i32.const 1048576))
                (local.set $at (i32.add (local.get $at) (i32.const 16)))
                (br_if $next (i32.lt_u (local.get $at) (i32.const 1112576))))
            (call $count (i32.const 0) (i32.const 1)
                (i32.const 1048576) (i32.const 4000) (i64.const 1)))
        (start $start))
    (core instance $i (instantiate $m (with "host" (instance
        (export "memory" (memory $bytes))
        (export "count" (func $lowered))))))
    (func $run (canon lift (core func $i "run")))
    (instance $descriptor (export "describe" (func $run)))
    (export "warren:worker/descriptor@0.1.0" (instance $descriptor))
    (instance $handler (export "handle" (func $run)))
    (export "warren:worker/handler@0.1.0" (instance $handler)))"#;

#[tokio::test]
async fn a_guest_that_names_the_same_bytes_many_times_does_not_fill_the_host() {
    refused_text(AMPLIFYING, "probe", &["raise `payload`"]).await;
}
