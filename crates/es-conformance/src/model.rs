//! Random operations on a recorder, compared with a simple model.
//!
//! The rules test a recorder case by case; random operations find further cases. Ids, versions and positions
//! are few, so that operations conflict. A failure is shrunk to the smallest sequence of operations, and its
//! message says how to reproduce it.

mod memory;
mod operation;

use es_core::{AggregateRecorder, ApplicationRecorder, ProcessRecorder, Recorder, TrackingRecorder};
use proptest::{
    collection::vec,
    prelude::{Just, Strategy, prop_oneof},
    test_runner::{Config, RngSeed, TestRunner},
};

use self::{
    memory::Model,
    operation::{EventOperation, OrderOperation, ProcessOperation, TrackingOperation},
};
use crate::{
    Fixture,
    runner::run,
    support::{CASES, SEED, cases_or, seed},
};

/// The number of sequences of operations; each has a datastore of its own.
const SEQUENCES: u32 = 32;
const OPERATIONS: usize = 30;

/// Compares an aggregate recorder with the model.
///
/// # Panics
/// If they differ.
pub fn aggregate<F: Fixture<Recorder: AggregateRecorder>>(make_fixture: impl AsyncFn() -> F) {
    agrees(make_fixture, EventOperation::any(), async |recorder, model, operation| {
        operation.check(recorder, model).await;
    });
}

/// Compares an application recorder with the model.
///
/// # Panics
/// If they differ.
pub fn application<F: Fixture<Recorder: ApplicationRecorder>>(make_fixture: impl AsyncFn() -> F) {
    agrees(make_fixture, OrderOperation::any(), async |recorder, model, operation| {
        operation.check(recorder, model).await;
    });
}

/// Compares a tracking recorder with the model.
///
/// # Panics
/// If they differ.
pub fn tracking<F: Fixture<Recorder: TrackingRecorder>>(make_fixture: impl AsyncFn() -> F) {
    agrees(make_fixture, TrackingOperation::any(), async |recorder, model, operation| {
        operation.check(recorder, model).await;
    });
}

/// Compares a process recorder with the model.
///
/// # Panics
/// If they differ.
pub fn process<F: Fixture<Recorder: ProcessRecorder>>(make_fixture: impl AsyncFn() -> F) {
    agrees(make_fixture, ProcessOperation::any(), async |recorder, model, operation| {
        operation.check(recorder, model).await;
    });
}

#[derive(Clone, Debug)]
enum Step<O> {
    Do(O),
    /// Close the recorder and open another one, where the datastore outlives it.
    Reopen,
}

fn agrees<F: Fixture, O: Clone + std::fmt::Debug>(
    make_fixture: impl AsyncFn() -> F,
    operations: impl Strategy<Value = O>,
    check: impl AsyncFn(&F::Recorder, &mut Model, &O),
) {
    let (seed, cases) = (seed(), cases_or(SEQUENCES));
    let steps =
        vec(prop_oneof![20 => operations.prop_map(Step::Do), 1 => Just(Step::Reopen)], 1..=OPERATIONS);
    let config = Config {
        cases,
        rng_seed: RngSeed::Fixed(seed),
        // The seed reproduces a failure, so no regression file is written to the sources.
        failure_persistence: None,
        ..Config::default()
    };
    let outcome = TestRunner::new(config).run(&steps, |steps| {
        run(&make_fixture, async |fixture| {
            let mut recorder = fixture.open().await;
            let mut model = Model::default();
            for step in &steps {
                match step {
                    Step::Do(operation) => check(&recorder, &mut model, operation).await,
                    Step::Reopen => {
                        recorder.close().await.expect("closing should succeed");
                        recorder = fixture.open().await;
                    }
                }
            }
        });
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}\nthe same operations again: {SEED}={seed} {CASES}={cases}");
    }
}
