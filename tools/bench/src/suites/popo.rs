//! Memory: our recorder compared with a bare hash map of shared payloads and with the Python library.

use anyhow::Result;
use es_popo::PopoApplicationRecorder;

use crate::{
    bench::Bench,
    plan::Plan,
    system::FreshStore,
    systems::{
        hash_map::HashMapStore,
        program::{Datastore, Programs},
        python::{PYTHON_9_1, PYTHON_9_5},
        recorder::RecorderStore,
    },
    workload::Work,
};

const OURS: &str = "es-popo";
const BARE: &str = "bare hash map";
/// Many rounds, of a few milliseconds each: other load on the processor affects some of them, and the median
/// comes from the rest.
const ROUNDS: usize = 151;

pub(crate) async fn run(bench: &mut Bench, programs: &Programs) -> Result<()> {
    for events in [1, 10] {
        let aggregates = bench.scale.pick(20_000, 2_000) / events / 4;
        let work = Work::AppendAndLoad { aggregates, events };
        let plan = Plan::new(format!("popo insert and select, {events} per aggregate"), ROUNDS)
            .within(1.5, BARE)
            .faster(20.0, PYTHON_9_1)
            .faster(20.0, PYTHON_9_5);
        let ours = || RecorderStore(PopoApplicationRecorder::new());
        bench
            .measure(plan, async || {
                let mut systems = vec![
                    FreshStore::boxed(OURS, ours, &work),
                    FreshStore::boxed(BARE, HashMapStore::default, &work),
                ];
                for python in &programs.python {
                    systems.push(python.boxed(Datastore::Popo, work.reduced())?);
                }
                Ok(systems)
            })
            .await?;
    }
    Ok(())
}
