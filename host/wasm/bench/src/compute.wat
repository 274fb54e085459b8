;; Programs that compute: calls, bytes in order, a chain of loads, numbers with a fraction, and a table.
(component
  (core module $main
    (memory 256)
    (func $fib (export "fib") (param $n i32) (result i32)
      (if (result i32) (i32.lt_u (local.get $n) (i32.const 2))
        (then (local.get $n))
        (else (i32.add
          (call $fib (i32.sub (local.get $n) (i32.const 1)))
          (call $fib (i32.sub (local.get $n) (i32.const 2)))))))
    ;; How many primes are below.
    (func (export "sieve") (param $n i32) (result i32)
      (local $i i32) (local $j i32) (local $count i32)
      (memory.fill (i32.const 0) (i32.const 0) (local.get $n))
      (local.set $i (i32.const 2))
      (loop $each
        (if (i32.eqz (i32.load8_u (local.get $i)))
          (then
            (local.set $count (i32.add (local.get $count) (i32.const 1)))
            (local.set $j (i32.shl (local.get $i) (i32.const 1)))
            (block $done (loop $strike
              (br_if $done (i32.ge_u (local.get $j) (local.get $n)))
              (i32.store8 (local.get $j) (i32.const 1))
              (local.set $j (i32.add (local.get $j) (local.get $i)))
              (br $strike)))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $each (i32.lt_u (local.get $i) (local.get $n))))
      (local.get $count))
    ;; A chain through all of a million words, each of which says where the next is.
    (func (export "chase") (param $steps i32) (result i32)
      (local $i i32) (local $at i32)
      (loop $each
        (i32.store (i32.shl (local.get $i) (i32.const 2))
          (i32.and
            (i32.add (i32.mul (local.get $i) (i32.const 1664525)) (i32.const 1013904223))
            (i32.const 0xfffff)))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $each (i32.lt_u (local.get $i) (i32.const 0x100000))))
      (loop $each
        (local.set $at (i32.load (i32.shl (local.get $at) (i32.const 2))))
        (local.set $steps (i32.sub (local.get $steps) (i32.const 1)))
        (br_if $each (local.get $steps)))
      (local.get $at))
    (func (export "matmul") (param $n i32) (result i32)
      (local $i i32) (local $j i32) (local $k i32) (local $sum f64)
      (loop $each
        (f64.store (i32.shl (local.get $i) (i32.const 3))
          (f64.convert_i32_u (i32.and (local.get $i) (i32.const 15))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $each (i32.lt_u (local.get $i) (i32.const 0x40000))))
      (local.set $i (i32.const 0))
      (loop $rows
        (local.set $j (i32.const 0))
        (loop $columns
          (local.set $k (i32.const 0))
          (loop $parts
            (local.set $sum (f64.add (local.get $sum) (f64.mul
              (f64.load (i32.shl (i32.add (i32.mul (local.get $i) (local.get $n)) (local.get $k)) (i32.const 3)))
              (f64.load (i32.shl (i32.add (i32.mul (local.get $k) (local.get $n)) (local.get $j)) (i32.const 3))))))
            (local.set $k (i32.add (local.get $k) (i32.const 1)))
            (br_if $parts (i32.lt_u (local.get $k) (local.get $n))))
          (local.set $j (i32.add (local.get $j) (i32.const 1)))
          (br_if $columns (i32.lt_u (local.get $j) (local.get $n))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $rows (i32.lt_u (local.get $i) (local.get $n))))
      (i32.trunc_sat_f64_u (local.get $sum)))
    ;; CRC-32 of so many bytes, by a table at 8 MiB.
    (func (export "crc") (param $n i32) (result i32)
      (local $i i32) (local $j i32) (local $crc i32)
      (loop $entries
        (local.set $crc (local.get $i))
        (local.set $j (i32.const 8))
        (loop $bits
          (local.set $crc (i32.xor (i32.shr_u (local.get $crc) (i32.const 1))
            (i32.and (i32.const 0xedb88320) (i32.sub (i32.const 0) (i32.and (local.get $crc) (i32.const 1))))))
          (local.set $j (i32.sub (local.get $j) (i32.const 1)))
          (br_if $bits (local.get $j)))
        (i32.store (i32.add (i32.const 0x800000) (i32.shl (local.get $i) (i32.const 2))) (local.get $crc))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $entries (i32.lt_u (local.get $i) (i32.const 256))))
      (local.set $i (i32.const 0))
      (local.set $crc (i32.const -1))
      (loop $each
        (local.set $crc (i32.xor (i32.shr_u (local.get $crc) (i32.const 8))
          (i32.load (i32.add (i32.const 0x800000) (i32.shl
            (i32.and (i32.xor (local.get $crc) (i32.load8_u (local.get $i))) (i32.const 255))
            (i32.const 2))))))
        (local.set $i (i32.add (local.get $i) (i32.const 1)))
        (br_if $each (i32.lt_u (local.get $i) (local.get $n))))
      (i32.xor (local.get $crc) (i32.const -1))))
  (core instance $main (instantiate $main))
  (func (export "fib") (param "n" u32) (result u32) (canon lift (core func $main "fib")))
  (func (export "sieve") (param "n" u32) (result u32) (canon lift (core func $main "sieve")))
  (func (export "chase") (param "n" u32) (result u32) (canon lift (core func $main "chase")))
  (func (export "matmul") (param "n" u32) (result u32) (canon lift (core func $main "matmul")))
  (func (export "crc") (param "n" u32) (result u32) (canon lift (core func $main "crc"))))
