"""`wakebox tasks` in gdb: the tasks of a guest that have not ended, and what each waits for.

`wakebox gdb-script` has written this for guests of its own version. What a guest says of its tasks is its own
statement: it is bounded, and escaped.
"""

import struct

import gdb

CONTROL = @CONTROL@
# Those of the processors, if there are several.
CONTROLS = @CONTROLS@
PAGE = @PAGE@
PROCESSORS = @PROCESSORS@
TASKS = @TASKS@
MORE_TASKS = @MORE_TASKS@
LISTS = @LISTS@
TYPE_NAME = @TYPE_NAME@
SINCE = @SINCE@
ENTRY = @ENTRY@
MORE_SHIFT = @MORE_SHIFT@
MOST = 256
NAME = 256


def memory(address, length):
    """Bytes of the guest; fewer than that are none."""
    try:
        return gdb.selected_inferior().read_memory(address, length).tobytes()
    except (gdb.error, OverflowError):
        return b""


def words(address, count):
    found = memory(address, 8 * count)
    return struct.unpack("<%dQ" % count, found) if len(found) == 8 * count else None


def text(address, length):
    found = memory(address, min(length, NAME)).decode("utf-8", "replace")
    return "".join(c if c.isprintable() else "\\x%02x" % ord(c) for c in found)


def short(name):
    """What a person would call a future of this type."""
    at = name.find("<", 1)
    name = name if at < 0 else name[:at]
    closure = "::{{closure}}"
    closures = 0
    while name.endswith(closure):
        name = name[: -len(closure)]
        closures += 1
    name = name if name.startswith("<") else name.split("::")[-1]
    return name + ("::{async}" if closures > 1 else "")


def holder(found):
    """Who holds a lock."""
    if found is None or found[3] >> 32 == 0:
        return " that nobody holds"
    file, since, place, rest = found
    at = "%s:%d:%d" % (text(file, place & 0xFFFFFFFF), place >> 32, rest & 0xFFFFFFFF)
    return " that task %d holds, taken at %s at %.3f s" % (rest >> 32, at, since / 1e9)


def waits(state, detail):
    if state == 1:
        return "is being polled"
    if state == 2:
        return "waits for an operation of the host, in slot %d" % (detail & 0xFFFFFFFF)
    if state == 3:
        return "waits for a timer, at %.3f s" % (detail / 1e9)
    if state == 4:
        return "waits for the end of task %d" % detail
    if state == 5:
        return "waits for room for an operation"
    if state == 6:
        return "waits to be restored from a template"
    if state == 7:
        return "waits for a lock" + holder(words(detail, 4))
    return "waits for another task: a lock, a channel, a waker"


def listed(oldest, tasks):
    """Adds the tasks of a list, which may say that they stand in a circle."""
    for _ in range(MOST):
        at = oldest
        entry = words(at, 7) if at else None
        if entry is None:
            return
        oldest, name, file, detail, lengths, place, rest = entry
        state = rest >> 32
        called = text(name, lengths & 0xFFFFFFFF)
        called = short(called) if state & TYPE_NAME else called
        file = text(file, lengths >> 32)
        spawned = "" if not file else ", spawned at %s:%d:%d" % (file, place & 0xFFFFFFFF, place >> 32)
        more = state >> MORE_SHIFT
        others = "" if not more else ", or for %d more" % more
        polled = words(at + ENTRY, 1) if state & SINCE else None
        since = "" if polled is None else ", polled last at %.3f s" % (polled[0] / 1e9)
        number = rest & 0xFFFFFFFF
        waited = waits(state & 0xFF, detail)
        tasks[number] = "`%s` (%d%s) %s%s%s" % (called, number, spawned, waited, others, since)


def of_processor(control, tasks):
    """Adds what a processor tells of. Returns whether it is there."""
    own, more = words(control + TASKS, 1), words(control + MORE_TASKS, 1)
    if own is None or more is None:
        return False
    oldest = words(own[0], 1) if own[0] else None
    if oldest:
        listed(oldest[0], tasks)
    after = more[0]
    for _ in range(LISTS):
        found = words(after, 2) if after else None
        if found is None:
            break
        listed(found[0], tasks)
        after = found[1]
    return True


class Wakebox(gdb.Command):
    """What a Wakebox guest tells of itself."""

    def __init__(self):
        super().__init__("wakebox", gdb.COMMAND_STATUS, prefix=True)


class Tasks(gdb.Command):
    """The tasks of a Wakebox guest that have not ended, and what each waits for."""

    def __init__(self):
        super().__init__("wakebox tasks", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        tasks = {}
        processor = 0
        while processor < PROCESSORS and of_processor(CONTROLS + processor * PAGE, tasks):
            processor += 1
        if processor == 0 and not of_processor(CONTROL, tasks):
            raise gdb.GdbError("this is no guest of Wakebox, or its memory is not here")
        for number in sorted(tasks):
            print(tasks[number])
        if not tasks:
            print("the guest has no tasks that it tells of")


Wakebox()
Tasks()
