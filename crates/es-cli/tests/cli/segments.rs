//! `es segments`.

use std::{
    io::{BufRead, BufReader},
    num::NonZeroU16,
    process::Stdio,
    time::Duration,
};

use es_core::{SegmentChange, SegmentRecorder, Segments};
use es_factory::InfrastructureFactory;

use crate::{
    copying::{Copying, PAIRS},
    postgres::Schema,
    projections::on_each_database,
    support::{Running, Sandbox, assert_snapshot},
};

/// Changes the segments of a consumer of the database with these settings.
fn change(settings: Vec<(String, String)>, consumer: &str, change: SegmentChange) -> Segments {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let factory = InfrastructureFactory::builder("bank").environment(settings).build().unwrap();
        let recorder = factory.segment_recorder().await.unwrap();
        let changed = recorder.change_segments(consumer, change).await.unwrap();
        factory.close().await.unwrap();
        changed
    })
}

fn four() -> SegmentChange {
    SegmentChange::Create(NonZeroU16::new(4).unwrap())
}

/// Creates four segments of a consumer, of which nothing is processed yet.
fn create(_: &Sandbox, settings: Vec<(String, String)>, _: &[&str]) {
    change(settings, "balances", four());
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

/// The worker of the second segment is further than that of the first one.
#[test]
fn a_merge_waits_until_both_have_one_position() {
    on_each_database(create, |sandbox, database| {
        let reached = |segment: &str| {
            let name = format!("balances/{segment}/0");
            sandbox.run(&[&["track", "set", &name, "30", "--yes"], database].concat()).output();
        };
        let [first, second] = ["0000000000000000", "2000000000000000"];
        let merge = [&["segments", "merge", "balances", first, "--yes"], database].concat();
        reached(second);
        let refused = sandbox.run(&[&merge[..], &["--wait", "0"]].concat());
        refused.fails_with(3, "are at positions -1 and 30");
        refused.fails_with(3, "hint: --wait sets the time");
        let mut merging = start_waiting(sandbox, &merge, "are at positions -1 and 30");
        reached(first);
        assert!(merging.0.wait().unwrap().success());
        let list = sandbox.run(&[&["segments", "list", "balances", "--format", "json"], database].concat());
        assert_eq!(list.output().lines().count(), 3);
        assert!(
            list.output()
                .starts_with(r#"{"consumer":"balances","segment":"0000000000000000","last_hash":"3fff"#)
        );
    });
}

/// Starts the tool, and returns when it waits for the reason.
fn start_waiting(sandbox: &Sandbox, arguments: &[&str], reason: &str) -> Running {
    let mut command = sandbox.command(arguments);
    let mut running = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
    let mut warning = String::new();
    BufReader::new(running.0.stderr.take().unwrap()).read_line(&mut warning).unwrap();
    assert!(warning.contains("waiting for the positions") && warning.contains(reason), "{warning}");
    running
}

/// A worker has recorded the position of the segment, and has not committed yet.
#[test]
fn a_split_waits_until_no_commit_has_the_position() {
    let Some(schema) = Schema::with_python_database() else { return };
    let sandbox = schema.sandbox();
    change(schema.settings(), "balances", four());
    let record = format!(
        "UPDATE {}.bank_tracking SET notification_id = 30 WHERE application_name = 'balances/0000000000000000/0'",
        schema.name
    );
    let recording = schema.begin(&record);
    let split = ["segments", "split", "balances", "0", "--yes", "--application", "bank"];
    let refused = sandbox.run(&[&split[..], &["--wait", "0"]].concat());
    refused.fails_with(3, "is being recorded");
    let mut splitting = start_waiting(&sandbox, &split, "is being recorded");
    recording.commit();
    assert!(splitting.0.wait().unwrap().success());
    let list = sandbox.run(&["segments", "list", "balances", "--application", "bank"]);
    let positions: Vec<_> =
        list.output().lines().skip(1).map(|line| line.split_whitespace().nth(2).unwrap()).collect();
    assert_eq!(positions, ["30", "30", "0", "0", "0"]);
}

/// Consumers go on in the copy at the position of each segment.
#[test]
fn segments_are_copied() {
    // The name is a part of those of the positions.
    const NAME: &str = "b/ö \"'%_\\/0";
    for (from, to) in PAIRS {
        let Some(copying) = Copying::between(from, to) else { continue };
        let change = |context, change_| change(copying.settings(context), NAME, change_);
        let copy = || copying.run(&["copy", "from", "to", "--yes"])["trackers"].clone();
        let set = |context, name: &str, position| {
            copying.sandbox.run(&["track", "set", name, position, "--yes", "-d", context]).output();
        };
        // Ranges and positions.
        let list = |context| {
            let segments =
                copying.sandbox.run(&["segments", "list", NAME, "-d", context]).output().to_owned();
            let columns = |line: &str| line.split_whitespace().take(4).collect::<Vec<_>>().join(" ");
            segments.lines().map(columns).collect::<Vec<_>>()
        };
        change("from", four());
        let split = change("from", SegmentChange::Split { first_hash: 0 });
        let names: Vec<_> = split.segments.iter().map(|segment| segment.tracking_name(NAME)).collect();
        set("from", &names[1], "20");
        assert_eq!(copy(), 2 + 5);
        copying.assert_equal();
        assert_eq!((list("from"), copy()), (list("to"), 0.into()));

        // A later copy, after a claim.
        let worker = || "worker".to_owned();
        let lease = Duration::from_secs(3_600);
        change("from", SegmentChange::Renew { worker: worker(), lease });
        let first_hash = split.segments[2].first_hash;
        let claimed = change("from", SegmentChange::Claim { worker: worker(), lease, first_hash });
        set("from", &claimed.segments[2].tracking_name(NAME), "30");
        assert_eq!(copy(), 5);
        assert_eq!((list("from"), copy()), (list("to"), 0.into()));
        let is_claimed = |context| {
            let list = copying.sandbox.run(&["segments", "list", NAME, "-d", context]);
            list.output().contains("worker")
        };
        assert!(is_claimed("from") && !is_claimed("to"));

        // The copy is in use.
        let refused = |message| {
            let run = copying.sandbox.run(&["copy", "from", "to", "--yes"]);
            run.fails_with(2, "are not replaced");
            run.fails_with(2, message);
        };
        let copied = change("to", SegmentChange::Renew { worker: worker(), lease });
        set("from", &names[1], "25");
        refused("it has workers");
        change("to", SegmentChange::Leave { worker: worker() });
        set("to", &copied.segments[1].tracking_name(NAME), "26");
        refused("it has processed more");
        set("from", &names[1], "27");
        assert_eq!(copy(), 5);
        assert_eq!(list("from"), list("to"));
    }
}
