(() => {
  "use strict";

  // ---- Reading -----------------------------------------------------------------------------

  /** The events of the block of data: one JSON value a line. A last line that was cut off is left out. */
  function read(text) {
    const lines = text.split("\n").filter((line) => line !== "");
    let values;
    let cut = false;
    try {
      values = JSON.parse(`[${lines.join(",")}]`);
    } catch {
      values = [];
      for (const line of lines) {
        try {
          values.push(JSON.parse(line));
        } catch {
          cut = true;
          break;
        }
      }
    }
    const last = values[values.length - 1];
    const end = last && last.summary ? values.pop() : null;
    return { events: values, summary: end && end.summary, leftOut: end ? end.left_out : 0, cut: cut || !end || end.summary.outcome === null };
  }

  // ---- The model: what the events say, put together -------------------------------------------

  /** `"entered"` and `{"poll_begin": {...}}` alike as name and content. */
  function split(value) {
    if (typeof value === "string") return [value, null];
    const name = Object.keys(value)[0];
    return [name, value[name]];
  }

  function build(events) {
    const model = {
      tasks: new Map(), polls: [], wakes: [], ops: new Map(), timers: new Map(), vcpus: [], holes: [], upcalls: [], start: 0, end: 1,
      // The longest poll that others interrupt: those may begin after it and end before it.
      longest: 0,
      started: null, finished: null,
    };
    /** A processor, by its number, and what is under way on it. */
    const processor = (number) => {
      while (model.vcpus.length <= number) {
        const open = { poll: null, upcalls: [], inside: null, parked: null, away: null, sleeps: null };
        model.vcpus.push({ number: model.vcpus.length, name: `vCPU ${model.vcpus.length}`, polls: [], inside: [], parked: [], away: [], sleeps: [], marks: [], deadlines: [], open });
      }
      return model.vcpus[number];
    };
    processor(0);
    const task = (id) => {
      let found = model.tasks.get(id);
      if (!found) {
        found = { id, name: `task ${id}`, place: null, by: null, from: null, begin: null, end: null, aborted: false, polls: [], upcalls: [], wakes: [], wake: null };
        model.tasks.set(id, found);
      }
      return found;
    };
    /** The last poll of a task: where it spawned one of another processor. */
    const lastPoll = (id) => (id !== null && model.tasks.has(id) && model.tasks.get(id).polls.slice(-1)[0]) || null;
    const op = (id) => {
      let found = model.ops.get(id);
      if (!found) {
        found = { id, what: "operation", bytes: 0, poll: null, by: null, submitted: null, cancelled: null, begin: null, ready: [], end: null, status: null, moved: null, written: null, vcpu: model.vcpus[0] };
        model.ops.set(id, found);
      }
      return found;
    };
    for (const event of events) {
      const time = event.time;
      const vcpu = processor(Math.min(event.processor ?? 0, PROCESSORS - 1));
      const { open } = vcpu;
      const close = (name, more) => {
        if (open[name]) Object.assign(open[name], { end: time }, more);
        open[name] = null;
      };
      const [name, value] = split(event.kind);
      switch (name) {
        case "started": model.started = value; processor(Math.min(value.processors ?? 1, PROCESSORS) - 1); break;
        case "finished": model.finished = value; break;
        case "spawned": {
          Object.assign(task(value.task), { name: value.name || `task ${value.task}`, place: value.place, by: value.by, begin: time, from: open.poll || lastPoll(value.by), vcpu });
          break;
        }
        case "lives": task(value.task).name = value.name || `task ${value.task}`; break;
        case "poll_begin": {
          const of = task(value.task);
          if (of.begin === null) of.begin = time;
          const poll = { index: model.polls.length, number: of.polls.length + 1, task: of, vcpu, begin: time, end: time, result: "cut", on: null, and: 0, wake: of.wake, first: of.polls.length === 0, spurious: false, upcall: open.upcalls[open.upcalls.length - 1] || null, upcalls: [] };
          of.wake = null;
          of.polls.push(poll);
          model.polls.push(poll);
          vcpu.polls.push(poll);
          open.poll = poll;
          break;
        }
        case "poll_end": {
          const poll = open.poll;
          open.poll = null;
          if (!poll || poll.task.id !== value.task) break;
          const [result, more] = split(value.result);
          poll.end = time;
          poll.result = result;
          if (more) { poll.on = more.on; poll.and = more.and; }
          poll.spurious = event.in_vain === true;
          break;
        }
        case "upcall_begin": {
          const upcall = { begin: time, end: null, poll: open.poll, interrupted: value.interrupted };
          model.upcalls.push(upcall);
          if (open.poll) { open.poll.upcalls.push(upcall); open.poll.task.upcalls.push(upcall); }
          if (open.upcalls.length < DEEPEST) { open.upcalls.push(upcall); open.poll = null; }
          break;
        }
        case "upcall_end": {
          const upcall = open.upcalls.pop();
          if (!upcall) break;
          upcall.end = time;
          open.poll = upcall.poll;
          break;
        }
        case "woken": {
          const of = task(value.task);
          const wake = { time, task: of, by: value.by, queued: value.queued, poll: open.poll, vcpu, target: null };
          if (value.queued) of.wake = wake;
          of.wakes.push(wake);
          model.wakes.push(wake);
          break;
        }
        case "ended": Object.assign(task(value.task), { end: time, aborted: value.aborted }); break;
        case "timer_set": model.timers.set(value.timer, { time, at: value.at, poll: open.poll }); break;
        case "sleeps": open.sleeps = { begin: time, end: null, how: value.how, by: null }; vcpu.sleeps.push(open.sleeps); break;
        case "awake": close("sleeps", { by: value.by }); break;
        case "submitted": Object.assign(op(value.op), { what: value.what, bytes: value.bytes, by: value.by, submitted: time, poll: open.poll, vcpu }); break;
        case "cancel_asked": op(value.op).cancelled = time; break;
        case "op_begins": Object.assign(op(value.op), { what: value.what, bytes: value.bytes, begin: time, vcpu }); break;
        case "op_ready": op(value.op).ready.push(time); break;
        case "op_ends": {
          const of = op(value.op);
          Object.assign(of, { what: value.what, end: time, status: value.status, moved: value.bytes });
          if (of.begin === null) of.begin = time;
          break;
        }
        case "completion_written": op(value.op).written = time; break;
        case "doorbell": vcpu.marks.push({ time, what: "doorbell", verb: value.verb }); break;
        case "detached": open.away = { begin: time, end: null }; vcpu.away.push(open.away); break;
        case "attached": close("away"); break;
        case "interrupt_injected": vcpu.marks.push({ time, what: "interrupt" }); break;
        case "interrupt_taken": vcpu.marks.push({ time, what: "taken" }); break;
        case "entered": open.inside = { begin: time, end: null, reason: null }; vcpu.inside.push(open.inside); break;
        case "exited": close("inside", { reason: value.reason }); break;
        case "parked": open.parked = { begin: time, end: null }; vcpu.parked.push(open.parked); break;
        case "resumed": close("parked"); break;
        case "lost": model.holes.push({ time, text: `${value.count} records lost` }); break;
        case "malformed": model.holes.push({ time, text: `${value.count} records without meaning: ${value.why}` }); break;
        default: break;
      }
    }
    if (events.length) {
      model.start = events[0].time;
      model.end = Math.max(events[events.length - 1].time, model.start + 1);
    }
    // What was not closed lasts to the end: the trace was cut off, or the guest died.
    const lists = model.vcpus.flatMap((vcpu) => [vcpu.inside, vcpu.parked, vcpu.away, vcpu.sleeps]);
    for (const list of [...lists, model.upcalls]) {
      for (const part of list) if (part.end === null) part.end = model.end;
    }
    for (const { open } of model.vcpus) {
      for (const poll of [open.poll, ...open.upcalls.map((upcall) => upcall.poll)]) if (poll) poll.end = model.end;
    }
    for (const poll of model.polls) if (poll.upcalls.length) model.longest = Math.max(model.longest, poll.end - poll.begin);
    for (const poll of model.polls) if (poll.wake) poll.wake.target = poll;
    const deadlines = [...model.ops.values()].filter((op) => op.what === "Deadline" && op.written !== null);
    deadlines.sort((a, b) => a.written - b.written);
    for (const op of deadlines) op.vcpu.deadlines.push(op);
    model.several = model.vcpus.length > 1;
    numberTasks(model);
    layOutOps(model);
    return model;
  }

  /** Tasks that are called the same have a number behind it. */
  function numberTasks(model) {
    const named = new Map();
    for (const task of model.tasks.values()) {
      if (!named.has(task.name)) named.set(task.name, []);
      named.get(task.name).push(task);
    }
    for (const [name, tasks] of named) {
      if (tasks.length > 1) tasks.forEach((task, index) => { task.name = `${name} #${index + 1}`; });
    }
  }

  const LANES = 10;
  /** Most processors. */
  const PROCESSORS = 64;
  /** Most sleeps of a processor that are told between a wake and the poll that it leads to. */
  const NAPS = 4;
  /** Most upcalls within upcalls. */
  const DEEPEST = 8;

  /** Bars of operations in lanes, none over another; those for which no lane is free share the last. */
  function layOutOps(model) {
    const begun = [...model.ops.values()].filter((op) => op.begin !== null);
    for (const op of begun) if (op.end === null) op.end = model.end;
    begun.sort((a, b) => a.begin - b.begin);
    model.lanes = [];
    model.crowd = { list: [], longest: 0 };
    for (const op of begun) {
      let lane = model.lanes.findIndex((list) => list[list.length - 1].end <= op.begin);
      if (lane < 0 && model.lanes.length < LANES) lane = model.lanes.push([]) - 1;
      if (lane < 0) {
        model.crowd.list.push(op);
        model.crowd.longest = Math.max(model.crowd.longest, op.end - op.begin);
        op.lane = LANES;
      } else {
        model.lanes[lane].push(op);
        op.lane = lane;
      }
    }
  }

  // ---- Time that is squeezed -----------------------------------------------------------------

  /**
   * A scale on which idle time is short: where nothing is inside of the guest and nothing happens, no gap is longer
   * than all that is not idle, shared among the gaps. `at[i]` of time is drawn at `on[i]`, linear between them.
   */
  function squeezed(model) {
    const busy = [];
    const add = (begin, end = begin) => { if (begin !== null && begin !== undefined) busy.push([begin, end]); };
    for (const vcpu of model.vcpus) for (const part of vcpu.inside) add(part.begin, part.end);
    for (const poll of model.polls) add(poll.begin, poll.end);
    for (const op of model.ops.values()) for (const time of [op.submitted, op.begin, op.end, op.written, ...op.ready]) add(time);
    for (const list of [model.wakes, model.holes]) for (const { time } of list) add(time);
    busy.sort((a, b) => a[0] - b[0]);
    const gaps = [];
    let until = model.start;
    for (const [begin, end] of [...busy, [model.end, model.end]]) {
      if (begin > until) gaps.push([until, begin]);
      until = Math.max(until, end);
    }
    const idle = gaps.reduce((sum, [begin, end]) => sum + (end - begin), 0);
    const most = Math.max(1, (model.end - model.start - idle) / Math.max(1, gaps.length));
    const scale = { at: [model.start], on: [0], gaps: [] };
    const mark = (time, length) => { scale.at.push(time); scale.on.push(scale.on[scale.on.length - 1] + length); };
    for (const [begin, end] of gaps) {
      if (end - begin <= most) continue;
      mark(begin, begin - scale.at[scale.at.length - 1]);
      mark(end, most);
      scale.gaps.push({ begin, end });
    }
    mark(model.end, model.end - scale.at[scale.at.length - 1]);
    return scale;
  }

  /** What stands in `to` where `value` stands in `from`, both sorted. */
  function between(value, from, to) {
    let low = 0;
    let high = from.length - 1;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (from[middle] <= value) low = middle;
      else high = middle;
    }
    const length = from[high] - from[low];
    return to[low] + (length ? ((value - from[low]) / length) * (to[high] - to[low]) : 0);
  }

  // ---- Words -------------------------------------------------------------------------------

  function span(ns) {
    const units = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]];
    for (const [unit, name] of units) {
      if (ns >= unit) return `${(ns / unit).toPrecision(4).replace(/\.?0+$/, "")} ${name}`;
    }
    return `${Math.round(ns)} ns`;
  }

  /** A point of time, counted from the beginning; with all digits that a step of `step` ns needs. */
  function moment(ns, step = 1) {
    const [unit, name] = [[1e9, "s"], [1e6, "ms"], [1e3, "µs"]].find(([unit]) => ns >= unit) || [1, "ns"];
    const digits = Math.max(0, Math.ceil(Math.log10(unit / step)));
    return `${(ns / unit).toFixed(digits)} ${name}`;
  }

  const count = (n, one, many = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
  const opName = (op) => `${op.what} #${op.id}`;

  function awaited(model, on) {
    if (!on || on === "unknown") return "something of the guest's own making";
    const [name, id] = split(on);
    switch (name) {
      case "op": return opName(model.ops.get(id) || { what: "operation", id });
      case "host_call": return "the next call by the host";
      case "timer": return `timer ${id}`;
      case "task": return `the end of ${taskName(model, id)}`;
      case "line": return "a slot among the operations in flight";
      case "restored": return "being restored from a template";
      default: return name;
    }
  }

  const taskName = (model, id) => (model.tasks.has(id) ? model.tasks.get(id).name : `task ${id}`);

  function causeText(model, by) {
    const [name, id] = split(by);
    switch (name) {
      case "itself": return "itself";
      case "task": return `task ${taskName(model, id)}`;
      case "op": return `the completion of ${opName(model.ops.get(id) || { what: "operation", id })}`;
      case "host_call": return "a call by the host";
      case "timer": return `timer ${id}`;
      case "interrupt": return "an interrupt";
      case "elsewhere": return "another thread";
      case "restored": return "the restore from a template";
      default: return "the guest's runtime";
    }
  }

  function pollEnd(model, poll) {
    if (poll.result === "ready") return "Ready: the task is done";
    if (poll.result === "cut") return "its end is not on record";
    if (!poll.on) return "Pending, on what it waited for before or on something of its own making";
    const more = poll.and ? ` and ${count(poll.and, "other thing")}` : "";
    return `Pending on ${awaited(model, poll.on)}${more}`;
  }

  const EXITS = {
    submit: "it rang: there are submissions", wait: "it rang: nothing to do", halt: "it halted",
    quantum: "its quantum was over", kick: "it was pulled out to be told something", exit: "it ended",
    abort: "it panicked", fault: "it raised an exception", violation: "it did what no guest may do",
    start: "it rang: another processor is to begin", nudge: "it rang: there is something for another processor",
  };
  const RINGS = { start: "another processor is to begin", nudge: "there is something for another processor" };
  const ROUSED = {
    memory: "sees it in memory, which it watched", out: "returns from out", interrupt: "takes an interrupt",
    timer: "goes on for a timer", nothing: "gives up watching",
  };
  const SLEEPS = { watch: "watches the completion ring", out: "leaves with out", halt: "halts until an interrupt" };

  // ---- Why a poll took place ------------------------------------------------------------------

  /**
   * Index of the first part of a sorted list whose `key` is at least `time`, not before `from`. Quick if
   * that is near.
   */
  function lower(list, time, key, from = 0) {
    let to = list.length;
    for (let reach = 1; from + reach < list.length; reach *= 2) {
      if (list[from + reach][key] >= time) { to = from + reach; break; }
    }
    while (from < to) {
      const middle = (from + to) >> 1;
      if (list[middle][key] < time) from = middle + 1;
      else to = middle;
    }
    return from;
  }

  /** The steps from the poll that asked to this one, oldest first. */
  function chain(model, poll) {
    const steps = [];
    const add = (time, side, text, more) => { if (time !== null && time !== undefined) steps.push({ time, side, text, ...more }); };
    const from = (cause, text) => { if (cause) add(cause.begin, "guest", `${cause.task.name}, poll ${cause.number}`, { poll: cause }); if (text) add(...text); };
    const wake = poll.wake;
    const of = poll.task;
    const on = (vcpu) => (model.several ? `, on ${vcpu.name}` : "");
    const { upcall } = poll;
    const interrupts = () => {
      const whom = upcall.poll ? `${upcall.poll.task.name}, poll ${upcall.poll.number}` : "the executor";
      add(upcall.begin, "guest", upcall.interrupted ? `an upcall interrupts ${whom}` : `urgent tasks have their turn before ${whom}`, { poll: upcall.poll });
    };
    // The wake may be the upcall's own, or have been there before it.
    const wakes = upcall && wake && wake.time >= upcall.begin;
    if (poll.first && !wake) {
      from(of.from);
      if (of.from) across(of.from.vcpu, of.from.begin, poll, add);
      add(of.begin, "guest", of.by === null ? `The runtime makes the task ${of.name}` : `${of.name} is spawned: a new task goes straight into the run queue`);
    } else if (!wake) {
      add(poll.begin, "guest", model.holes.length ? "The wake is not on record: it was among the records lost" : "No wake is on record");
    } else {
      const [name, id] = split(wake.by);
      if ((name === "op" || name === "host_call") && model.ops.has(id)) viaOperation(model, model.ops.get(id), wake, add, from);
      else if (name === "timer") {
        const timer = model.timers.get(id);
        if (timer) {
          from(timer.poll);
          add(timer.time, "guest", `sets timer ${id}, due at ${moment(timer.at - model.start)}`);
          // The library has one deadline with the host for all its timers: the one that came last.
          const { deadlines } = wake.vcpu;
          const deadline = deadlines[lower(deadlines, wake.time + 1, "written") - 1];
          if (deadline && deadline.written > timer.time && deadline.end >= timer.at) {
            viaOperation(model, deadline, wake, add, from);
            steps.deadline = deadline;
          }
        }
      } else from(wake.poll);
      if (wakes) interrupts();
      add(wake.time, "guest", `${name === "itself" ? `${of.name} wakes itself` : `${causeText(model, wake.by)} wakes ${of.name}`}${on(wake.vcpu)}`, { wake });
      across(wake.vcpu, wake.time, poll, add);
    }
    if (upcall && !wakes) interrupts();
    add(poll.begin, "guest", `${of.name}, poll ${poll.number}${on(poll.vcpu)}: ${pollEnd(model, poll)}`, { poll, here: true });
    if (upcall && upcall.poll) add(upcall.end, "guest", `the upcall returns: ${upcall.poll.task.name}, poll ${upcall.poll.number} goes on`);
    // What was under way when it was asked for has begun before.
    return steps.sort((a, b) => a.time - b.time || (a.here ? 1 : 0) - (b.here ? 1 : 0));
  }

  /** How a processor learnt that another has something for it, from then to a poll. */
  function across(from, time, poll, add) {
    const to = poll.vcpu;
    if (from === to) return;
    const until = poll.begin;
    const next = (list, key, what = () => true) => {
      for (let at = lower(list, time, key); at < list.length && list[at][key] <= until; at += 1) if (what(list[at])) return list[at];
      return null;
    };
    const asleep = to.sleeps.slice(lower(to.sleeps, time, "end")).slice(0, NAPS).filter((part) => part.begin <= until);
    const first = to.inside.length > 0 && to.inside[0].begin >= time ? to.inside[0] : null;
    if (!asleep.length && !first) return;
    const ring = next(from.marks, "time", (mark) => mark.verb in RINGS);
    // Who watches needs nobody who rings.
    const isRung = first || asleep.some((part) => part.how !== "watch" && part.end <= until);
    if (ring && isRung) {
      add(ring.time, "boundary", `${from.name} rings: ${RINGS[ring.verb]}`, { vcpu: from });
      const left = next(from.inside, "end", (part) => part.end >= ring.time);
      if (left) add(left.end, "boundary", `${from.name} is left: ${EXITS[left.reason] || left.reason}`, { vcpu: from });
    }
    for (const part of asleep) {
      add(part.begin, "guest", `${to.name} has nothing to do, and ${SLEEPS[part.how] || part.how}`, { vcpu: to });
      if (part.end <= until) add(part.end, "guest", `${to.name} ${ROUSED[part.by] || "goes on"}`, { vcpu: to });
    }
    const parked = to.parked[lower(to.parked, time, "end")];
    if (isRung && parked && parked.begin <= until) {
      add(parked.begin, "host", `${to.name} is parked`);
      if (parked.end <= until) add(parked.end, "host", `${to.name} goes on`);
    }
    const entered = isRung && next(to.inside, "begin");
    if (entered) add(entered.begin, "boundary", `${to.name} is entered${entered === first ? " for the first time" : " again"}`, { vcpu: to });
    const interrupt = next(to.marks, "time", (mark) => mark.what === "interrupt");
    if (interrupt) add(interrupt.time, "boundary", `an interrupt is injected into ${to.name}`, { vcpu: to });
  }

  function viaOperation(model, op, wake, add, from) {
    const { inside, parked: parks, away: aways, marks } = op.vcpu;
    from(op.poll);
    if (op.submitted !== null) add(op.submitted, "guest", `submits ${opName(op)}${op.bytes ? `, ${count(op.bytes, "byte")}` : ""}`);
    if (op.submitted !== null && op.begin !== null) {
      const left = inside[lower(inside, op.submitted, "end")];
      if (left && left.end <= op.begin) add(left.end, "boundary", `the guest is left: ${EXITS[left.reason] || left.reason}`, { vcpu: op.vcpu });
    }
    if (op.begin !== null) add(op.begin, "host", `the host begins ${opName(op)}`);
    if (op.written !== null) {
      const parked = parks[lower(parks, op.begin ?? 0, "begin")];
      if (parked && parked.begin < op.written && parked.end <= wake.time) {
        add(parked.begin, "host", "nothing else to do: the sandbox is parked");
        const away = aways[lower(aways, parked.begin, "begin")];
        if (away && away.end <= parked.end) {
          add(away.begin, "host", "it gives its machine to another sandbox");
          add(away.end, "host", "it has a machine again");
        }
        add(parked.end, "host", "the sandbox goes on");
      }
    }
    const ready = op.ready[op.ready.length - 1];
    if (ready !== undefined) add(ready, "host", `what ${opName(op)} waits for has come`);
    if (op.status !== null) add(op.end, "host", `${opName(op)} ends: ${op.status}${op.moved === null ? "" : `, ${count(op.moved, "byte")}`}`);
    if (op.written !== null) {
      add(op.written, "host", "the completion is written where the guest can see it");
      const entered = inside[lower(inside, op.written, "begin")];
      if (entered && entered.begin <= wake.time) add(entered.begin, "boundary", "the guest is entered again", { vcpu: op.vcpu });
      const mark = marks[lower(marks, op.written, "time")];
      if (mark && mark.what === "interrupt" && mark.time <= wake.time) add(mark.time, "boundary", "an interrupt is injected", { vcpu: op.vcpu });
    }
  }

  // ---- The picture -------------------------------------------------------------------------

  const FONT = "12px system-ui, sans-serif";
  const AXIS = 22;
  const ROW = 20;
  const LANE = 9;
  const SHORTEST = 50;
  /** Bars narrower than this stand together if no gap between them could be seen. */
  const NARROW = 3;
  /** Pixels from the mark of one wake to the next. */
  const WAKES_APART = 3;
  /** Pixels from one exit or doorbell to the next. */
  const MARKS_APART = 4;
  /** Of the style sheet. */
  const COLOURS = [
    "page", "line", "text", "faint", "pending", "ready", "spurious", "op", "inside", "exit", "wake", "cause", "sleeps",
    "parked", "lost", "life", "selected",
  ];

  class Chart {
    constructor(model, canvas, overview) {
      this.model = model;
      this.canvas = canvas;
      this.overview = overview;
      this.pen = canvas.getContext("2d");
      this.tasks = [...model.tasks.values()];
      this.tasks.forEach((task, index) => { task.row = index; });
      this.from = model.start;
      this.to = model.end;
      this.scroll = 0;
      this.selected = null;
      this.steps = [];
      this.lit = new Set();
      this.density = null;
      this.waiting = false;
      /** How idle time is squeezed, if it is. */
      this.scale = null;
      const lanes = Math.max(1, model.lanes.length + (model.crowd.list.length ? 1 : 0));
      let top = AXIS;
      const row = (height) => { const at = { top, height }; top += height + 4; return at; };
      this.ops = row(Math.max(lanes * LANE, ROW - 6) + 2);
      if (model.several) {
        // Those of the processors come before those of the tasks, and scroll as they do.
        this.head = top + 4;
        this.lines = model.vcpus.map((vcpu) => {
          const boundary = row(18);
          return { vcpu, parked: boundary, boundary, executor: row(18) };
        });
        this.first = top + 4 - this.head;
      } else {
        this.lines = [{ vcpu: model.vcpus[0], parked: row(12), boundary: row(18), executor: row(18) }];
        this.head = top + 4;
        this.first = 0;
      }
      this.palette();
    }

    palette() {
      const style = getComputedStyle(document.documentElement);
      this.colours = Object.fromEntries(COLOURS.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
      this.ask();
    }

    resize() {
      const ratio = window.devicePixelRatio || 1;
      for (const canvas of [this.canvas, this.overview]) {
        const box = canvas.getBoundingClientRect();
        canvas.width = Math.max(1, Math.round(box.width * ratio));
        canvas.height = Math.max(1, Math.round(box.height * ratio));
        canvas.getContext("2d").setTransform(ratio, 0, 0, ratio, 0, 0);
      }
      const box = this.canvas.getBoundingClientRect();
      this.width = box.width;
      this.height = box.height;
      this.gutter = Math.min(150, box.width / 4);
      this.density = null;
      this.scrollTo(this.scroll);
    }

    /** Draws before the next frame, once. */
    ask() {
      if (this.waiting) return;
      this.waiting = true;
      requestAnimationFrame(() => {
        this.waiting = false;
        this.draw();
      });
    }

    /** Where a time is on the scale, and back. */
    on(time) { return this.scale ? between(time, this.scale.at, this.scale.on) : time; }
    off(place) { return this.scale ? between(place, this.scale.on, this.scale.at) : place; }
    x(time) {
      const from = this.on(this.from);
      return this.gutter + ((this.on(time) - from) / (this.on(this.to) - from)) * (this.width - this.gutter);
    }
    time(x) {
      const from = this.on(this.from);
      return this.off(from + ((x - this.gutter) / (this.width - this.gutter)) * (this.on(this.to) - from));
    }
    squeeze(is) {
      this.scale = is ? squeezed(this.model) : null;
      this.ask();
    }
    rowTop(task) { return this.head + this.first + task.row * ROW - this.scroll; }
    /** Where the row of a processor begins. */
    top(row) { return row.top - (this.model.several ? this.scroll : 0); }
    lineOf(vcpu) { return this.lines[(vcpu || this.model.vcpus[0]).number]; }

    show(from, to) {
      const whole = this.model.end - this.model.start;
      const length = Math.min(Math.max(to - from, Math.min(SHORTEST, whole)), whole);
      const begin = Math.min(Math.max((from + to - length) / 2, this.model.start), this.model.end - length);
      this.from = begin;
      this.to = begin + length;
      this.ask();
    }

    /** As `show`, between two places on the scale, which may lie beyond its ends. */
    showOn(from, to) {
      const [first, last] = [this.on(this.model.start), this.on(this.model.end)];
      const length = Math.min(to - from, last - first);
      const begin = Math.min(Math.max((from + to - length) / 2, first), last - length);
      this.show(this.off(begin), this.off(begin + length));
    }

    zoom(factor, at = this.time((this.gutter + this.width) / 2)) {
      const [from, to, fixed] = [this.from, this.to, at].map((time) => this.on(time));
      this.showOn(fixed - (fixed - from) * factor, fixed + (to - fixed) * factor);
    }
    pan(share) {
      const [from, to] = [this.on(this.from), this.on(this.to)];
      this.showOn(from + (to - from) * share, to + (to - from) * share);
    }
    fit() { this.show(this.model.start, this.model.end); }

    scrollTo(at) {
      const most = Math.max(0, this.head + this.first + this.tasks.length * ROW - this.height);
      this.scroll = Math.min(Math.max(0, at), most);
      this.ask();
    }

    /** Brings a part of time and a task into the picture, if they are not. */
    reveal(begin, end, task) {
      if (begin < this.from || end > this.to) {
        const length = Math.max(this.to - this.from, (end - begin) * 1.3);
        this.show((begin + end - length) / 2, (begin + end + length) / 2);
      }
      const top = this.first + task.row * ROW;
      const room = this.height - this.head;
      if (top < this.scroll) this.scrollTo(top);
      else if (top + ROW > this.scroll + room) this.scrollTo(top + ROW - room);
    }

    /** Where the middle of a poll is, in the canvas. */
    where(poll) { return { x: this.x((poll.begin + poll.end) / 2), y: this.rowTop(poll.task) + ROW / 2 }; }

    /**
     * Bars of a list in the order of time. What is narrower than a pixel shares it with all that begins
     * in it, and neighbours of a colour are one rectangle: the work is bounded by pixels, not by events.
     */
    bars(list, top, height, colour, reach = 0) {
      const pen = this.pen;
      const run = { left: 0, right: -1, colour: null };
      const flush = () => {
        if (run.right < run.left) return;
        pen.fillStyle = run.colour;
        pen.fillRect(run.left, top, run.right - run.left, height);
      };
      let index = lower(list, this.from - reach, "begin");
      if (!reach && index > 0) index -= 1;
      while (index < list.length && list[index].begin <= this.to) {
        const part = list[index];
        let left = Math.max(this.x(part.begin), this.gutter);
        let right = Math.min(this.x(part.end), this.width);
        const isVisible = right >= this.gutter;
        index += 1;
        if (right - left < 1) {
          left = Math.floor(left);
          right = left + 1;
          const next = lower(list, this.time(right), "begin", index);
          // The last of those that share the pixel may be as long as it likes: no other one covers it.
          const reaches = next > index && this.x(list[next - 1].end) > right + 1;
          index = reaches ? next - 1 : next;
        }
        if (!isVisible) continue;
        const filled = colour(part);
        if (filled === run.colour && right - left < NARROW && left - run.right < 0.5) run.right = Math.max(run.right, right);
        else {
          flush();
          Object.assign(run, { left, right, colour: filled });
        }
      }
      flush();
    }

    /** Marks at points of time, so many pixels apart at least. */
    points(list, key, mark, apart = 1) {
      let index = lower(list, this.from, key);
      while (index < list.length && list[index][key] <= this.to) {
        const x = this.x(list[index][key]);
        mark(x, list[index]);
        index = lower(list, this.time(x + apart), key, index + 1);
      }
    }

    draw() {
      const { pen, colours, model, ops } = this;
      if (!this.width) return;
      pen.clearRect(0, 0, this.width, this.height);
      pen.font = FONT;
      pen.textBaseline = "middle";
      this.drawAxis();
      pen.save();
      pen.beginPath();
      pen.rect(0, this.head - 4, this.width, this.height);
      pen.clip();
      this.drawTasks();
      if (model.several) this.lines.forEach((line) => this.drawProcessor(line));
      pen.restore();
      model.lanes.forEach((lane, index) => this.bars(lane, ops.top + index * LANE, LANE - 2, (op) => this.dim(op) || colours.op));
      this.bars(model.crowd.list, ops.top + LANES * LANE, LANE - 2, () => colours.op, model.crowd.longest);
      if (!model.several) this.drawProcessor(this.lines[0]);
      this.points(model.holes, "time", (x) => this.stroke(x, AXIS, this.height, colours.lost));
      this.drawLabels();
      this.drawArrows();
      this.drawOverview();
    }

    drawProcessor({ vcpu, ...rows }) {
      const { colours } = this;
      const [parked, boundary, executor] = [rows.parked, rows.boundary, rows.executor].map((row) => this.top(row));
      this.bars(vcpu.parked, parked + (this.model.several ? 3 : 0), 12, () => colours.parked);
      this.bars(vcpu.away, parked + rows.parked.height - 4, 4, () => colours.sleeps);
      this.bars(vcpu.inside, boundary + 3, 12, () => colours.inside);
      this.points(vcpu.inside, "end", (x, part) => { if (part.reason) this.stroke(x, boundary, rows.boundary.height, colours.exit); }, MARKS_APART);
      this.points(vcpu.marks, "time", (x, mark) => this.stroke(x, boundary + 6, 6, mark.what === "doorbell" ? colours.text : colours.wake), MARKS_APART);
      this.bars(vcpu.sleeps, executor + 3, 12, () => colours.sleeps);
      this.bars(vcpu.polls, executor + 3, 12, (poll) => this.dim(poll) || this.pollColour(poll), this.model.longest);
    }

    stroke(x, top, height, colour) {
      this.pen.fillStyle = colour;
      this.pen.fillRect(x, top, 1.5, height);
    }

    pollColour(poll) {
      if (poll.spurious) return this.colours.spurious;
      return poll.result === "ready" ? this.colours.ready : this.colours.pending;
    }

    /** What is not of the selected chain steps back. */
    dim(part) { return this.selected && !this.lit.has(part) ? this.colours.life : null; }

    /** The labels of the axis, which it draws. */
    drawAxis() {
      const { pen, colours } = this;
      if (this.scale) return this.drawSqueezedAxis();
      const labels = [];
      const wanted = (this.to - this.from) / Math.max(2, (this.width - this.gutter) / 110);
      const power = 10 ** Math.floor(Math.log10(wanted));
      const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= wanted);
      pen.fillStyle = colours.faint;
      for (let at = Math.ceil((this.from - this.model.start) / step) * step; at <= this.to - this.model.start; at += step) {
        labels.push(this.drawTick(this.x(at + this.model.start), moment(at, step)));
      }
      return labels;
    }

    /** As much of a text as has room, and a sign that there is more. */
    fitted(text, width) {
      if (this.pen.measureText(text).width <= width) return text;
      // No letter is narrower than three pixels.
      let long = Math.min(text.length, Math.ceil(width / 3));
      while (long > 1 && this.pen.measureText(`${text.slice(0, long)}\u2026`).width > width) long -= 1;
      return `${text.slice(0, long)}\u2026`;
    }

    /** A line of the axis, with what it says; returns that. */
    drawTick(x, label) {
      const { pen } = this;
      pen.globalAlpha = 0.25;
      pen.fillRect(x, AXIS - 4, 1, this.height);
      pen.globalAlpha = 1;
      // A label that does not fit is none: half of one is another time.
      if (x + 3 + pen.measureText(label).width <= this.width) pen.fillText(label, x + 3, 10);
      return label;
    }

    /** The same where idle time is squeezed: the gaps are shaded, and where one label ends the next begins. */
    drawSqueezedAxis() {
      const { pen, colours } = this;
      const labels = [];
      pen.fillStyle = colours.sleeps;
      pen.globalAlpha = 0.25;
      for (const gap of this.scale.gaps) {
        const left = Math.max(this.x(gap.begin), this.gutter);
        const right = Math.min(this.x(gap.end), this.width);
        if (right - left >= 1) pen.fillRect(left, AXIS - 4, right - left, this.height);
      }
      pen.fillStyle = colours.faint;
      for (let x = this.gutter; x < this.width; x += 110) {
        const time = this.time(x) - this.model.start;
        const step = Math.max(1, this.time(x + 11) - this.time(x));
        labels.push(this.drawTick(x, moment(time, step)));
      }
      return labels;
    }

    /** The first task of those in the picture, and the one behind the last. */
    shown() {
      const from = this.scroll - this.first;
      const last = Math.min(this.tasks.length, Math.ceil((from + this.height - this.head) / ROW) + 1);
      return [Math.max(0, Math.floor(from / ROW)), last];
    }

    drawTasks() {
      const { pen, colours } = this;
      const [first, last] = this.shown();
      for (let index = first; index < last; index += 1) {
        const task = this.tasks[index];
        const top = this.rowTop(task);
        const begin = Math.max(this.x(task.begin ?? this.from), this.gutter);
        const end = Math.min(this.x(task.end ?? this.model.end), this.width);
        pen.fillStyle = colours.life;
        if (end > begin) pen.fillRect(begin, top + ROW / 2 - 0.5, end - begin, 1);
        this.bars(task.polls, top + 4, ROW - 8, (poll) => this.dim(poll) || this.pollColour(poll));
        this.bars(task.upcalls, top + 4, ROW - 8, () => colours.sleeps);
        this.drawWakes(task.wakes, top);
      }
      if (this.selected) {
        const { task, begin, end } = this.selected;
        pen.strokeStyle = colours.selected;
        pen.lineWidth = 2;
        const left = this.x(begin);
        pen.strokeRect(left - 2, this.rowTop(task) + 2, Math.max(this.x(end) - left, 1) + 4, ROW - 4);
      }
    }

    /** A triangle for each wake; pale if the task was in the run queue already. */
    drawWakes(wakes, top) {
      const { pen, colours } = this;
      const shapes = { queued: new Path2D(), again: new Path2D() };
      this.points(wakes, "time", (x, wake) => {
        const shape = wake.queued ? shapes.queued : shapes.again;
        shape.moveTo(x - 3, top + 1);
        shape.lineTo(x + 3, top + 1);
        shape.lineTo(x, top + 6);
      }, WAKES_APART);
      pen.fillStyle = colours.wake;
      pen.globalAlpha = 0.35;
      pen.fill(shapes.again);
      pen.globalAlpha = 1;
      pen.fill(shapes.queued);
    }

    drawLabels() {
      const { pen, colours, ops, model } = this;
      pen.fillStyle = colours.page;
      pen.fillRect(0, 0, this.gutter - 1, this.height);
      pen.fillStyle = colours.line;
      pen.fillRect(this.gutter - 1, 0, 1, this.height);
      pen.fillRect(0, this.head - 5, this.width, 1);
      pen.fillStyle = colours.text;
      const label = (text, y, colour = colours.text) => {
        pen.save();
        pen.beginPath();
        pen.rect(0, 0, this.gutter - 6, this.height);
        pen.clip();
        pen.fillStyle = colour;
        pen.fillText(this.fitted(text, this.gutter - 14), 8, y);
        pen.restore();
      };
      label("host: operations", ops.top + ops.height / 2);
      if (!model.several) {
        const [{ parked, boundary, executor }] = this.lines;
        label("host: parked", parked.top + 6);
        label("boundary: in guest", boundary.top + 9);
        label("guest: executor", executor.top + 9);
      }
      pen.save();
      pen.beginPath();
      pen.rect(0, this.head - 4, this.gutter, this.height);
      pen.clip();
      for (const { vcpu, boundary, executor } of model.several ? this.lines : []) {
        label(`${vcpu.name}: in guest, parked`, this.top(boundary) + 9);
        label(`${vcpu.name}: executor`, this.top(executor) + 9);
      }
      const [first, last] = this.shown();
      for (let index = first; index < last; index += 1) {
        const task = this.tasks[index];
        const here = this.selected && this.selected.task === task;
        label(task.name, this.rowTop(task) + ROW / 2, here ? colours.cause : colours.text);
      }
      pen.restore();
      if (!model.polls.length) label("no polls", this.head + this.first + 12, colours.faint);
    }

    /** Where a step of a chain is drawn. */
    place(step) {
      const x = this.x(step.time);
      if (step.side === "host") return { x, y: this.ops.top + this.ops.height / 2 };
      if (step.side === "boundary") return { x, y: this.top(this.lineOf(step.vcpu).boundary) + 9 };
      if (step.poll) return { x, y: this.rowTop(step.poll.task) + ROW / 2 };
      if (step.wake) return { x, y: this.rowTop(step.wake.task) + 3 };
      return null;
    }

    drawArrows() {
      const { pen, colours, model } = this;
      pen.save();
      pen.beginPath();
      pen.rect(this.gutter, AXIS, this.width, this.height);
      pen.clip();
      pen.strokeStyle = colours.cause;
      pen.fillStyle = colours.cause;
      // All arrows, as long as one can tell them apart.
      const begin = lower(model.wakes, this.from, "time");
      const end = lower(model.wakes, this.to, "time");
      if (!this.selected && end - begin <= 150) {
        pen.globalAlpha = 0.45;
        pen.lineWidth = 1;
        for (const wake of model.wakes.slice(begin, end)) {
          if (!wake.target) continue;
          const to = this.where(wake.target);
          this.arrow(this.origin(wake), { x: this.x(wake.target.begin), y: to.y });
        }
      }
      pen.globalAlpha = 1;
      pen.lineWidth = 2;
      const points = this.steps.map((step) => this.place(step)).filter(Boolean);
      for (let index = 1; index < points.length; index += 1) this.arrow(points[index - 1], points[index]);
      pen.restore();
    }

    /** Where the arrow of a wake starts: at the operation's end, or at the poll that woke. */
    origin(wake) {
      const [name, id] = split(wake.by);
      const op = name === "op" || name === "host_call" ? this.model.ops.get(id) : null;
      if (op && op.written !== null && op.lane !== undefined) {
        return { x: this.x(op.written), y: this.ops.top + op.lane * LANE + 3 };
      }
      if (wake.poll) return { x: this.x(wake.time), y: this.rowTop(wake.poll.task) + ROW / 2 };
      return { x: this.x(wake.time), y: this.top(this.lineOf(wake.vcpu).executor) + 9 };
    }

    arrow(from, to) {
      const pen = this.pen;
      const bend = Math.max(4, Math.min(40, Math.abs(to.x - from.x) / 2));
      pen.beginPath();
      pen.moveTo(from.x, from.y);
      pen.bezierCurveTo(from.x + bend, from.y, to.x - bend, to.y, to.x, to.y);
      pen.stroke();
      pen.beginPath();
      pen.moveTo(to.x, to.y);
      pen.lineTo(to.x - 6, to.y - 3);
      pen.lineTo(to.x - 6, to.y + 3);
      pen.fill();
    }

    /** When and how much was polled in the whole run, and which part of it the picture shows. */
    drawOverview() {
      const { colours, model, gutter } = this;
      const pen = this.overview.getContext("2d");
      const height = 44;
      const columns = Math.max(1, Math.floor(this.width - gutter));
      const whole = model.end - model.start;
      if (!this.density) {
        this.density = new Float64Array(columns);
        for (const poll of model.polls) {
          const column = (time) => Math.min(columns - 1, Math.floor(((time - model.start) / whole) * columns));
          const last = column(poll.end);
          const each = Math.max(poll.end - poll.begin, 1) / (last - column(poll.begin) + 1);
          for (let at = column(poll.begin); at <= last; at += 1) this.density[at] += each;
        }
        this.most = this.density.reduce((a, b) => Math.max(a, b), 1);
      }
      pen.clearRect(0, 0, this.width, height);
      pen.font = FONT;
      pen.textBaseline = "middle";
      pen.fillStyle = colours.text;
      pen.fillText("the whole run", 8, height / 2);
      pen.fillStyle = colours.pending;
      this.density.forEach((share, at) => {
        const tall = share ? Math.max(1, Math.sqrt(share / this.most) * (height - 6)) : 0;
        pen.fillRect(gutter + at, height - tall, 1, tall);
      });
      const left = gutter + ((this.from - model.start) / whole) * columns;
      const right = gutter + ((this.to - model.start) / whole) * columns;
      pen.fillStyle = colours.faint;
      pen.globalAlpha = 0.22;
      pen.fillRect(gutter, 0, left - gutter, height);
      pen.fillRect(right, 0, this.width - right, height);
      pen.globalAlpha = 1;
      pen.strokeStyle = colours.cause;
      pen.lineWidth = 1;
      pen.strokeRect(left + 0.5, 0.5, Math.max(right - left - 1, 2), height - 1);
    }

    /** What lies at a point of the canvas: the nearest within a few pixels. */
    at(x, y) {
      if (x < this.gutter || y < AXIS) return null;
      const { ops, model } = this;
      const within = (row) => y >= this.top(row) && y <= this.top(row) + row.height;
      const near = (list, reach = 0) => {
        const time = this.time(x);
        const slack = (this.time(x + 4) - time);
        let best = null;
        let distance = slack;
        const stop = lower(list, time + slack, "begin");
        const start = reach ? lower(list, time - reach - slack, "begin") : Math.max(0, stop - 8);
        for (let index = stop - 1; index >= start; index -= 1) {
          const part = list[index];
          const off = Math.max(part.begin - time, time - part.end, 0);
          if (off < distance || (off === 0 && best === null)) { best = part; distance = off; }
          if (distance === 0) break;
        }
        return best;
      };
      if (y >= ops.top && y <= ops.top + ops.height) {
        const lane = Math.floor((y - ops.top) / LANE);
        const op = lane < LANES ? near(model.lanes[lane] || []) : near(model.crowd.list, model.crowd.longest);
        return op && { op };
      }
      if (model.several && y < this.head) return null;
      for (const { vcpu, parked, boundary, executor } of this.lines) {
        if (within(parked)) {
          const part = near(vcpu.parked);
          if (part) return { parked: part, vcpu };
          if (parked !== boundary) return null;
        }
        if (within(boundary)) { const inside = near(vcpu.inside); return inside && { inside, vcpu }; }
        if (within(executor)) {
          const poll = near(vcpu.polls, model.longest);
          if (poll) return { poll };
          const sleeps = near(vcpu.sleeps);
          return sleeps && { sleeps, vcpu };
        }
      }
      if (y < this.head + this.first - this.scroll || y < this.head) return null;
      const task = this.tasks[Math.floor((y - this.head - this.first + this.scroll) / ROW)];
      if (!task) return null;
      const poll = near(task.polls);
      return poll ? { poll } : { task };
    }
  }

  // ---- What is said under the pointer -----------------------------------------------------------

  /** How often a poll was interrupted, and for how long. */
  function interruptions(poll) {
    const { upcalls } = poll;
    if (!upcalls.length) return "";
    const took = upcalls.reduce((sum, upcall) => sum + (upcall.end - upcall.begin), 0);
    return `\ninterrupted by ${count(upcalls.length, "upcall")}, for ${span(took)}`;
  }

  function describe(model, hit) {
    const at = (time) => moment(time - model.start);
    const who = model.several && hit.vcpu ? `${hit.vcpu.name}: ` : "";
    if (hit.poll) {
      const { poll } = hit;
      const why = poll.wake ? `woken by ${causeText(model, poll.wake.by)}` : poll.first ? "its first poll" : "no wake on record";
      return `${poll.task.name}, poll ${poll.number}${poll.spurious ? ", in vain" : ""}\n${pollEnd(model, poll)}\n${why}\n${span(poll.end - poll.begin)}, at ${at(poll.begin)}${model.several ? `, on ${poll.vcpu.name}` : ""}${interruptions(poll)}`;
    }
    if (hit.op) {
      const { op } = hit;
      const by = op.by === null ? "" : `\nfor ${taskName(model, op.by)}`;
      const moved = op.moved === null ? "" : `, ${count(op.moved, "byte")}`;
      return `${opName(op)}: ${op.status || "still in flight"}${moved}${by}\n${span(op.end - op.begin)}, at ${at(op.begin)}${op.cancelled === null ? "" : "\nits future was dropped: cancel asked"}`;
    }
    if (hit.parked) {
      const away = hit.vcpu.away.find((part) => part.begin >= hit.parked.begin && part.begin < hit.parked.end);
      const machine = away ? `\nFor ${span(away.end - away.begin)} of it, its machine was another's.` : "";
      const pending = model.several ? "Its task is Pending and holds no thread." : "The sandbox is Pending and holds no thread.";
      return `${who}parked for ${span(hit.parked.end - hit.parked.begin)}\n${pending}${machine}`;
    }
    if (hit.inside) return `${who}in the guest for ${span(hit.inside.end - hit.inside.begin)}\nleft: ${EXITS[hit.inside.reason] || "not on record"}`;
    if (hit.sleeps) return `${who}nothing to do for ${span(hit.sleeps.end - hit.sleeps.begin)}\nthe guest ${SLEEPS[hit.sleeps.how] || hit.sleeps.how}; ended by ${hit.sleeps.by || "the end of the trace"}`;
    const { task } = hit;
    const end = task.end === null ? "" : `\nended at ${at(task.end)}${task.aborted ? ": dropped before it was ready" : ""}`;
    return `${task.name} (task ${task.id})${task.place ? `\nspawned at ${task.place}` : ""}\n${count(task.polls.length, "poll")}, ${count(task.wakes.length, "wake")}${end}`;
  }

  // ---- The panels ----------------------------------------------------------------------------

  const byId = (id) => document.getElementById(id);

  function element(name, text, attributes = {}) {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    return made;
  }

  function table(caption, rows) {
    const made = element("table");
    made.append(element("caption", caption));
    for (const [name, value] of rows) {
      const row = element("tr");
      row.append(element("td", name), element("td", value, { class: "number" }));
      made.append(row);
    }
    return made;
  }

  function showSummary(model, summary) {
    const panel = byId("summary");
    if (!summary) {
      panel.append(element("p", "The trace was cut off before its end: there are no numbers for the whole."));
      return;
    }
    const number = (n) => n.toLocaleString("en");
    const share = summary.polls ? ` (${((summary.spurious / summary.polls) * 100).toFixed(1)} %)` : "";
    panel.append(table("The executor", [
      ["tasks", number(model.tasks.size)], ["polls", number(summary.polls)], ["of these Ready", number(summary.ready)],
      ["in vain (spurious)", number(summary.spurious) + share], ["without a cause on record", number(summary.uncaused)],
      ["wakes", number(summary.wakes)], ["that queued a task", number(summary.queued)], ["wakers cloned", number(summary.cloned)],
    ]));
    const exits = Object.entries(summary.exits);
    panel.append(table("The boundary", [
      ["exits", number(exits.reduce((sum, [, n]) => sum + n, 0))], ...exits.map(([name, n]) => [`exits: ${name}`, number(n)]),
      ["interrupts injected", number(summary.interrupts)], ["parked", number(summary.parks)], ["records lost", number(summary.lost)],
    ]));
    const vcpus = summary.processors || [];
    if (vcpus.length) panel.append(table("Processors", vcpus.map((vcpu, index) => [`vCPU ${index}`, `${count(vcpu.polls, "poll")}, ${count(vcpu.exits, "exit")}, parked ${vcpu.parks.toLocaleString("en")}`])));
    const times = [
      ["polls", "polls", "in polls"], ["executor", "executor", "in the executor"], ["watching", "watching", "watching memory"],
      ["host", "host-time", "outside of the guest"], ["parked", "parked", "parked"],
    ];
    const whole = Math.max(1, times.reduce((sum, [key]) => sum + summary.time[key], 0));
    const bar = element("div", undefined, { class: "bar", "aria-hidden": "true" });
    const went = element("table");
    went.append(element("caption", "Where the time went"));
    for (const [key, style, words] of times) {
      const part = element("i", undefined, { class: style });
      part.style.width = `${(summary.time[key] / whole) * 100}%`;
      bar.append(part);
      const name = element("td", words);
      name.prepend(element("i", undefined, { class: `key ${style}` }));
      const row = element("tr");
      row.append(name, element("td", `${span(summary.time[key])}  ${((summary.time[key] / whole) * 100).toFixed(1)} %`, { class: "number" }));
      went.append(row);
    }
    panel.append(went, bar);
    const ops = Object.entries(summary.ops).sort((a, b) => b[1].count - a[1].count);
    if (ops.length) panel.append(table("Operations", ops.map(([name, op]) => [name, op.bytes ? `${number(op.count)}, ${number(op.bytes)} bytes` : number(op.count)])));
  }

  // ---- Start ---------------------------------------------------------------------------------

  function start() {
    const data = byId("trace");
    const { events, summary, leftOut, cut } = read(data ? data.textContent : "");
    if (data) data.remove();
    const model = build(events);
    const canvas = byId("chart");
    const chart = new Chart(model, canvas, byId("overview"));
    const past = [];

    const notices = [];
    if (!events.length) notices.push("There are no events in this trace.");
    if (cut && events.length) notices.push(`This trace was cut off: it ends after ${count(events.length + leftOut, "event")}.`);
    if (leftOut) notices.push(`The page shows the first ${count(events.length, "event")}; ${leftOut.toLocaleString("en")} more were left out (the numbers count them). A file of --trace has them all.`);
    if (model.holes.length) notices.push(`Records are missing at ${count(model.holes.length, "place")}, marked in red.`);
    byId("notice").textContent = notices.join(" ");
    byId("notice").hidden = !notices.length;
    byId("guest").textContent = model.started ? `${model.started.guest || ""} (mode ${model.started.mode})` : "";
    byId("outcome").textContent = model.finished ? `${model.finished.outcome}, after ${span(model.end - model.start)}` : `${span(model.end - model.start)}`;
    showSummary(model, summary);

    /** What is selected because the page was opened, and nobody has chosen. */
    let shown = null;
    function select(poll, remember = true) {
      if (remember && chart.selected && chart.selected !== shown && poll && chart.selected !== poll) past.push(chart.selected);
      shown = null;
      chart.selected = poll;
      chart.steps = poll ? chain(model, poll) : [];
      chart.lit = new Set(chart.steps.map((step) => step.poll).filter(Boolean));
      if (poll && poll.wake) {
        const [name, id] = split(poll.wake.by);
        if ((name === "op" || name === "host_call") && model.ops.has(id)) chart.lit.add(model.ops.get(id));
      }
      if (chart.steps.deadline) chart.lit.add(chart.steps.deadline);
      const list = byId("chain");
      list.replaceChildren();
      for (const step of chart.steps) {
        const item = element("li", undefined, { class: step.poll ? `${step.side} poll` : step.side });
        const first = chart.steps[0].time;
        const when = step.time === first ? moment(first - model.start) : `+ ${span(step.time - first)}`;
        item.append(element("time", `${when}, ${step.side === "boundary" ? "the boundary" : `the ${step.side}`}`));
        if (step.poll && !step.here) {
          const go = element("button", step.text, { type: "button" });
          go.addEventListener("click", () => { select(step.poll); chart.reveal(step.poll.begin, step.poll.end, step.poll.task); });
          item.append(go);
        } else item.append(element("span", step.text));
        list.append(item);
      }
      byId("selected").textContent = poll
        ? `${poll.task.name}, poll ${poll.number} of ${poll.task.polls.length}${poll.spurious ? ", in vain" : ""}: ${pollEnd(model, poll)}.${interruptions(poll)}`
        : "Click on a poll, or press n.";
      byId("back").hidden = past.length === 0 || !poll;
      chart.ask();
    }

    const go = (poll) => { if (poll) { select(poll); chart.reveal(poll.begin, poll.end, poll.task); } };
    const step = (by) => {
      if (chart.selected && chart.selected !== shown) return go(model.polls[chart.selected.index + by]);
      const first = lower(model.polls, chart.from, "begin");
      return go(model.polls[Math.min(first, model.polls.length - 1)]);
    };
    const sibling = (by) => chart.selected && go(chart.selected.task.polls[chart.selected.number - 1 + by]);
    const asked = () => { const found = chart.steps.find((part) => part.poll && !part.here); if (found) go(found.poll); };
    const frame = () => {
      if (!chart.steps.length) return;
      const from = Math.min(...chart.steps.map((part) => part.time));
      const to = chart.selected.end;
      const margin = Math.max((to - from) * 0.08, 20);
      chart.show(from - margin, to + margin);
    };
    const find = (text) => {
      const wanted = text.toLowerCase();
      const after = chart.selected ? chart.selected.task.row + 1 : 0;
      const order = [...chart.tasks.slice(after), ...chart.tasks.slice(0, after)];
      const found = wanted && order.find((task) => task.name.toLowerCase().includes(wanted));
      if (found && found.polls.length) go(found.polls[0]);
      else if (found) chart.scrollTo(chart.first + found.row * ROW);
      else byId("selected").textContent = `No task's name has “${text}” in it.`;
    };
    const toggleLegend = () => {
      const legend = byId("legend");
      legend.hidden = !legend.hidden;
      byId("help").setAttribute("aria-expanded", String(!legend.hidden));
      chart.resize();
    };

    const squeeze = () => {
      chart.squeeze(!chart.scale);
      byId("squeeze").setAttribute("aria-pressed", String(!!chart.scale));
    };

    const keys = {
      ArrowLeft: (shift) => chart.pan(shift ? -1 : -0.15), ArrowRight: (shift) => chart.pan(shift ? 1 : 0.15),
      ArrowUp: () => chart.scrollTo(chart.scroll - ROW), ArrowDown: () => chart.scrollTo(chart.scroll + ROW),
      PageUp: () => chart.scrollTo(chart.scroll - chart.height / 2), PageDown: () => chart.scrollTo(chart.scroll + chart.height / 2),
      "+": () => chart.zoom(0.6), "=": () => chart.zoom(0.6), "-": () => chart.zoom(1 / 0.6), 0: () => chart.fit(), Home: () => chart.fit(),
      n: () => step(1), p: () => step(-1), j: () => sibling(1), k: () => sibling(-1), c: asked, f: frame, i: squeeze,
      "/": () => byId("find").focus(), "?": toggleLegend, Escape: () => { past.length = 0; select(null); },
    };
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const field = event.target instanceof HTMLInputElement;
      if (field) {
        if (event.key === "Enter") find(event.target.value);
        if (event.key === "Escape") canvas.focus();
        return;
      }
      const action = Object.hasOwn(keys, event.key) ? keys[event.key] : null;
      if (!action) return;
      // In the panels the arrow keys scroll.
      if (/^(Arrow|Page|Home)/.test(event.key) && event.target.closest("aside, #legend")) return;
      event.preventDefault();
      action(event.shiftKey);
    });
    byId("zoom-in").addEventListener("click", () => chart.zoom(0.6));
    byId("zoom-out").addEventListener("click", () => chart.zoom(1 / 0.6));
    byId("fit").addEventListener("click", () => chart.fit());
    byId("squeeze").addEventListener("click", squeeze);
    byId("next").addEventListener("click", () => step(1));
    byId("previous").addEventListener("click", () => step(-1));
    byId("help").addEventListener("click", toggleLegend);
    byId("back").addEventListener("click", () => { const poll = past.pop(); if (poll) { select(poll, false); chart.reveal(poll.begin, poll.end, poll.task); } });
    byId("theme").addEventListener("click", () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
      chart.palette();
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => chart.palette());

    const tip = byId("tip");
    const point = (event) => {
      const box = canvas.getBoundingClientRect();
      return { x: event.clientX - box.left, y: event.clientY - box.top };
    };
    let drag = null;
    canvas.addEventListener("pointerdown", (event) => {
      drag = { ...point(event), from: chart.from, to: chart.to, scroll: chart.scroll, moved: false };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const at = point(event);
      if (drag) {
        if (Math.hypot(at.x - drag.x, at.y - drag.y) > 3) drag.moved = true;
        if (drag.moved) {
          canvas.classList.add("dragging");
          tip.hidden = true;
          const [from, to] = [chart.on(drag.from), chart.on(drag.to)];
          const by = ((drag.x - at.x) / (chart.width - chart.gutter)) * (to - from);
          chart.showOn(from + by, to + by);
          chart.scrollTo(drag.scroll + drag.y - at.y);
        }
        return;
      }
      const hit = chart.at(at.x, at.y);
      tip.hidden = !hit;
      if (!hit) return;
      tip.textContent = describe(model, hit);
      const box = canvas.getBoundingClientRect();
      const stage = byId("stage").getBoundingClientRect();
      const left = Math.min(at.x + 14, box.width - tip.offsetWidth - 4);
      const below = at.y + 18 + tip.offsetHeight < box.height;
      tip.style.left = `${Math.max(0, left)}px`;
      tip.style.top = `${box.top - stage.top + (below ? at.y + 18 : Math.max(0, at.y - tip.offsetHeight - 8))}px`;
    });
    const release = (event) => {
      if (!drag) return;
      const { moved } = drag;
      drag = null;
      canvas.classList.remove("dragging");
      if (moved || event.type === "pointercancel") return;
      const at = point(event);
      const hit = chart.at(at.x, at.y);
      if (hit && hit.poll) select(hit.poll);
      else if (!hit) select(null);
    };
    canvas.addEventListener("pointerup", release);
    canvas.addEventListener("pointercancel", release);
    canvas.addEventListener("pointerleave", () => { tip.hidden = true; });
    canvas.addEventListener("wheel", (event) => {
      event.preventDefault();
      const { x } = point(event);
      if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) chart.pan((event.deltaX || event.deltaY) / 1000);
      else chart.zoom(Math.exp(Math.min(Math.max(event.deltaY, -200), 200) / 400), chart.time(Math.max(x, chart.gutter)));
    }, { passive: false });
    const overview = byId("overview");
    const centre = (event) => {
      const box = overview.getBoundingClientRect();
      const time = model.start + ((event.clientX - box.left - chart.gutter) / (box.width - chart.gutter)) * (model.end - model.start);
      const half = (chart.to - chart.from) / 2;
      chart.show(time - half, time + half);
    };
    overview.addEventListener("pointerdown", (event) => { overview.setPointerCapture(event.pointerId); centre(event); });
    overview.addEventListener("pointermove", (event) => { if (event.buttons & 1) centre(event); });

    // The first poll that something from outside has woken shows what there is to see.
    const outside = new Set(["op", "host_call", "timer"]);
    const interesting = model.polls.find((poll) => poll.wake && !poll.spurious && outside.has(split(poll.wake.by)[0]));
    if (interesting) {
      select(interesting, false);
      shown = interesting;
    }
    new ResizeObserver(() => chart.resize()).observe(canvas);
    chart.resize();
    chart.draw();
    // For programs that look at the page: what it knows, and where it is drawn.
    window.wakebox = {
      model,
      chart,
      select: (index) => go(model.polls[index]),
      where: (index) => {
        const at = chart.where(model.polls[index]);
        const box = canvas.getBoundingClientRect();
        return { x: box.left + at.x, y: box.top + at.y };
      },
      drawnAfter: null,
    };
    // The first frame after the one with the picture: by then it can be seen.
    requestAnimationFrame(() => requestAnimationFrame(() => {
      window.wakebox.drawnAfter = performance.now();
      document.documentElement.dataset.ready = "true";
    }));
  }

  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", start);
  else start();
})();
