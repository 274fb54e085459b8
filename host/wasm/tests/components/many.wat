;; A hundred calls of a host function that are in flight at once, awaited together: asynchronous lowering,
;; a waitable set, and a callback that counts what has returned.
(component
  (import "my:app/kv@1.0.0" (instance $kv
    (export "get" (func async (param "key" u32) (result u32)))))
  (core module $libc (memory (export "memory") 1))
  (core instance $libc (instantiate $libc))
  (core func $get (canon lower (func $kv "get") async (memory (core memory $libc "memory"))))
  (core func $new-set (canon waitable-set.new))
  (core func $join (canon waitable.join))
  (core func $drop (canon subtask.drop))
  (core func $return (canon task.return (result u32)))
  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "get" (func $get (param i32 i32) (result i32)))
    (import "host" "new-set" (func $new-set (result i32)))
    (import "host" "join" (func $join (param i32 i32)))
    (import "host" "drop" (func $drop (param i32)))
    (import "host" "return" (func $return (param i32)))
    (global $set (mut i32) (i32.const 0))
    (global $open (mut i32) (i32.const 0))
    ;; What comes next: the end (0), or a wait for the set (2).
    (func $next (result i32)
      (local $i i32) (local $sum i32)
      (if (global.get $open)
        (then (return (i32.or (i32.const 2) (i32.shl (global.get $set) (i32.const 4))))))
      (loop $each
        (local.set $sum (i32.add (local.get $sum)
          (i32.load (i32.shl (local.get $i) (i32.const 2)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $each (i32.lt_u (local.get $i) (i32.const 100))))
      (call $return (local.get $sum))
      (i32.const 0))
    (func (export "run") (result i32)
      (local $i i32) (local $status i32)
      (global.set $set (call $new-set))
      (loop $each
        (local.set $status
          (call $get (local.get $i) (i32.shl (local.get $i) (i32.const 2))))
        ;; 2 in the low bits: it has returned already.
        (if (i32.ne (i32.and (local.get $status) (i32.const 15)) (i32.const 2))
          (then
            (call $join (i32.shr_u (local.get $status) (i32.const 4)) (global.get $set))
            (global.set $open (i32.add (global.get $open) (i32.const 1)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $each (i32.lt_u (local.get $i) (i32.const 100))))
      (call $next))
    (func (export "callback") (param $event i32) (param $subtask i32) (param $state i32) (result i32)
      ;; A subtask (1) that has returned (2).
      (if (i32.and (i32.eq (local.get $event) (i32.const 1)) (i32.eq (local.get $state) (i32.const 2)))
        (then
          (call $drop (local.get $subtask))
          (global.set $open (i32.sub (global.get $open) (i32.const 1)))))
      (call $next)))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "get" (func $get))
      (export "new-set" (func $new-set))
      (export "join" (func $join))
      (export "drop" (func $drop))
      (export "return" (func $return))))))
  (func (export "run") async (result u32)
    (canon lift (core func $main "run") async (callback (core func $main "callback")))))
