(component
    (core module $m
        (func (export "run"))
        (func $start (local $n i32)
            (loop $again
                (br_if $again (i32.lt_u
                    (local.tee $n (i32.add (local.get $n) (i32.const 1)))
                    (i32.const 100000)))))
        (start $start))
    (core instance $i (instantiate $m))
    (func $run (canon lift (core func $i "run")))
    (instance $descriptor (export "describe" (func $run)))
    (export "warren:worker/descriptor@0.1.0" (instance $descriptor))
    (instance $handler (export "handle" (func $run)))
    (export "warren:worker/handler@0.1.0" (instance $handler)))
