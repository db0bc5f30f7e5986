//! `es segments`.

use std::num::NonZeroU16;

use es_core::{SegmentChange, SegmentRecorder};
use es_factory::InfrastructureFactory;

use crate::{
    projections::on_each_database,
    support::{Sandbox, assert_snapshot},
};

/// Creates four segments of a consumer, of which nothing is processed yet.
fn create(_: &Sandbox, settings: Vec<(String, String)>, _: &[&str]) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let factory = InfrastructureFactory::builder("bank").environment(settings).build().unwrap();
        let recorder = factory.segment_recorder().await.unwrap();
        let four = SegmentChange::Create(NonZeroU16::new(4).unwrap());
        recorder.change_segments("balances", four).await.unwrap();
        factory.close().await.unwrap();
    });
}

#[test]
fn segments_are_listed_split_and_merged() {
    on_each_database(create, |sandbox, database| {
        let run = |arguments: &[&str]| sandbox.run(&[&["segments"], arguments, database].concat());
        let list = || run(&["list", "balances"]).output().to_owned();
        let created = list();
        // The logs of the two databases have 43 and 48 events.
        let of_43 = |text: &str| text.replace("48\n", "43\n").replace("\"lag\":48", "\"lag\":43");
        assert_snapshot("segments-list", &of_43(&created));
        let json = run(&["list", "balances", "--format", "json"]);
        assert_snapshot("segments-list-json", &of_43(json.output()));
        run(&["list", "absent"]).fails_with(5, "consumer \"absent\" has no segments");

        let second = "2000000000000000";
        run(&["split", "balances", "2nd"]).fails_with(2, "\"2nd\" is not a segment");
        run(&["split", "balances", "3", "--yes"]).fails_with(2, "has no segment 0000000000000003");
        run(&["split", "balances", second]).fails_with(2, "hint: pass --yes");
        let difference = run(&["split", "balances", second, "--dry-run"]).output().to_owned();
        assert_snapshot("segments-split", &difference);
        assert_eq!(list(), created);
        assert_eq!(run(&["split", "balances", second, "--yes"]).output(), difference);
        assert_eq!(list().lines().count(), created.lines().count() + 1);

        let json = run(&["merge", "balances", second, "--yes", "--format", "json"]);
        assert_snapshot("segments-merge-json", json.output());
        assert_eq!(list(), created);
        run(&["merge", "balances", "6000000000000000", "--yes"]).fails_with(2, "is the last one");
    });
}

#[test]
fn a_database_without_segments_has_none() {
    let sandbox = Sandbox::with_python_database("sqlite-9.5-plain");
    sandbox.on_bank(&["segments", "list", "balances"]).fails_with(5, "has no segments");
}
