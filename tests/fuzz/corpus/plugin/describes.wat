(component
    (core module $m
        (memory (export "memory") 1)
        (data (i32.const 0)
            "\40\00\00\00\02\00\00\00\42\00\00\00\05\00\00\00\47\00\00\00\05\00\00\00"
            "\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00\00")
        (data (i32.const 64) "FZ1.0.0fuzzy")
        (func (export "describe") (result i32) i32.const 0))
    (core instance $i (instantiate $m))
    (alias core export $i "memory" (core memory $memory))
    (type $made (record
        (field "worker-type" string) (field "version" string) (field "summary" string)
        (field "accepts" (list string))
        (field "annotations" (list (tuple string string)))))
    (func $describe (result $made)
        (canon lift (core func $i "describe") (memory $memory)))
    (component $named
        (type $pairs (record
            (field "worker-type" string) (field "version" string) (field "summary" string)
            (field "accepts" (list string))
            (field "annotations" (list (tuple string string)))))
        (import "type" (type $made (eq $pairs)))
        (import "function" (func $function (result $made)))
        (export $description "description" (type $pairs))
        (export "describe" (func $function) (func (result $description))))
    (instance $descriptor (instantiate $named
        (with "type" (type $made)) (with "function" (func $describe))))
    (export "warren:worker/descriptor@0.1.0" (instance $descriptor))
    (core module $n (func (export "run")))
    (core instance $j (instantiate $n))
    (func $run (canon lift (core func $j "run")))
    (instance $handler (export "handle" (func $run)))
    (export "warren:worker/handler@0.1.0" (instance $handler)))
