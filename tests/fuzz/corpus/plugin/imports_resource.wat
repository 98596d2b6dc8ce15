(component
    (import "wasi:io/error@0.2.0" (instance $error
        (export "error" (type $error (sub resource)))
        (export "[method]error.to-debug-string" (func (param "self" (borrow $error)) (result string)))))
    (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clock
        (export "now" (func (result u64)))))
    (alias export $clock "now" (func $now))
    (core func $lowered (canon lower (func $now)))
    (core module $m
        (import "host" "now" (func $now (result i64)))
        (memory (export "memory") 2 300)
        (table 10 100000 funcref)
        (global $g (mut i32) (i32.const 0))
        (func (export "run")
            (global.set $g (memory.grow (i32.const 100)))
            (drop (call $now)))
        (func $start (call 1))
        (start $start))
    (core instance $i (instantiate $m (with "host" (instance (export "now" (func $lowered))))))
    (func $run (canon lift (core func $i "run")))
    (instance $descriptor (export "describe" (func $run)))
    (export "warren:worker/descriptor@0.1.0" (instance $descriptor))
    (instance $handler (export "handle" (func $run)))
    (export "warren:worker/handler@0.1.0" (instance $handler)))
