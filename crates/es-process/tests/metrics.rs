//! The metrics that a processor reports to the `metrics` facade.

#![cfg(feature = "metrics")]
#![allow(clippy::unwrap_used, reason = "these are tests")]

use std::{convert::Infallible, time::Duration};

use es_core::{AggregateRecorder, Bytes, Notification, StoredEvent, Topic, TrackingRecorderExt, uuid::Uuid};
use es_popo::{PopoApplicationRecorder, PopoProcessRecorder};
use es_process::Processor;
use metrics_util::debugging::{DebugValue, DebuggingRecorder};

#[test]
fn position_lag_and_counts_are_reported_under_the_processors_name() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&recorder, || runtime.block_on(process_three()));

    let values: Vec<(String, DebugValue)> = snapshotter
        .snapshot()
        .into_vec()
        .into_iter()
        .map(|(key, _, _, value)| {
            let labels: Vec<_> = key.key().labels().map(|label| (label.key(), label.value())).collect();
            assert_eq!(labels[0], ("processor", "audit"));
            let reason: String =
                labels[1..].iter().map(|(label, value)| format!("{label}={value}")).collect();
            (key.key().name().to_owned() + &reason, value)
        })
        .collect();
    let value = |name: &str| values.iter().find(|(known, _)| known == name).map(|(_, value)| value).unwrap();
    assert_eq!(value("es_processor_position"), &DebugValue::Gauge(3.0.into()));
    assert_eq!(value("es_processor_lag"), &DebugValue::Gauge(0.0.into()));
    assert_eq!(value("es_processor_notifications_total"), &DebugValue::Counter(3));
    assert_eq!(value("es_processor_commits_total"), &DebugValue::Counter(1));
    // It was cancelled while it waited, and did not run any more.
    assert_eq!(value("es_processor_running"), &DebugValue::Gauge(0.0.into()));
    assert_eq!(value("es_processor_stops_totalreason=cancelled"), &DebugValue::Counter(1));
    for nothing in ["es_processor_failures_total", "es_processor_parked_total", "es_processor_lost_total"] {
        assert_eq!(value(nothing), &DebugValue::Counter(0));
    }
}

async fn process_three() {
    let (bank, audit) = (PopoApplicationRecorder::new(), PopoProcessRecorder::new());
    let events = (1..=3).map(|originator_version| StoredEvent {
        originator_id: Uuid::nil(),
        originator_version,
        topic: Topic::from_static("bank:Account.Credited"),
        state: Bytes::new(),
    });
    bank.insert_events(events.collect()).await.unwrap();
    let handler = async |_: Notification| Ok::<_, Infallible>(Vec::new());
    let mut processor = Processor::new("audit", bank, audit.clone(), handler);
    tokio::select! {
        ended = processor.run() => ended.unwrap(),
        waited = audit.wait("audit", 3, Duration::from_secs(60)) => waited.unwrap(),
    }
}
