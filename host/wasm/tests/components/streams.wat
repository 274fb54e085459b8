;; Streams of bytes of WASI 0.3, and waiting. What a stream or a future tells lies at 2048.
(import "$root" "[waitable-set-new]" (func $set-new (result i32)))
(import "$root" "[waitable-set-wait]" (func $set-wait (param i32 i32) (result i32)))
(import "$root" "[waitable-set-drop]" (func $set-drop (param i32)))
(import "$root" "[waitable-join]" (func $join (param i32 i32)))
(import "STREAMS" "[stream-new-0]FUNCTION" (func $stream-new (result i64)))
(import "STREAMS" "[async-lower][stream-read-0]FUNCTION" (func $stream-read (param i32 i32 i32) (result i32)))
(import "STREAMS" "[async-lower][stream-write-0]FUNCTION" (func $stream-write (param i32 i32 i32) (result i32)))
(import "STREAMS" "[stream-cancel-read-0]FUNCTION" (func $stream-cancel (param i32) (result i32)))
(import "STREAMS" "[stream-drop-readable-0]FUNCTION" (func $end-read (param i32)))
(import "STREAMS" "[stream-drop-writable-0]FUNCTION" (func $end-write (param i32)))
(global $writer (mut i32) (i32.const 0))
;; What becomes of an operation of this stream or future, which may have to be awaited: how many values 16 times, and
;; 1 if the other end is gone.
(func $awaited (param $of i32) (param $code i32) (result i32) (local $set i32)
  (if (i32.ne (local.get $code) (i32.const -1)) (then (return (local.get $code))))
  (local.set $set (call $set-new))
  (call $join (local.get $of) (local.get $set))
  (drop (call $set-wait (local.get $set) (i32.const 2048)))
  (call $join (local.get $of) (i32.const 0))
  (call $set-drop (local.get $set))
  (i32.load (i32.const 2052)))
;; Reads up to so many bytes to there.
(func $receive (param $stream i32) (param $at i32) (param $most i32) (result i32)
  (call $awaited (local.get $stream) (call $stream-read (local.get $stream) (local.get $at) (local.get $most))))
;; Writes a part.
(func $send-part (param $stream i32) (param $bytes i32) (param $length i32) (result i32)
  (call $awaited (local.get $stream) (call $stream-write (local.get $stream) (local.get $bytes) (local.get $length))))
;; Writes all, as long as anybody reads; gives how many bytes were.
(func $write-all (param $stream i32) (param $bytes i32) (param $length i32) (result i32) (local $code i32) (local $sent i32)
  (loop $more
    (local.set $code (call $send-part (local.get $stream)
      (i32.add (local.get $bytes) (local.get $sent)) (i32.sub (local.get $length) (local.get $sent))))
    (local.set $sent (i32.add (local.get $sent) (i32.shr_u (local.get $code) (i32.const 4))))
    (if (i32.and (i32.eqz (i32.and (local.get $code) (i32.const 15))) (i32.lt_u (local.get $sent) (local.get $length)))
      (then (br $more))))
  (local.get $sent))
;; Makes a stream: the end that is read; the other is `$writer`.
(func $stream (result i32) (local $both i64)
  (local.set $both (call $stream-new))
  (global.set $writer (i32.wrap_i64 (i64.shr_u (local.get $both) (i64.const 32))))
  (i32.wrap_i64 (local.get $both)))
