//! The trace context of W3C in the metadata of events, for OpenTelemetry.

use es_core::Metadata;
use opentelemetry::{
    Context, SpanId, TraceFlags, TraceId,
    trace::{SpanContext, TraceContextExt, TraceState},
};

/// The span contexts of OpenTelemetry in the `traceparent` of [`Metadata`].
///
/// A producer adds its span:
/// ```
/// use es_core::Metadata;
/// use es_process::MetadataTraceExt;
///
/// let metadata = Metadata::new().with_actor("alice").with_current_span();
/// # let _ = metadata;
/// ```
pub trait MetadataTraceExt {
    /// Sets the `traceparent` to the current span of OpenTelemetry; nothing if there is no span.
    #[must_use]
    fn with_current_span(self) -> Self;

    /// Sets the `traceparent` to this span context; nothing if it is not valid.
    #[must_use]
    fn with_span_context(self, span_context: &SpanContext) -> Self;

    /// Returns the span context of the `traceparent`, sampled or not; `None` if there is none, or it is
    /// malformed.
    fn span_context(&self) -> Option<SpanContext>;
}

impl MetadataTraceExt for Metadata {
    fn with_current_span(self) -> Self {
        self.with_span_context(Context::current().span().span_context())
    }

    fn with_span_context(self, span_context: &SpanContext) -> Self {
        if !span_context.is_valid() {
            return self;
        }
        let (trace_id, span_id) = (span_context.trace_id(), span_context.span_id());
        let flags = (span_context.trace_flags() & TraceFlags::SAMPLED).to_u8();
        self.with_traceparent(format!("00-{trace_id}-{span_id}-{flags:02x}"))
    }

    fn span_context(&self) -> Option<SpanContext> {
        self.traceparent().and_then(parse)
    }
}

/// Parses a `traceparent` of version 00, or the same fields of a later version.
fn parse(traceparent: &str) -> Option<SpanContext> {
    let mut fields = traceparent.splitn(5, '-');
    let version = hex(fields.next()?, 2)?;
    let trace_id = TraceId::from_hex(hex(fields.next()?, 32)?).ok()?;
    let span_id = SpanId::from_hex(hex(fields.next()?, 16)?).ok()?;
    let flags = u8::from_str_radix(hex(fields.next()?, 2)?, 16).ok()?;
    let has_more = fields.next().is_some();
    if version == "ff" || version == "00" && has_more {
        return None;
    }
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    let span_context = SpanContext::new(trace_id, span_id, flags, true, TraceState::default());
    span_context.is_valid().then_some(span_context)
}

/// Returns the text if it has this length and lower-case hexadecimal digits only.
fn hex(text: &str, length: usize) -> Option<&str> {
    let is_hex = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == length && text.bytes().all(is_hex)).then_some(text)
}
