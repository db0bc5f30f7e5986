//! derive(Event): topic, version and flat state of an event type.
