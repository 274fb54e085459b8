;; Gives a host function what another has given: every kind of type that travels, unread.
(component
  (import "my:app/carry" (instance $carry
    (type $kind (enum "small" "large")) (export "kind" (type $kind-out (eq $kind)))
    (type $rights (flags "read" "write" "run")) (export "rights" (type $rights-out (eq $rights)))
    (type $shape (variant (case "none") (case "circle" f64) (case "named" string)))
    (export "shape" (type $shape-out (eq $shape)))
    (type $all (record
      (field "list" (list (tuple u8 s16)))
      (field "text" (option string))
      (field "result" (result char (error f64)))
      (field "done" (result))
      (field "shapes" (list $shape-out))
      (field "kind" $kind-out)
      (field "rights" $rights-out)
      (field "numbers" (tuple u8 s8 u16 s32 u32 s64 u64 f32 bool))))
    (export "all" (type $all-out (eq $all)))
    (export "make" (func (result $all-out)))
    (export "check" (func (param "all" $all-out) (result bool)))))
  (core module $libc
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.set $next (i32.add (global.get $next) (i32.const 256)))
      (global.get $next)))
  (core instance $libc (instantiate $libc))
  (core func $make (canon lower (func $carry "make")
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core func $check (canon lower (func $carry "check") (memory (core memory $libc "memory"))))
  (core module $main
    (import "host" "make" (func $make (param i32)))
    (import "host" "check" (func $check (param i32) (result i32)))
    ;; More than sixteen words go through memory, as results do.
    (func (export "run") (result i32) (call $make (i32.const 64)) (call $check (i32.const 64))))
  (core instance $main (instantiate $main
    (with "host" (instance (export "make" (func $make)) (export "check" (func $check))))))
  (func (export "run") (result u32) (canon lift (core func $main "run"))))
