//! Sandboxes that are ready, one tenant after the other.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use wakebox::template::{Open, When};
use wakebox::{Error, Machines, Outcome, Pool, Running, Sandbox, Template, WakeMode};
use wakebox_tests::takes::mappings;
use wakebox_tests::{alone, guest, kvm_test, require_kvm, runtime_of};

use crate::templates::count;

async fn template(mode: WakeMode) -> Template {
    let builder = Sandbox::builder()
        .guest(guest("templates"))
        .wake(mode)
        .memory(8 << 20);
    let running = builder.build().unwrap().start();
    let counted: u64 = running.call("count", &()).await.unwrap();
    assert_eq!(counted, 1);
    let taken = running.handle().snapshot(When::Parked, Open::Refuse).await;
    taken.unwrap()
}

/// Ends one that was taken, and waits until its place is free.
async fn end(running: Running) {
    let (outcome, _) = running.close().await.unwrap();
    assert_eq!(outcome, Outcome::Exit(0));
}

/// Virtual machines of this process.
fn machines() -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links
        .filter(|link| link.to_string_lossy() == "anon_inode:kvm-vm")
        .count()
}

/// How often these bytes lie in memory that is mapped of a template.
fn found_in_guests(bytes: &[u8]) -> usize {
    loop {
        match look_in_guests(bytes) {
            // What stood on the list is not mapped any more: the pool makes room meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
            found => return found.unwrap(),
        }
    }
}

fn look_in_guests(bytes: &[u8]) -> std::io::Result<usize> {
    let memory = File::open("/proc/self/mem").unwrap();
    let mut found = 0;
    for (start, end) in mappings().unwrap() {
        let mut region = vec![0; (end - start) as usize];
        memory.read_exact_at(&mut region, start)?;
        found += memchr::memmem::find_iter(&region, bytes).count();
    }
    Ok(found)
}

#[kvm_test]
fn who_takes_one_finds_it_initialised_and_nothing_of_who_had_it_before() {
    alone!(
        "who_takes_one_finds_it_initialised_and_nothing_of_who_had_it_before",
        || runtime_of(2).block_on(tenants())
    );
}

async fn tenants() {
    require_kvm();
    for mode in WakeMode::ALL {
        let rehearsals = Arc::new(AtomicUsize::new(0));
        let counts = rehearsals.clone();
        let pool = Pool::builder(template(mode).await)
            .idle(1)
            .max(1)
            .rehearse(move |caller| {
                let counts = counts.clone();
                async move {
                    let rehearsed: Result<u64, _> = caller.call("count", &()).await;
                    assert_eq!(rehearsed, Ok(2));
                    counts.fetch_add(1, Ordering::Relaxed);
                }
            })
            .build()
            .await
            .unwrap();
        assert_eq!(rehearsals.load(Ordering::Relaxed), 1, "{mode}");
        let mut secret = *b"a secret of tenant 00";
        for tenant in 0..4 {
            secret[19] = b'0' + tenant / 10;
            secret[20] = b'0' + tenant % 10;
            let running = pool.take().await.unwrap();
            assert_eq!(count(&running).await, 2, "{mode}: initialised, and no more");
            let kept: Vec<u8> = running.call("kept", &()).await.unwrap();
            assert!(kept.is_empty(), "{mode}: {kept:?}");
            let former = [&secret[..19], &[b'0' + (tenant.max(1) - 1) / 10]].concat();
            let former = [&former[..], &[b'0' + (tenant.max(1) - 1) % 10]].concat();
            if tenant > 0 {
                assert_eq!(
                    found_in_guests(&former),
                    0,
                    "{mode}: bytes of another tenant"
                );
            }
            running
                .call::<_, ()>("keep", &secret.to_vec())
                .await
                .unwrap();
            assert!(
                found_in_guests(&secret) > 0,
                "{mode}: the search finds what is there"
            );
            end(running).await;
        }
        // One that serves, one that was ready, and none more: the machine has served all of them.
        assert!(machines() <= 3, "{mode}: {} machines", machines());
        drop(pool);
        Machines::of_process().unwrap().clear();
    }
}

#[kvm_test]
async fn who_wants_one_too_many_waits_in_order_and_not_for_ever() {
    let pool = Pool::builder(template(WakeMode::Out).await)
        .max(1)
        .build()
        .await
        .unwrap();
    let first = pool.take().await.unwrap();
    let order = Arc::new(std::sync::Mutex::new(Vec::new()));
    let waits: Vec<_> = (0..3)
        .map(|number| {
            let (pool, order) = (pool.clone(), order.clone());
            tokio::spawn(async move {
                let running = pool.take().await.unwrap();
                order.lock().unwrap().push(number);
                end(running).await;
            })
        })
        .collect();
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert!(order.lock().unwrap().is_empty());
    end(first).await;
    for wait in waits {
        wait.await.unwrap();
    }
    assert_eq!(*order.lock().unwrap(), [0, 1, 2]);
    let hasty = Pool::builder(template(WakeMode::Out).await)
        .max(1)
        .patience(Duration::from_millis(1))
        .build()
        .await
        .unwrap();
    let _taken = hasty.take().await.unwrap();
    let late = hasty.take().await;
    assert!(matches!(late, Err(Error::PoolExhausted { .. })), "{late:?}");
    let none = Pool::builder(template(WakeMode::Out).await)
        .max(0)
        .build()
        .await;
    assert!(matches!(none, Err(Error::Setting(_))), "{none:?}");
}

