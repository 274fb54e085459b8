#!/bin/sh
# Runs a server until it is interrupted, which is its end and no error.
"$@" &
child=$!
trap 'kill -INT $child' INT TERM
wait $child
code=$?
while kill -0 $child 2>/dev/null; do
    wait $child
    code=$?
done
[ $code = 130 ] && code=0
exit $code
