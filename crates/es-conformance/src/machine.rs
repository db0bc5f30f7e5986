//! State machines: random operations on a datastore and on an oracle, whose results must be equal.
//!
//! The [model](crate::model) is small and covers one recorder. Here a whole datastore is compared with a
//! known correct one (the recorders in memory). Covered are:
//!
//! - two handles, as in two processes, each with a recorder of every tier, and all methods of recorders and
//!   their extensions;
//! - subscriptions, waits and listeners that are open while others record;
//! - handles that are closed, dropped, opened again, and called after they were closed;
//! - concurrent insertions, whose outcome must be that of some order.
//!
//! Results are compared completely: values, and of an error its kind, its conflict and whether it is
//! transient.
//!
//! An operation names its subject relative to the current state ("the next version", "the second open
//! subscription", "two before the end of the log"), and has no effect if the subject does not exist. So every
//! subsequence of operations is valid, and proptest can shrink failures without a model of valid transitions.

mod answer;
mod held;
mod log;
mod operation;
mod recorders;
mod state;

use proptest::{
    collection::vec,
    test_runner::{Config, RngSeed, TestError, TestRunner},
};

pub use self::recorders::Recorders;
use self::{operation::Step, state::Machine};
use crate::{
    Fixture,
    runner::run,
    support::{CASES, DEFAULT_SEED, SEED, cases_or, seed},
};

/// The maximum number of steps of a case.
const STEPS: usize = 40;

/// A limit of shrinking, since a failure that leaves a task waiting takes the whole timeout each time.
const SHRINKING: u32 = 20_000;

/// Compares the results of a datastore with those of an oracle. Each call of `make_oracle` returns the
/// recorders of a new, empty datastore. They are closed together, and their futures are ready immediately.
///
/// Each case has a datastore of its own. The environment variable `ES_CONFORMANCE_CASES` overrides the number
/// of `cases`, and `ES_CONFORMANCE_SEED` the seed, which is fixed otherwise.
///
/// # Panics
/// If a result differs from the oracle's, with the smallest sequence of operations that was found.
pub fn agrees<F: Fixture<Recorder = Recorders>>(
    cases: u32,
    make_oracle: impl Fn() -> Recorders,
    make_fixture: impl AsyncFn() -> F,
) {
    let config = Config { cases: cases_or(cases), max_shrink_time: SHRINKING, ..config(seed()) };
    let cases = config.cases;
    match run_cases(config, make_oracle, make_fixture) {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("{reason}"),
        Err(TestError::Fail(reason, steps)) => {
            let steps: String = steps.iter().map(|step| format!("\n  {step:?}")).collect();
            let seed = seed();
            panic!("{reason}\nafter:{steps}\nthe same operations again: {SEED}={seed} {CASES}={cases}");
        }
    }
}

/// Returns true if a datastore's results differ from the oracle's in any of `cases` cases, which are fixed
/// and not shrunk. It proves that these tests detect a defect.
pub fn disagrees<F: Fixture<Recorder = Recorders>>(
    cases: u32,
    make_oracle: impl Fn() -> Recorders,
    make_fixture: impl AsyncFn() -> F,
) -> bool {
    run_cases(Config { cases, max_shrink_iters: 0, ..config(DEFAULT_SEED) }, make_oracle, make_fixture)
        .is_err()
}

fn config(seed: u64) -> Config {
    Config {
        rng_seed: RngSeed::Fixed(seed),
        // The seed reproduces a failure, so no regression file is written to the sources.
        failure_persistence: None,
        ..Config::default()
    }
}

fn run_cases<F: Fixture<Recorder = Recorders>>(
    config: Config,
    make_oracle: impl Fn() -> Recorders,
    make_fixture: impl AsyncFn() -> F,
) -> Result<(), TestError<Vec<Step>>> {
    TestRunner::new(config).run(&vec(Step::any(), 1..=STEPS), |steps| {
        run(&make_fixture, async |fixture| {
            let mut machine = Machine::new(fixture, &make_oracle).await;
            for step in &steps {
                machine.take(step).await;
            }
            machine.end().await;
        });
        Ok(())
    })
}
