;; Polls ten timers, of which the eighth is due first; gives its index.
(component
  (import "wasi:io/poll@0.2.3" (instance $poll
    (export "pollable" (type $pollable (sub resource)))
    (export "poll" (func (param "in" (list (borrow $pollable))) (result (list u32))))))
  (alias export $poll "pollable" (type $pollable))
  (import "wasi:clocks/monotonic-clock@0.2.3" (instance $clock
    (alias outer 1 $pollable (type $outer-pollable))
    (export "pollable" (type $pollable (eq $outer-pollable)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pollable))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $poll (canon lower (func $poll "poll")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $subscribe (canon lower (func $clock "subscribe-duration")))
  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "poll" (func $poll (param i32 i32 i32)))
    (import "host" "subscribe" (func $subscribe (param i64) (result i32)))
    (func (export "run") (result i32)
      (local $i i32)
      (loop $each
        (i32.store (i32.shl (local.get $i) (i32.const 2))
          (call $subscribe (if (result i64) (i32.eq (local.get $i) (i32.const 7))
            (then (i64.const 1000000))
            (else (i64.const 1000000000000)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $each (i32.lt_u (local.get $i) (i32.const 10))))
      ;; The list of those that are ready: its address and length.
      (call $poll (i32.const 0) (i32.const 10) (i32.const 512))
      (i32.load (i32.load (i32.const 512)))))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance (export "poll" (func $poll)) (export "subscribe" (func $subscribe))))))
  (func (export "run") (result u32) (canon lift (core func $main "run"))))
