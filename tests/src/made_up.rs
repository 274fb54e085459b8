//! Traces of runs that never were, as long as one likes: for what reads traces.

use wakebox::trace::{
    Awaited, Cause, Doorbell, Event, EventKind, ExitReason, Idle, OpId, OpKind, PollResult, Roused,
    Side, TaskId,
};
use wakebox_abi::op::Opcode;
use wakebox_abi::status::Status;

/// A server with so many tasks, each of which reads and writes in turns, as about so many events.
/// The last event is the end of the run.
pub fn server(tasks: u32, events: usize) -> Vec<Event> {
    let mut run = Run::default();
    run.host(EventKind::Started {
        mode: "out".into(),
        guest: Some("server".into()),
        processors: 1,
    });
    run.host(EventKind::Entered);
    for task in 1..=tasks {
        run.guest(EventKind::Spawned {
            task: TaskId(task),
            by: (task > 1).then_some(TaskId(1)),
            name: if task == 1 {
                "main".into()
            } else {
                format!("connection-{task}")
            },
            location: Some("src/main.rs:12:9".into()),
        });
    }
    let mut in_flight: Vec<(u32, u64)> = Vec::new();
    for task in 1..=tasks {
        in_flight.push((task, run.poll_that_submits(task)));
    }
    while run.events.len() < events {
        run.sleep();
        // The guest's batch: a third of what is in flight completes at once.
        let many = (in_flight.len() / 3).max(1);
        let done: Vec<_> = in_flight.drain(..many).collect();
        for (_, op) in &done {
            run.completes(*op);
        }
        run.wakes_up();
        for (task, op) in &done {
            run.guest(EventKind::Woken {
                task: TaskId(*task),
                by: Cause::Op(OpId(*op)),
                queued: true,
                consumed: true,
            });
        }
        for (task, _) in done {
            in_flight.push((task, run.poll_that_submits(task)));
        }
    }
    run.host(EventKind::Exited {
        reason: ExitReason::Exit,
    });
    run.host(EventKind::Finished {
        outcome: "the guest exited with status 0".into(),
        status: 0,
        lost: 0,
        malformed: 0,
    });
    run.events
}

#[derive(Default)]
struct Run {
    events: Vec<Event>,
    time: u64,
    ops: u64,
}

impl Run {
    fn push(&mut self, side: Side, kind: EventKind, takes: u64) {
        self.time += takes;
        let time = self.time;
        self.events.push(Event::new(time, side, kind));
    }

    fn guest(&mut self, kind: EventKind) {
        self.push(Side::Guest, kind, 40);
    }

    fn host(&mut self, kind: EventKind) {
        self.push(Side::Host, kind, 900);
    }

    fn poll_that_submits(&mut self, task: u32) -> u64 {
        let task = TaskId(task);
        self.ops += 1;
        let op = OpId(self.ops);
        self.guest(EventKind::PollBegin { task });
        self.guest(EventKind::Submitted {
            op,
            what: read_or_write(op),
            bytes: 512,
            by: Some(task),
        });
        let result = PollResult::Pending {
            on: Some(Awaited::Op(op)),
            and: 0,
        };
        self.push(Side::Guest, EventKind::PollEnd { task, result }, 260);
        self.ops
    }

    fn sleep(&mut self) {
        self.guest(EventKind::Sleeps { how: Idle::Out });
        let verb = Doorbell::Wait;
        self.guest(EventKind::Doorbell { verb });
        let reason = ExitReason::Wait;
        self.host(EventKind::Exited { reason });
        self.host(EventKind::Parked);
        self.push(Side::Host, EventKind::Resumed, 20_000);
    }

    fn completes(&mut self, op: u64) {
        let op = OpId(op);
        let what = read_or_write(op);
        self.host(EventKind::OpBegins {
            op,
            what,
            bytes: 512,
        });
        self.push(Side::Host, EventKind::OpReady { op }, 4_000);
        self.host(EventKind::OpEnds {
            op,
            what,
            status: Status::Ok,
            value: 512,
            bytes: Some(512),
        });
        self.host(EventKind::CompletionWritten { op });
    }

    fn wakes_up(&mut self) {
        self.host(EventKind::Entered);
        self.guest(EventKind::Awake { by: Roused::Out });
    }
}

fn read_or_write(op: OpId) -> OpKind {
    OpKind::from(match op.0 % 2 {
        0 => Opcode::WriteStream,
        _ => Opcode::ReadStream,
    })
}
