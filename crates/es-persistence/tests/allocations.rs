//! Upper bounds for the allocations of the hot paths: a performance regression test without a clock.
//!
//! An allocation costs tens of nanoseconds and, in all threads together, a lock; most of the cost of an
//! event besides its bytes is allocations. The bounds are the counts at the time of writing, plus a
//! tolerance for changes of dependencies and the standard library. A change that makes a bound too high
//! lowers it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test says what it expects by unwrapping it")]
#![allow(clippy::print_stdout, reason = "what was counted is shown when a bound is broken")]

use std::hint::black_box;

use allocation_counter::{AllocationInfo, measure};
use bigdecimal::BigDecimal;
use es_persistence::{
    AggregateRecorder, DomainEvent, Event, EventRange, Mapper, StoredEvent,
    compress::ZlibCompressor,
    crypto::AesCipher,
    popo::PopoApplicationRecorder,
    transcode::{JsonTranscoder, Registered},
    uuid::Uuid,
};
use futures_util::FutureExt;
use serde_with::serde_as;
use time::{OffsetDateTime, macros::datetime};

/// The number of repetitions of each path: the growth of reused buffers is spread over all of them.
const TIMES: u64 = 1_000;

/// One of each value that JSON lacks, and a text.
#[serde_as]
#[derive(Clone, Debug, PartialEq, Event)]
#[event(topic = "bank:Account.Transferred")]
struct Transferred {
    #[serde_as(as = "Registered")]
    transaction_id: Uuid,
    #[serde_as(as = "Registered")]
    booked_at: OffsetDateTime,
    #[serde_as(as = "Registered")]
    amount: BigDecimal,
    description: String,
}

fn transferred() -> DomainEvent<Transferred> {
    let payload = Transferred {
        transaction_id: Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef),
        booked_at: datetime!(2024-02-29 12:34:56.789012 UTC),
        amount: BigDecimal::new(123_456.into(), 2),
        description: "Invoice 2024-0815, thank you for shopping at Müller & Söhne".into(),
    };
    DomainEvent::at(Uuid::from_u128(1), 7, datetime!(2024-02-29 12:35:00.000123 UTC), payload)
}

/// Returns the allocations and bytes per repetition, after one that fills the reused buffers.
fn per_call(mut path: impl FnMut()) -> (f64, f64) {
    path();
    let AllocationInfo { count_total, bytes_total, .. } = measure(|| (0..TIMES).for_each(|_| path()));
    (count_total as f64 / TIMES as f64, bytes_total as f64 / TIMES as f64)
}

/// Asserts a maximum of allocations and bytes, with a tolerance of one allocation in ten.
#[track_caller]
fn assert_within(path: &str, (count, bytes): (f64, f64), most: f64, most_bytes: f64) {
    println!("{path}: {count} allocations, {bytes} bytes");
    assert!(count <= most * 1.1, "{path}: {count} allocations per call, {most} when this was written");
    assert!(bytes <= most_bytes * 1.1, "{path}: {bytes} bytes per call, {most_bytes} when this was written");
}

#[test]
fn a_mapper_of_json() {
    let (mapper, event) = (Mapper::new(JsonTranscoder::new()), transferred());
    let stored = mapper.to_stored_event(&event).unwrap();
    assert_eq!(mapper.to_domain_event::<Transferred>(&stored).unwrap(), event);

    let put = per_call(|| drop(black_box(mapper.to_stored_event(black_box(&event)).unwrap())));
    assert_within("put", put, 9.0, 1_071.0);
    let get =
        per_call(|| drop(black_box(mapper.to_domain_event::<Transferred>(black_box(&stored)).unwrap())));
    assert_within("get", get, 6.0, 220.0);
}

#[test]
fn a_mapper_with_all_codecs() {
    let cipher = AesCipher::from_base64(&AesCipher::create_key(32).unwrap()).unwrap();
    let mapper =
        Mapper::new(JsonTranscoder::new()).with_compressor(ZlibCompressor::new()).with_cipher(cipher);
    let event = transferred();
    let stored = mapper.to_stored_event(&event).unwrap();

    let put = per_call(|| drop(black_box(mapper.to_stored_event(black_box(&event)).unwrap())));
    assert_within("put", put, 10.0, 1_331.0);
    let get =
        per_call(|| drop(black_box(mapper.to_domain_event::<Transferred>(black_box(&stored)).unwrap())));
    assert_within("get", get, 8.0, 1_380.0);
}

#[test]
fn a_recorder_in_memory() {
    let recorder = PopoApplicationRecorder::new();
    let stored = Mapper::new(JsonTranscoder::new()).to_stored_event(&transferred()).unwrap();

    let mut version = 0;
    let mut insert = || {
        version += 1;
        let event = StoredEvent { originator_version: version, ..stored.clone() };
        // It never waits, so the future is ready at once.
        let ids = recorder.insert_events(vec![event]).now_or_never();
        assert_eq!(ids.unwrap().unwrap(), [version]);
    };
    assert_within("insert", per_call(&mut insert), 2.0, 121.0);

    let mut select = || {
        let events =
            recorder.select_events(stored.originator_id, EventRange::all().gt(1).limit(10)).now_or_never();
        assert_eq!(black_box(events.unwrap().unwrap()).len(), 10);
    };
    assert_within("select", per_call(&mut select), 1.0, 800.0);
}
