;; A program of WASI 0.3, which exits with the code that its `run` gives, or else with 7 if nobody says where it is
;; and its numbers differ.
(component
  (import "wasi:cli/environment@0.3.0" (instance $environment
    (export "get-initial-cwd" (func (result (option string))))))
  (import "wasi:cli/exit@0.3.0" (instance $exit
    (export "exit-with-code" (func (param "status-code" u8)))))
  (import "wasi:random/insecure@0.3.0" (instance $random
    (export "get-insecure-random-u64" (func (result u64)))))
  (import "wasi:random/insecure-seed@0.3.0" (instance $seed
    (export "get-insecure-seed" (func (result (tuple u64 u64))))))
  (core module $libc
    (memory (export "memory") 1)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024)))
  (core instance $libc (instantiate $libc))
  (core func $cwd (canon lower (func $environment "get-initial-cwd")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $exit (canon lower (func $exit "exit-with-code")))
  (core func $number (canon lower (func $random "get-insecure-random-u64")))
  (core func $seed (canon lower (func $seed "get-insecure-seed") (memory (core memory $libc "memory"))))
  (core func $return (canon task.return (result (result))))
  (core module $main
    (import "libc" "memory" (memory 1))
    (import "host" "cwd" (func $cwd (param i32)))
    (import "host" "exit" (func $exit (param i32)))
    (import "host" "number" (func $number (result i64)))
    (import "host" "seed" (func $seed (param i32)))
    (import "host" "return" (func $return (param i32)))
    (func (export "run") (result i32)
      (call $cwd (i32.const 16))
      (call $seed (i32.const 32))
      (if (i32.and (i32.eqz (i32.load8_u (i32.const 16))) (i32.and
          (i64.ne (call $number) (call $number))
          (i64.ne (i64.load (i32.const 32)) (i64.load (i32.const 40)))))
        (then (call $exit (i32.const 7))))
      ;; An error.
      (call $return (i32.const 1))
      (i32.const 0))
    (func (export "callback") (param i32 i32 i32) (result i32) unreachable))
  (core instance $main (instantiate $main
    (with "libc" (instance $libc))
    (with "host" (instance
      (export "cwd" (func $cwd))
      (export "exit" (func $exit))
      (export "number" (func $number))
      (export "seed" (func $seed))
      (export "return" (func $return))))))
  (func $run async (result (result))
    (canon lift (core func $main "run") async (callback (core func $main "callback"))))
  (instance $program (export "run" (func $run)))
  (export "wasi:cli/run@0.3.0" (instance $program)))
