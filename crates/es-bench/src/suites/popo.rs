//! Memory: our recorder beside a bare hash map of shared payloads.

use anyhow::Result;
use es_popo::PopoApplicationRecorder;

use crate::bench::{Bench, Plan};
use crate::systems::hash_map::HashMapStore;
use crate::systems::recorder::RecorderStore;
use crate::workload::{Fresh, Work};

const OURS: &str = "es-popo";
const BARE: &str = "bare hash map";

pub(crate) async fn run(bench: &mut Bench) -> Result<()> {
    for events in [1, 10] {
        let aggregates = bench.scale.pick(20_000, 200);
        let work = Work::AppendAndLoad { aggregates, events };
        let plan = Plan::new(format!("popo insert and select, {events} per aggregate"), 21).within(1.5, BARE);
        let ours = || RecorderStore(PopoApplicationRecorder::new());
        bench
            .compete(plan, async || {
                Ok(vec![Fresh::boxed(OURS, ours, &work), Fresh::boxed(BARE, HashMapStore::default, &work)])
            })
            .await?;
    }
    Ok(())
}
