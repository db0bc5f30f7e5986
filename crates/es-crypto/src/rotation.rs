//! The rotation of keys: which keys a table needs, and its re-encryption.

use std::{collections::BTreeMap, fmt};

use es_core::{Bytes, Cipher, EventKey, PersistenceError, StateMaintenance, StateReplacement, StoredEvent};

use crate::KeyRing;

/// The number of events of a page: one transaction, which other writers wait for on SQLite.
const PAGE_SIZE: usize = 500;

/// Encrypts the states of a table again, with the primary key of a ring, while the table is in use.
///
/// Every process that reads or writes the table must have a ring with the new primary key. States that are
/// encrypted with it already are left as they are. Each page is one transaction. It can be interrupted at
/// any point, also by a crash: every state is then encrypted with one key of the ring, and another
/// re-encryption continues.
///
/// Events and snapshots are in different tables, with a recorder each.
///
/// ```no_run
/// # use es_core::{PersistenceError, StateMaintenance};
/// use es_crypto::{KeyRing, KeyUsage, Reencryption};
///
/// async fn rotate<R: StateMaintenance>(events: &R, ring: &KeyRing) -> Result<(), PersistenceError> {
///     let mut reencryption = Reencryption::new(events, ring);
///     while let Some(page) = reencryption.next_page().await? {
///         println!("{} of {} states were encrypted again", page.replaced, page.read);
///     }
///     // The old key can be removed from the rings if no table has states that need it.
///     assert_eq!(KeyUsage::of(events).await?.states(Some(1)), 0);
///     Ok(())
/// }
/// ```
pub struct Reencryption<'a, R> {
    recorder: &'a R,
    ring: &'a KeyRing,
    after: Option<EventKey>,
}

/// A page of a [`Reencryption`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReencryptedPage {
    /// The number of states that were read.
    pub read: usize,
    /// The number of states that were encrypted again.
    pub replaced: usize,
    /// The last event of the page, after which a re-encryption [continues](Reencryption::after).
    pub last: EventKey,
}

impl<'a, R: StateMaintenance> Reencryption<'a, R> {
    /// A re-encryption of the table of a recorder, from its first event on.
    pub fn new(recorder: &'a R, ring: &'a KeyRing) -> Self {
        Self { recorder, ring, after: None }
    }

    /// Continues after an event, of which an earlier re-encryption of the same key has reported that it is
    /// done.
    #[must_use]
    pub fn after(mut self, key: EventKey) -> Self {
        self.after = Some(key);
        self
    }

    /// Encrypts the states of the next page again; returns `None` after the last one.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if a state cannot be decrypted by the ring, which names the event;
    /// any error of the recorder. The next call tries the same page again.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn next_page(&mut self) -> Result<Option<ReencryptedPage>, PersistenceError> {
        let events = self.recorder.select_by_key(self.after, PAGE_SIZE).await?;
        let Some(last) = events.last().map(StoredEvent::key) else { return Ok(None) };
        let primary = Some(self.ring.primary_key_id());
        let mut replacements = Vec::new();
        for event in &events {
            if KeyRing::key_id(&event.state) == primary {
                continue;
            }
            let (context, mut plaintext, mut state) = (event.context(), Vec::new(), Vec::new());
            self.ring
                .decrypt(&context, &event.state, &mut plaintext)
                .and_then(|()| self.ring.encrypt(&context, &plaintext, &mut state))
                .map_err(|error| error.with_event(&context))?;
            replacements.push(StateReplacement {
                key: event.key(),
                current: event.state.clone(),
                replacement: Bytes::from(state),
            });
        }
        let replaced = match replacements.len() {
            0 => 0,
            _ => self.recorder.replace_states(replacements).await?,
        };
        self.after = Some(last);
        Ok(Some(ReencryptedPage { read: events.len(), replaced, last }))
    }
}

/// The number of states that need each key. A key can be removed from the rings when no table needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyUsage(BTreeMap<Option<u32>, u64>);

impl KeyUsage {
    /// Counts the states of the table of a recorder. All rows are read, in pages.
    ///
    /// # Errors
    /// Any error of reading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn of<R: StateMaintenance>(recorder: &R) -> Result<Self, PersistenceError> {
        let (mut usage, mut after) = (Self::default(), None);
        loop {
            let events = recorder.select_by_key(after, PAGE_SIZE).await?;
            let Some(last) = events.last() else { return Ok(usage) };
            after = Some(last.key());
            for event in &events {
                *usage.0.entry(KeyRing::key_id(&event.state)).or_default() += 1;
            }
        }
    }

    /// Returns the number of states that need a key; `None` is for states without an envelope, which need the
    /// legacy key or are not encrypted.
    pub fn states(&self, key_id: Option<u32>) -> u64 {
        self.0.get(&key_id).copied().unwrap_or(0)
    }

    /// Iterates over the keys and the numbers of their states, those without an envelope first.
    pub fn iter(&self) -> impl Iterator<Item = (Option<u32>, u64)> {
        self.0.iter().map(|(key_id, states)| (*key_id, *states))
    }
}

/// Counts the ids of the keys that states need, such as those of another table.
impl FromIterator<Option<u32>> for KeyUsage {
    fn from_iter<I: IntoIterator<Item = Option<u32>>>(key_ids: I) -> Self {
        let mut usage = Self::default();
        key_ids.into_iter().for_each(|key_id| *usage.0.entry(key_id).or_default() += 1);
        usage
    }
}

impl<R: fmt::Debug> fmt::Debug for Reencryption<'_, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { recorder, ring, after } = self;
        f.debug_struct("Reencryption")
            .field("recorder", recorder)
            .field("ring", ring)
            .field("after", after)
            .finish()
    }
}
