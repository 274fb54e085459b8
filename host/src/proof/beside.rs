//! Where operations wait while a poller comes and goes.

use tokio::runtime::{Builder, Handle};
use wakebox_abi::wake::Mode;

use crate::driver::poller::Poller;
use crate::policy::Policy;

#[test]
fn operations_wait_in_the_reactor_of_whoever_stays_outside_the_guest() {
    let (_memory, driver) = super::driver(super::ARENA as u64, &Policy::new());
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let home = driver.backend.callables.home().clone();
    home.enter(runtime.handle().clone(), tracing::Span::none());
    let poller = Poller::new(driver, Mode::Auto, home, Vec::new()).unwrap();
    let looked_at = || poller.with(|_| (poller.is_away(), Handle::current().id()));
    let own = runtime.handle().id();
    assert_eq!(looked_at(), (true, own), "nobody has called the poller yet");
    let (mut came, mut left) = (false, false);
    while !left {
        let (is_away, reactor) = looked_at();
        assert_eq!(is_away, reactor == own);
        left = came && is_away;
        came |= !is_away;
        if !came {
            poller.notify();
        }
        std::thread::yield_now();
    }
    let task = poller.task().unwrap();
    poller.stop();
    runtime.block_on(task).unwrap();
}
