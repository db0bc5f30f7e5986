//! The spans of consumers, and the trace contexts in the metadata of events.

#![cfg(feature = "opentelemetry")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "these are tests")]

use std::time::Duration;

use es_core::{
    DomainEvent, EventNotification, EventRange, EventStore, Expected, Mapper, Metadata, TrackingRecorderExt,
    uuid::Uuid,
};
use es_derive::Event;
use es_popo::PopoProcessRecorder;
use es_process::{MetadataTraceExt, NewEvents, Processor};
use es_transcode::JsonTranscoder;
use opentelemetry::{
    Context, global,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceContextExt, Tracer},
};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};

#[derive(Event)]
#[event(topic = "shop:Order.Placed")]
struct Placed;

#[derive(Event)]
#[event(topic = "shop:Stock.Reserved")]
struct Reserved;

const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";

const ORDERS: [Uuid; 4] = [Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3), Uuid::from_u128(4)];

async fn reserve(
    notification: EventNotification<Placed>,
) -> Result<NewEvents<JsonTranscoder>, std::io::Error> {
    if notification.event.originator_id == ORDERS[3] {
        return Err(std::io::Error::other("out of stock"));
    }
    let own = Metadata::new().with("in", traceparent(Context::current().span().span_context()));
    let event = DomainEvent::new(notification.event.originator_id, 1, Reserved).with_metadata(own);
    Ok([event].into_iter().collect())
}

fn traceparent(span_context: &SpanContext) -> String {
    Metadata::new().with_span_context(span_context).traceparent().unwrap().to_owned()
}

#[tokio::test]
async fn a_consumers_span_links_to_the_producers_and_is_the_trace_context_of_new_events() {
    let exporter = InMemorySpanExporter::default();
    global::set_tracer_provider(SdkTracerProvider::builder().with_simple_exporter(exporter.clone()).build());
    let mapper = Mapper::new(JsonTranscoder::new());
    let orders = EventStore::new(PopoProcessRecorder::new(), mapper.clone());
    let stock = EventStore::new(PopoProcessRecorder::new(), mapper);

    let tracer = global::tracer("shop");
    let producer = Context::new().with_span(tracer.start("place"));
    let sampled = {
        let _current = producer.clone().attach();
        Metadata::new().with_current_span()
    };
    let (producer, metadata) = (producer.span().span_context().clone(), Metadata::new());
    let all = [sampled, metadata.clone().with_traceparent(UNSAMPLED), metadata.with_traceparent("00-1-2-3")];
    for (id, metadata) in ORDERS.into_iter().zip(all.iter().chain([&Metadata::new()])) {
        orders.append_with_metadata(id, Expected::New, metadata, [Placed]).await.unwrap();
    }

    let mut running = Processor::for_events("fulfilment", &orders, &stock, reserve).spawn().unwrap();
    stock.recorder().wait("fulfilment", 3, Duration::from_secs(60)).await.unwrap();
    running.join().await.unwrap_err();

    let spans = exporter.get_finished_spans().unwrap();
    let spans: Vec<_> = spans.iter().filter(|span| span.name == "process fulfilment").collect();
    let links: Vec<Vec<_>> = spans
        .iter()
        .map(|span| span.links.iter().map(|link| traceparent(&link.span_context)).collect())
        .collect();
    assert_eq!(links, [vec![traceparent(&producer)], vec![UNSAMPLED.to_owned()], vec![], vec![]]);
    for (span, id) in spans.iter().zip(ORDERS) {
        // A trace of its own.
        assert_eq!((span.parent_span_id, span.span_kind.clone()), (SpanId::INVALID, SpanKind::Consumer));
        assert_eq!(matches!(span.status, Status::Error { .. }), id == ORDERS[3]);
        let new = stock.get::<Reserved>(id, EventRange::all()).await.unwrap();
        for event in new {
            let expected = traceparent(&span.span_context);
            assert_eq!(event.metadata.traceparent(), Some(expected.as_str()));
            assert_eq!(event.metadata.get("in"), Some(expected.as_str()), "the span is the current one");
        }
    }
}

#[test]
fn a_malformed_traceparent_is_ignored() {
    let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
    let accepted = [
        (format!("00-{trace}-{span}-01"), format!("00-{trace}-{span}-01")),
        // Only the flag for sampling has a meaning.
        (format!("00-{trace}-{span}-fe"), format!("00-{trace}-{span}-00")),
        // A later version may have more fields.
        (format!("cc-{trace}-{span}-01"), format!("00-{trace}-{span}-01")),
        (format!("cc-{trace}-{span}-01-more-"), format!("00-{trace}-{span}-01")),
    ];
    for (text, expected) in accepted {
        let parsed = Metadata::new().with_traceparent(text).span_context().unwrap();
        assert_eq!(traceparent(&parsed), expected);
        assert!(parsed.is_remote());
    }
    let malformed = [
        String::new(),
        format!("00-{trace}-{span}"),
        format!("00-{trace}-{span}-01-more"),
        format!("00-{trace}-{span}-01-"),
        format!("ff-{trace}-{span}-01"),
        format!("0-{trace}-{span}-01"),
        format!("00-{trace}-{span}-1"),
        format!("00-{trace}0-{span}-01"),
        format!("00-{}-{span}-01", trace.to_uppercase()),
        format!("00-+{}-{span}-01", &trace[1..]),
        format!("00-{}-{span}-01", "0".repeat(32)),
        format!("00-{trace}-{}-01", "0".repeat(16)),
        format!("00-{trace}-{}é-01", &span[2..]),
    ];
    for text in malformed {
        assert!(Metadata::new().with_traceparent(text.clone()).span_context().is_none(), "{text}");
    }
    assert_eq!(Metadata::new().span_context(), None);
}

#[test]
fn without_a_span_there_is_no_trace_context() {
    assert!(Metadata::new().with_current_span().is_empty());
    let kept = Metadata::new().with_traceparent("from elsewhere").with_current_span();
    assert_eq!(kept.traceparent(), Some("from elsewhere"));
}
