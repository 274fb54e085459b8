//! The demo `cores`: 256 tasks that compute, on one processor, and then wherever there is time.
#![no_std]
#![no_main]

extern crate alloc;

use alloc::vec::Vec;
use core::hint::black_box;

use wakebox_guest::time::{Duration, Instant};
use wakebox_guest::{println, processor, spawn};

const TASKS: u64 = 256;

/// About 100 us.
fn compute(task: u64) -> u64 {
    (0..100_000).fold(task, |sum, round| {
        black_box(
            sum.wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(round),
        )
    })
}

/// All tasks of a kind: what they gave together, and how long it took.
macro_rules! measure {
    ($spawn:path) => {{
        let began = Instant::now();
        let tasks: Vec<_> = (0..TASKS)
            .map(|task| $spawn(async move { compute(task) }))
            .collect();
        let mut sum = 0_u64;
        for task in tasks {
            sum = sum.wrapping_add(task.await.expect("nobody aborts it"));
        }
        (sum, began.elapsed())
    }};
}

#[wakebox_guest::main(processors = 2)]
async fn main() {
    let processors = processor::count();
    // What begins is not measured.
    for number in 0..processors {
        processor::spawn_on(number, || async {})
            .await
            .expect("nobody aborts it");
    }
    let (one, alone) = measure!(spawn);
    let (other, together) = measure!(processor::spawn_anywhere);
    assert!(one == other, "it is the same work");
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    println!("{TASKS} tasks on one processor: {:.1} ms", ms(alone));
    println!(
        "{TASKS} tasks on {processors} processors: {:.1} ms, {:.2} times as fast",
        ms(together),
        alone.as_secs_f64() / together.as_secs_f64()
    );
}
