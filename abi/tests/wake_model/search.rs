//! Searching a model for an execution that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs a model over all its executions.
pub(crate) fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(3));
    builder.check(model);
}

/// Runs a broken model and expects an execution that fails with `symptom`.
pub(crate) fn refuses(symptom: &str, model: impl Fn() + Sync + Send + 'static) {
    let Err(panic) = catch_unwind(AssertUnwindSafe(|| explore(model))) else {
        panic!("the model is broken on purpose, and loom found nothing");
    };
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or_default();
    assert!(text.contains(symptom), "failed for another reason: {text}");
}

pub(crate) const LOST_WAKE_UP: &str = "deadlock";
pub(crate) const DATA_RACE: &str = "Causality violation";
