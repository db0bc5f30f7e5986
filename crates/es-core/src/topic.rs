//! The name under which an event type is stored.

use std::{borrow::Borrow, cmp::Ordering, fmt, ops::Deref, sync::Arc};

/// The name under which an event type is stored, such as `bank:Account.Opened`.
///
/// A topic of a new event:
/// - is not empty,
/// - has no NUL character, which PostgreSQL's `text` cannot hold.
///
/// A topic that was read from a database may be any text: see [`from_stored`](Self::from_stored).
///
/// The convention is `module:Qualified.Name`, which the Python library can resolve. Cloning does not copy
/// the text.
///
/// ```
/// use es_core::Topic;
///
/// assert_eq!(Topic::new("bank:Account.Opened")?, "bank:Account.Opened");
/// assert!(Topic::new("").is_err());
/// # Ok::<(), es_core::PersistenceError>(())
/// ```
#[derive(Clone)]
pub struct Topic(Text);

#[derive(Clone)]
enum Text {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Topic {
    /// The topic of a recorded event, with any text: for recorders.
    ///
    /// The Python library records any text, even an empty one. Readers that do not decode events can read
    /// and copy such an event; a mapper fails with an error that names it.
    ///
    /// ```
    /// use es_core::Topic;
    ///
    /// assert_eq!(Topic::from_stored(""), "");
    /// ```
    pub fn from_stored(text: impl Into<Arc<str>>) -> Self {
        Self(Text::Shared(text.into()))
    }

    /// A topic from a literal, without a copy.
    ///
    /// # Panics
    /// If the literal is not a valid topic; at compile time if the result is a constant.
    #[expect(clippy::panic, reason = "a wrong literal is a mistake in the program, found at its first run")]
    pub const fn from_static(text: &'static str) -> Self {
        if invalid_reason(text).is_some() {
            panic!("a topic is not empty and has no NUL character");
        }
        Self(Text::Static(text))
    }

    /// Concatenates lists of literals, for the [`TOPICS`](crate::Event::TOPICS) of a type that wraps other
    /// event types: `derive(Event)` calls it.
    ///
    /// ```
    /// use es_core::Topic;
    ///
    /// const ORDER: &[Topic] = &[Topic::from_static("shop:Order.Placed")];
    /// const STOCK: &[Topic] = &[Topic::from_static("shop:Stock.Reserved")];
    /// const BOTH: &[Topic] = &Topic::concat::<2>(&[ORDER, STOCK]);
    /// assert_eq!(BOTH[1], "shop:Stock.Reserved");
    /// ```
    ///
    /// # Panics
    /// If `N` is not the number of topics, or a topic is not a literal or is in the lists twice; at compile
    /// time if the result is a constant.
    #[expect(clippy::panic, reason = "a mistake in a constant, found when the program is compiled")]
    pub const fn concat<const N: usize>(lists: &[&[Self]]) -> [Self; N] {
        let mut all = [const { Self::from_static("-") }; N];
        let (mut length, mut list) = (0, 0);
        while list < lists.len() {
            let mut at = 0;
            while at < lists[list].len() {
                let Text::Static(text) = lists[list][at].0 else { panic!("a topic is not a literal") };
                let mut earlier = 0;
                while earlier < length {
                    let Text::Static(other) = all[earlier].0 else { panic!("a topic is not a literal") };
                    assert!(!is_equal(text, other), "two types have the same topic");
                    earlier += 1;
                }
                // The replaced one has nothing to drop, which a constant function cannot know.
                std::mem::forget(std::mem::replace(&mut all[length], Self(Text::Static(text))));
                length += 1;
                at += 1;
            }
            list += 1;
        }
        assert!(length == N, "the lists have another number of topics");
        all
    }

    /// Returns the text of the topic.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Text::Static(text) => text,
            Text::Shared(text) => text,
        }
    }
}

const fn is_equal(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut at = 0;
    while at < one.len() && at < other.len() && one[at] == other[at] {
        at += 1;
    }
    at == one.len() && at == other.len()
}

/// Returns the reason why a text is not a valid topic.
pub(crate) const fn invalid_reason(text: &str) -> Option<&'static str> {
    let bytes = text.as_bytes();
    if bytes.is_empty() {
        return Some("is empty");
    }
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at] == 0 {
            return Some("has a NUL character");
        }
        at += 1;
    }
    None
}

impl Deref for Topic {
    type Target = str;

    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Topic {
    fn as_ref(&self) -> &str {
        self
    }
}

impl Borrow<str> for Topic {
    fn borrow(&self) -> &str {
        self
    }
}

impl PartialEq for Topic {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Topic {}

impl PartialEq<str> for Topic {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Topic {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl std::hash::Hash for Topic {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl PartialOrd for Topic {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Topic {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_str().cmp(other.as_str())
    }
}

impl fmt::Display for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

impl fmt::Debug for Topic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}
