//! State machines: random operations on a datastore and on an oracle, whose answers must be the same.
//!
//! The [model](crate::model) is a few lines that are easy to check, one recorder, and what is recorded
//! and read. Here a whole datastore is compared with another one that is known to be right (the
//! recorders in memory): two handles, as two processes would have them, each with a recorder of every
//! tier; every call on those, by every method and every extension; subscriptions, waits and listeners
//! that are open while others record; handles that are closed, dropped and opened again, and called when
//! they are closed; concurrent insertions, whose outcome must be that of some order. The whole of each
//! result is compared: values, and of an error its kind, the colliding event or position, and whether it
//! is transient.
//!
//! An operation names its subject in terms of the current state ("the next version", "the
//! second open subscription", "two before the end of the log"), and does nothing where there is no such
//! thing. So every sequence of operations makes sense, and every part of one, to which a failure is
//! shrunk; that is why these are sequences of proptest's own, without a second model that tracks what
//! may come next.

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
    support::{CASES, SEED, USUAL_SEED, cases_or, seed},
};

/// The most steps of a case.
const STEPS: usize = 40;

/// A failure that keeps something waiting takes its time, which shrinking would take again and again.
const SHRINKING: u32 = 20_000;

/// Compares the results of a datastore with those of an oracle. `make_oracle` returns the recorders of an
/// empty datastore of its own at each call, which are closed together, and answer at once.
///
/// Each case has a datastore of its own; there are `cases`, unless the environment variable
/// `ES_CONFORMANCE_CASES` says otherwise. The operations are always the same, unless
/// `ES_CONFORMANCE_SEED` gives another seed.
///
/// # Panics
/// When an answer is another than the oracle's, with the fewest operations that were found to show it.
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

/// Returns whether a datastore's results differ from the oracle's in any of `cases` cases, which are always
/// the same and not shrunk: to see that these tests notice a defect.
pub fn disagrees<F: Fixture<Recorder = Recorders>>(
    cases: u32,
    make_oracle: impl Fn() -> Recorders,
    make_fixture: impl AsyncFn() -> F,
) -> bool {
    run_cases(Config { cases, max_shrink_iters: 0, ..config(USUAL_SEED) }, make_oracle, make_fixture).is_err()
}

fn config(seed: u64) -> Config {
    Config {
        rng_seed: RngSeed::Fixed(seed),
        // The seed repeats a failure; no file of failures appears among the sources.
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
