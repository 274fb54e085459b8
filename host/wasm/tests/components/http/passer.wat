;; Asks another, in WASI 0.3.
(import "wasi:http/types@0.3.0" "[method]request.set-authority" (func $set-authority (param i32 i32 i32 i32) (result i32)))
(import "wasi:http/client@0.3.0" "send" (func $http-send (param i32 i32)))
;; Asks an authority the same, and answers what it answers.
(func $pass (param $request i32) (param $to i32) (param $length i32)
  (drop (call $set-authority (local.get $request) (i32.const 1) (local.get $to) (local.get $length)))
  (call $http-send (local.get $request) (i32.const 1024))
  (call $http-return
    (i32.load8_u (i32.const 1024)) (select (i32.load8_u (i32.const 1032)) (i32.load (i32.const 1032)) (i32.load8_u (i32.const 1024)))
    (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)))