#[kvm_test]
async fn no_more_are_made_than_are_to_be_ready_though_two_come_back_at_once() {
    let (meet, made) = (Arc::new(AtomicBool::new(false)), Arc::default());
    let (meets, counts) = (meet.clone(), Arc::<AtomicUsize>::clone(&made));
    let others_are_back = Arc::new(Barrier::new(2));
    let waits = others_are_back.clone();
    let pool = Pool::builder(template(WakeMode::Out).await)
        .idle(1)
        .max(2)
        .settings(move |builder| {
            // The first that is made is not ready before the others have come back.
            if meets.load(Ordering::SeqCst) && counts.fetch_add(1, Ordering::SeqCst) == 0 {
                waits.wait();
            }
            builder
        })
        .build()
        .await
        .unwrap();
    let taken = [pool.take().await.unwrap(), pool.take().await.unwrap()];
    assert_eq!(pool.ready(), 0);
    meet.store(true, Ordering::SeqCst);
    drop(taken);
    // There is a place for this one as soon as the second has come back, and none is ready.
    drop(pool.take().await.unwrap());
    drop(pool.take().await.unwrap());
    others_are_back.wait();
    while pool.ready() == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pool.ready(), 1);
    assert_eq!(
        made.load(Ordering::SeqCst),
        3,
        "one that is ready, and two that were taken"
    );
}

#[kvm_test]
async fn a_sandbox_that_is_killed_or_dropped_at_any_moment_leaves_its_place() {
    let pool = Pool::builder(template(WakeMode::Auto).await)
        .idle(2)
        .max(2)
        .build()
        .await
        .unwrap();
    for round in 0..60 {
        let running = pool.take().await.unwrap();
        match round % 3 {
            0 => drop(running),
            1 => {
                running.handle().kill();
                let (outcome, _) = running.ended().await.unwrap();
                assert_eq!(outcome, Outcome::Cancelled);
            }
            _ => {
                let called = running.caller();
                let call =
                    tokio::spawn(async move { called.call::<_, u64>("wait", &1_000_u64).await });
                tokio::task::yield_now().await;
                drop(running);
                assert!(call.await.unwrap().is_err());
            }
        }
    }
    let running = pool.take().await.unwrap();
    assert_eq!(count(&running).await, 2);
}

#[kvm_test]
async fn a_kill_of_who_had_the_machine_before_does_not_reach_who_has_it_now() {
    let machines = Machines::new(1);
    let template = template(WakeMode::Out).await;
    let former = template
        .spawn()
        .machines(machines.clone())
        .build()
        .unwrap()
        .start();
    let handle = former.handle();
    end(former).await;
    assert_eq!(machines.waiting(), 1);
    let next = template.spawn().machines(machines.clone()).build().unwrap();
    assert_eq!(machines.waiting(), 0, "it has the machine");
    let next = next.start();
    handle.kill();
    assert_eq!(count(&next).await, 2);
    end(next).await;
}

#[kvm_test]
fn machines_that_wait_are_let_go_for_one_that_finds_no_descriptor() {
    alone!(
        "machines_that_wait_are_let_go_for_one_that_finds_no_descriptor",
        || runtime_of(1).block_on(short_of_descriptors())
    );
}

async fn short_of_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let template = template(WakeMode::Out).await;
    let waiting = Machines::of_process().unwrap();
    let some = [(); 4].map(|()| template.spawn().build().unwrap());
    drop(some);
    assert!(waiting.waiting() >= 4);
    // Of another size than those that wait.
    let other = Sandbox::builder()
        .guest(std::fs::read(guest("templates")).unwrap())
        .wake(WakeMode::Out)
        .memory(9 << 20);
    let limit = Rlimit {
        current: Some(256),
        maximum: getrlimit(Resource::Nofile).maximum,
    };
    setrlimit(Resource::Nofile, limit).unwrap();
    let null = || File::open("/dev/null").ok();
    let _all_others: Vec<_> = std::iter::from_fn(null).collect();
    let running = other.build().unwrap().start();
    assert_eq!(count(&running).await, 1);
    assert_eq!(waiting.waiting(), 0);
}

#[kvm_test]
fn many_at_once_are_served_by_few_machines() {
    const IDLE: usize = 2;
    const AT_ONCE: usize = 4;
    const TAKEN_BY_EACH: usize = 40;
    runtime_of(2).block_on(async {
        let template = template(WakeMode::Out).await;
        let pool = Pool::builder(template).idle(IDLE).max(AT_ONCE);
        let pool = pool.build().await.unwrap();
        let tenants = (0..AT_ONCE).map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move {
                for _ in 0..TAKEN_BY_EACH {
                    let running = pool.take().await.unwrap();
                    let counted: u64 = running.call("count", &()).await.unwrap();
                    assert_eq!(counted, 2);
                }
            })
        });
        for tenant in tenants.collect::<Vec<_>>() {
            tenant.await.unwrap();
        }
        // One for each that is ready or taken, and one more for each that is being reset meanwhile.
        let made = pool.machines_made();
        assert!(made <= IDLE + 2 * AT_ONCE, "{made} machines");
    });
}
