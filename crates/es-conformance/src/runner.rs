//! Runs a rule on a fixture of its own.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use tokio::{runtime, time::timeout};

use crate::Fixture;

/// Checks one rule on a fixture of its own and cleans up afterwards, in a runtime of its own.
///
/// # Panics
/// If the rule is broken or exceeds the [timeout](Fixture::patience) of the fixture.
pub fn run<F: Fixture>(make_fixture: impl AsyncFnOnce() -> F, rule: impl AsyncFnOnce(&F)) {
    let runtime = runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime should start");
    let fixture = runtime.block_on(make_fixture());
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let checked = runtime.block_on(async { timeout(fixture.patience(), rule(&fixture)).await });
        checked.expect("what the rule waits for should come");
    }));
    runtime.block_on(fixture.clean_up());
    if let Err(panic) = outcome {
        resume_unwind(panic);
    }
}
