//! Metadata of events: where they come from.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};

const CORRELATION_ID: &str = "correlation_id";
const CAUSATION_ID: &str = "causation_id";
const ACTOR: &str = "actor";
const TRACEPARENT: &str = "traceparent";

/// The metadata of an event: names and texts that describe where it comes from.
///
/// They are stored in the event's state, as one object under the reserved attribute `_metadata_`, and so are
/// compressed and encrypted with it. Without metadata the state has no such attribute, and its bytes are
/// those of the Python library, which ignores the attribute when it reads one.
///
/// Four names have a meaning. All others are the program's own, except `_type_`, which marks a registered
/// type in a stored state: it cannot be encoded. `Debug` shows the names only, since the texts
/// may be personal data.
///
/// ```
/// use es_core::{DomainEvent, Metadata, uuid::Uuid};
///
/// let metadata = Metadata::new().with_correlation_id(Uuid::now_v7()).with_actor("alice");
/// let metadata = metadata.with("shop", "north");
/// assert_eq!(metadata.actor(), Some("alice"));
/// assert_eq!(metadata.get("shop"), Some("north"));
/// let event = DomainEvent::new(Uuid::now_v7(), 1, "a payload").with_metadata(metadata);
/// # assert!(!event.metadata.is_empty());
/// ```
#[derive(Clone, Default, PartialEq, Eq, Hash)]
#[expect(clippy::box_collection, reason = "one pointer in every event, which mostly has no metadata")]
pub struct Metadata(Option<Box<BTreeMap<String, String>>>);

impl Metadata {
    /// No metadata.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns whether there is no metadata.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|texts| texts.is_empty())
    }

    /// Sets a text by its name, in place of an earlier one.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, text: impl Into<String>) -> Self {
        self.0.get_or_insert_default().insert(name.into(), text.into());
        self
    }

    /// Adds the texts of those names of `defaults` that are not set.
    #[must_use]
    pub fn with_defaults(mut self, defaults: &Self) -> Self {
        for (name, text) in defaults.iter() {
            if self.get(name).is_none() {
                self = self.with(name, text);
            }
        }
        self
    }

    /// Returns the text of a name.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.as_ref()?.get(name).map(String::as_str)
    }

    /// Iterates over all names and texts, in the order of names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().flat_map(|texts| texts.iter()).map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Sets the correlation id: the same for all events that follow from one request.
    #[must_use]
    pub fn with_correlation_id(self, id: impl Into<String>) -> Self {
        self.with(CORRELATION_ID, id)
    }

    /// Returns the correlation id.
    pub fn correlation_id(&self) -> Option<&str> {
        self.get(CORRELATION_ID)
    }

    /// Sets the causation id: the id of the command or of the event that caused this event.
    #[must_use]
    pub fn with_causation_id(self, id: impl Into<String>) -> Self {
        self.with(CAUSATION_ID, id)
    }

    /// Returns the causation id.
    pub fn causation_id(&self) -> Option<&str> {
        self.get(CAUSATION_ID)
    }

    /// Sets the actor: the user or the program that acted.
    #[must_use]
    pub fn with_actor(self, actor: impl Into<String>) -> Self {
        self.with(ACTOR, actor)
    }

    /// Returns the actor.
    pub fn actor(&self) -> Option<&str> {
        self.get(ACTOR)
    }

    /// Sets the trace context of W3C: the value of a `traceparent` header.
    #[must_use]
    pub fn with_traceparent(self, traceparent: impl Into<String>) -> Self {
        self.with(TRACEPARENT, traceparent)
    }

    /// Returns the trace context of W3C.
    pub fn traceparent(&self) -> Option<&str> {
        self.get(TRACEPARENT)
    }
}

impl fmt::Debug for Metadata {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metadata")?;
        f.debug_set().entries(self.iter().map(|(name, _)| name)).finish()
    }
}

impl Serialize for Metadata {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.get("_type_").is_some() {
            return Err(S::Error::custom("`_type_` is reserved and cannot be a name of metadata"));
        }
        serializer.collect_map(self.iter())
    }
}

impl<'de> Deserialize<'de> for Metadata {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let texts = BTreeMap::deserialize(deserializer)?;
        Ok(Self((!texts.is_empty()).then(|| Box::new(texts))))
    }
}
