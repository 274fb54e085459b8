;; What programs of preview 1 are made of. Results lie at 1024, the list of pieces at 1000.
(memory (export "memory") 4)
;; A line on standard output.
(func $text (param $at i32) (param $length i32)
  (i32.store (i32.const 1000) (local.get $at))
  (i32.store (i32.const 1004) (local.get $length))
  (i32.store (i32.const 1008) (i32.const 1020))
  (i32.store (i32.const 1012) (i32.const 1))
  (i32.store8 (i32.const 1020) (i32.const 10))
  (if (call $fd_write (i32.const 1) (i32.const 1000) (i32.const 2) (i32.const 1016)) (then unreachable)))
;; A number, as a line.
(func $say (param $number i32) (local $at i32)
  (local.set $at (i32.const 990))
  (loop $more
    (local.set $at (i32.sub (local.get $at) (i32.const 1)))
    (i32.store8 (local.get $at) (i32.add (i32.const 48) (i32.rem_u (local.get $number) (i32.const 10))))
    (local.set $number (i32.div_u (local.get $number) (i32.const 10)))
    (br_if $more (local.get $number)))
  (call $text (local.get $at) (i32.sub (i32.const 990) (local.get $at))))
;; Beneath the first directory, for reading 2, writing 64; with create 1, directory 2, exclusive 4,
;; truncate 8. Gives the descriptor, or 1000 and an error's number.
(func $open (param $path i32) (param $length i32) (param $how i32) (param $rights i64) (param $mode i32) (result i32)
  (local $errno i32)
  (local.set $errno (call $path_open (i32.const 3) (i32.const 1) (local.get $path) (local.get $length) (local.get $how)
    (local.get $rights) (i64.const 0) (local.get $mode) (i32.const 1024)))
  (select (i32.add (i32.const 1000) (local.get $errno)) (i32.load (i32.const 1024)) (local.get $errno)))
(func $piece (param $at i32) (param $length i32)
  (i32.store (i32.const 1000) (local.get $at))
  (i32.store (i32.const 1004) (local.get $length)))
(func $write (param $fd i32) (param $at i32) (param $length i32) (result i32)
  (call $piece (local.get $at) (local.get $length))
  (call $fd_write (local.get $fd) (i32.const 1000) (i32.const 1) (i32.const 1024)))
;; Says up to so many bytes.
(func $read (param $fd i32) (param $most i32) (result i32) (local $errno i32)
  (call $piece (i32.const 65536) (local.get $most))
  (local.set $errno (call $fd_read (local.get $fd) (i32.const 1000) (i32.const 1) (i32.const 1024)))
  (if (i32.eqz (local.get $errno)) (then (call $text (i32.const 65536) (i32.load (i32.const 1024)))))
  (local.get $errno))
;; Sets the cursor, and says where it is.
(func $seek (param $fd i32) (param $by i64) (param $whence i32) (result i32) (local $errno i32)
  (local.set $errno (call $fd_seek (local.get $fd) (local.get $by) (local.get $whence) (i32.const 1024)))
  (if (i32.eqz (local.get $errno)) (then (call $say (i32.load (i32.const 1024)))))
  (local.get $errno))
;; Its type, and ten times its size; or 1000 and an error's number.
(func $stat (param $path i32) (param $length i32) (result i32) (local $errno i32)
  (local.set $errno (call $path_filestat_get (i32.const 3) (i32.const 0) (local.get $path) (local.get $length) (i32.const 1024)))
  (select (i32.add (i32.const 1000) (local.get $errno))
    (i32.add (i32.load8_u (i32.const 1040)) (i32.mul (i32.const 10) (i32.load (i32.const 1056))))
    (local.get $errno)))
;; Says the names in a directory, with room for so many bytes at once.
(func $list (param $fd i32) (param $room i32) (result i32) (local $at i32) (local $end i32) (local $cookie i64) (local $next i32)
  (loop $more
    (if (call $fd_readdir (local.get $fd) (i32.const 65536) (local.get $room) (local.get $cookie) (i32.const 1024))
      (then (return (i32.const 1))))
    (local.set $at (i32.const 65536))
    (local.set $end (i32.add (local.get $at) (i32.load (i32.const 1024))))
    (block $batch
      (loop $entry
        (br_if $batch (i32.gt_u (i32.add (local.get $at) (i32.const 24)) (local.get $end)))
        (local.set $next (i32.add (i32.add (local.get $at) (i32.const 24)) (i32.load offset=16 (local.get $at))))
        (br_if $batch (i32.gt_u (local.get $next) (local.get $end)))
        (call $text (i32.add (local.get $at) (i32.const 24)) (i32.load offset=16 (local.get $at)))
        (local.set $cookie (i64.load (local.get $at)))
        (local.set $at (local.get $next))
        (br $entry)))
    ;; Less than there was room for: that is the end.
    (br_if $more (i32.eq (i32.load (i32.const 1024)) (local.get $room))))
  (i32.const 0))
;; Asks for a clock in a list of things to wait for: the monotonic, so many nanoseconds from now.
(func $wish (param $index i32) (param $after i64) (local $at i32)
  (local.set $at (i32.add (i32.const 65536) (i32.mul (local.get $index) (i32.const 48))))
  (i64.store (local.get $at) (i64.extend_i32_u (local.get $index)))
  (i32.store offset=16 (local.get $at) (i32.const 1))
  (i64.store offset=24 (local.get $at) (local.get $after)))
