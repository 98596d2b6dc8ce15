(component
    (import "warren:worker/context@0.1.0" (instance $context
        (export "attempt" (func (result u32)))))
    (alias export $context "attempt" (func $ask))
    (core func $said (canon lower (func $ask)))
    (core module $m
        (import "host" "ask" (func $ask (result i32)))
        (func (export "run"))
        (func $start (drop (call $ask)))
        (start $start))
    (core instance $i (instantiate $m
        (with "host" (instance (export "ask" (func $said))))))
    (func $run (canon lift (core func $i "run")))
    (instance $descriptor (export "describe" (func $run)))
    (export "warren:worker/descriptor@0.1.0" (instance $descriptor))
    (instance $handler (export "handle" (func $run)))
    (export "warren:worker/handler@0.1.0" (instance $handler)))
