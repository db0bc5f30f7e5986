//! The span of a consumer for each event, by OpenTelemetry, where that feature is compiled in.

#[cfg(feature = "opentelemetry")]
mod opentelemetry {
    use std::future::Future;

    use es_core::{DomainEvent, Metadata};
    use opentelemetry::{
        Context, KeyValue,
        context::FutureExt,
        global,
        trace::{Link, SpanBuilder, SpanKind, Status, TraceContextExt, Tracer},
    };

    use crate::MetadataTraceExt;

    /// The name of the tracer.
    const TRACER: &str = "es-process";

    /// The span in which an event is handled. It ends when this is dropped.
    pub(crate) struct ConsumerSpan(Context);

    impl ConsumerSpan {
        /// Starts a span that links to that of the producer, by the tracer provider that is installed now.
        pub(crate) fn start<E>(consumer_name: &str, event: &DomainEvent<E>) -> Self {
            let links = event.metadata.span_context().map(Link::with_context).into_iter().collect();
            let attributes = [
                KeyValue::new("messaging.system", "es-persistence"),
                KeyValue::new("messaging.operation.type", "process"),
                KeyValue::new("messaging.consumer.group.name", consumer_name.to_owned()),
                KeyValue::new("messaging.message.id", event.event_id()),
            ];
            let span = SpanBuilder::from_name(format!("process {consumer_name}"))
                .with_kind(SpanKind::Consumer)
                .with_links(links)
                .with_attributes(attributes);
            // Without a parent: a span in which the processor runs has no end.
            let root = Context::new();
            let span = global::tracer(TRACER).build_with_context(span, &root);
            Self(root.with_span(span))
        }

        /// Sets the `traceparent` to this span.
        pub(crate) fn add_to(&self, metadata: Metadata) -> Metadata {
            metadata.with_span_context(self.0.span().span_context())
        }

        /// Polls a future with this span as the current one, and records whether it failed.
        pub(crate) async fn record<O, E>(
            &self,
            future: impl Future<Output = Result<O, E>> + Send,
        ) -> Result<O, E> {
            let result = future.with_context(self.0.clone()).await;
            if result.is_err() {
                self.0.span().set_status(Status::error("the event could not be handled"));
            }
            result
        }
    }
}

#[cfg(not(feature = "opentelemetry"))]
mod opentelemetry {
    use std::future::Future;

    use es_core::{DomainEvent, Metadata};

    /// No span.
    pub(crate) struct ConsumerSpan;

    impl ConsumerSpan {
        pub(crate) fn start<E>(_consumer_name: &str, _event: &DomainEvent<E>) -> Self {
            Self
        }

        pub(crate) fn add_to(&self, metadata: Metadata) -> Metadata {
            metadata
        }

        pub(crate) async fn record<O, E>(
            &self,
            future: impl Future<Output = Result<O, E>> + Send,
        ) -> Result<O, E> {
            future.await
        }
    }
}

pub(crate) use self::opentelemetry::ConsumerSpan;
