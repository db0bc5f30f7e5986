//! Outside of a tokio runtime, or in one without timers or input/output, the library panicked inside its pool
//! or its driver. It returns an error of kind `Interface` before anything is started.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test unwraps what it expects")]

mod common;

use common::prelude::*;
use tokio::runtime::{Builder, Runtime};

fn assert_interface<T>(result: Option<Result<T, PersistenceError>>, words: &str) {
    let error = result.expect("it should not wait").map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interface, "{error:?}");
    assert!(error.to_string().contains(words), "{error}");
}

#[test]
fn opening_outside_of_a_runtime_is_an_error() {
    let options = PostgresOptions::new("events").host("127.0.0.1").port(1);
    assert_interface(options.open().now_or_never(), "outside of a tokio runtime");
}

#[test]
fn opening_in_a_runtime_without_a_driver_is_an_error() {
    let options = PostgresOptions::new("events").host("127.0.0.1").port(1);
    for (runtime, words) in [
        (Builder::new_current_thread().enable_io().build(), "enable_time"),
        (Builder::new_current_thread().enable_time().build(), "enable_io"),
        (Builder::new_multi_thread().worker_threads(1).build(), "enable_time"),
    ] {
        let opened = runtime.unwrap().block_on(options.clone().open());
        assert_interface(Some(opened), words);
    }
}

#[test]
fn a_recorder_outside_of_its_runtime_returns_an_error() {
    let runtime = Runtime::new().unwrap();
    let schema = runtime.block_on(Schema::create());
    let datastore = runtime.block_on(schema.open());
    let recorder = runtime.block_on(datastore.process_recorder("bank")).unwrap();
    runtime.block_on(recorder.insert_events(vec![first()])).unwrap();

    let words = "outside of a tokio runtime";
    assert_interface(datastore.application_recorder("bank").now_or_never(), words);
    assert_interface(recorder.max_notification_id().now_or_never(), words);
    assert_interface(recorder.select_events(Uuid::nil(), EventRange::all()).now_or_never(), words);
    assert_interface(recorder.max_tracking_id("bank").now_or_never(), words);
    assert_interface(recorder.close().now_or_never(), words);
    assert_interface(datastore.close().now_or_never(), words);

    // Nothing was closed.
    assert_eq!(runtime.block_on(recorder.max_notification_id()).unwrap(), Some(1));
    runtime.block_on(recorder.close()).unwrap();
}
