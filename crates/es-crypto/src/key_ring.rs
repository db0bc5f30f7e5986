//! A cipher with several keys, of which one encrypts.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use es_core::{Cipher, EventContext, PersistenceError};

use crate::{
    AesCipher, AesKey, EnvelopeAlgorithm,
    envelope::{Envelope, Header},
    gcm::{Gcm, TAG_LENGTH},
    key::fill_random,
    xaes::{XAES_NONCE_LENGTH, XaesKey},
};

/// The size of a key in a ring.
const KEY_BITS: usize = 256;

/// The number of states encrypted with one key at which a warning is logged, and again at each doubling: a
/// sixteenth of the 2³² that one key of AES-256-GCM may encrypt.
const FIRST_WARNING: u64 = 1 << 28;

/// Encrypts the state of events with one of several keys, and decrypts with all of them.
///
/// Each key has an id, which the [envelope](crate#key-rings) of a state names. One key is the primary key: it
/// encrypts new states. To rotate, add the new key to the rings of all processes, then make it the primary
/// key in each; the old key stays in the ring for the states that need it.
///
/// An encrypted state is bound to its event: if it is moved to another aggregate, version or topic, it cannot
/// be decrypted. States without an envelope, which [`AesCipher`] or the Python library wrote, are decrypted
/// with the [legacy key](KeyRingBuilder::legacy_key).
///
/// A ring is a handle: its clones share the keys and the primary key.
///
/// ```
/// use es_core::{Cipher, EventContext, Topic, uuid::Uuid};
/// use es_crypto::{AesKey, KeyRing};
///
/// let ring = KeyRing::builder().key(1, AesKey::random(32)?).build()?;
/// let topic = Topic::from_static("bank:Account.Opened");
/// let context = EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic };
/// let mut encrypted = Vec::new();
/// ring.encrypt(&context, b"state", &mut encrypted)?;
/// assert_eq!(KeyRing::key_id(&encrypted), Some(1));
///
/// // Bound to its event.
/// let moved = EventContext { originator_version: 2, ..context };
/// assert!(ring.decrypt(&moved, &encrypted, &mut Vec::new()).is_err());
/// # Ok::<(), es_core::PersistenceError>(())
/// ```
#[derive(Clone)]
pub struct KeyRing(Arc<Ring>);

struct Ring {
    keys: BTreeMap<u32, RingKey>,
    /// The keys of the provider, once they were asked for.
    provided: ProvidedKeys,
    provider: Option<Box<dyn KeyProvider>>,
    legacy: Option<AesCipher>,
    algorithm: EnvelopeAlgorithm,
    primary: AtomicU32,
}

/// Provides keys at run time, such as those of a key management service.
///
/// A ring asks for a key when it is first needed, and keeps it. It asks for a missing key each time. The call
/// blocks the task that maps an event: answer from memory or a local file, and load keys beforehand.
pub trait KeyProvider: fmt::Debug + Send + Sync + 'static {
    /// Returns the key with an id; `None` if there is none.
    ///
    /// # Errors
    /// If the key cannot be read now. The error contains no key.
    fn key(&self, id: u32) -> Result<Option<AesKey>, PersistenceError>;
}

impl KeyRing {
    /// Returns a builder of a key ring.
    pub fn builder() -> KeyRingBuilder {
        KeyRingBuilder::default()
    }

    /// Returns the ids of the keys, in ascending order, without those of a provider.
    pub fn key_ids(&self) -> impl Iterator<Item = u32> {
        self.0.keys.keys().copied()
    }

    /// Returns whether states without an envelope are decrypted.
    pub fn has_legacy_key(&self) -> bool {
        self.0.legacy.is_some()
    }

    /// Returns the id of the primary key.
    pub fn primary_key_id(&self) -> u32 {
        self.0.primary.load(Ordering::Relaxed)
    }

    /// Encrypts with another key of the ring from now on.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the ring does not have the key; any error of the
    /// provider.
    pub fn set_primary_key_id(&self, id: u32) -> Result<(), PersistenceError> {
        self.0.primary_key(id)?;
        self.0.primary.store(id, Ordering::Relaxed);
        Ok(())
    }

    /// Returns the number of states that this ring has encrypted with a key. Other processes have rings of
    /// their own.
    pub fn encrypted(&self, id: u32) -> u64 {
        let known = self.0.known(id);
        known.map_or(0, |key| key.encrypted.load(Ordering::Relaxed))
    }

    /// Returns the id of the key that an encrypted state needs; `None` if it has no envelope. The state is
    /// not authenticated.
    pub fn key_id(state: &[u8]) -> Option<u32> {
        Some(Envelope::read(state)?.ok()?.header.key_id)
    }
}

impl Cipher for KeyRing {
    fn encrypt(
        &self,
        context: &EventContext<'_>,
        plaintext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        let algorithm = self.0.algorithm;
        let key_id = self.primary_key_id();
        let key = self.0.primary_key(key_id)?;
        let header = Header { algorithm, key_id };
        let associated_data = header.associated_data(context)?;
        let mut nonce = [0; XAES_NONCE_LENGTH];
        let nonce = &mut nonce[..algorithm.nonce_length()];
        fill_random(nonce)?;
        let start = out.len();
        let text_start = header.append_envelope(nonce, plaintext, out);
        // In bounds: the envelope was appended above, and the tag is before the text.
        let (head, text) = out.split_at_mut(text_start);
        let Some(tag) = key.seal(algorithm, nonce, &associated_data, text) else {
            out.truncate(start);
            return Err(PersistenceError::data(format!(
                "a state of {} bytes is longer than AES-GCM can encrypt",
                plaintext.len()
            )));
        };
        head[text_start - TAG_LENGTH..].copy_from_slice(&tag);
        key.count(key_id, algorithm);
        Ok(())
    }

    fn decrypt(
        &self,
        context: &EventContext<'_>,
        ciphertext: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        let opened = match Envelope::read(ciphertext) {
            Some(envelope) => envelope.and_then(|envelope| self.0.open(envelope, context, out)),
            None => Err(PersistenceError::data(
                "the state has no envelope of a key ring: it was encrypted with a key outside of it, or is not \
                 encrypted. A single key of former times is set as the legacy key",
            )),
        };
        let (Err(error), Some(legacy)) = (&opened, &self.0.legacy) else { return opened };
        // The nonce of a state without an envelope may begin like one by chance: the tag decides.
        let is_envelope = Envelope::read(ciphertext).is_some();
        legacy.decrypt(context, ciphertext, out).map_err(
            |legacy| {
                if is_envelope { error.clone() } else { legacy }
            },
        )
    }
}

impl Ring {
    fn known(&self, id: u32) -> Option<&RingKey> {
        self.keys.get(&id).or_else(|| self.provided.get(id))
    }

    /// Returns a key of the ring, or of the provider.
    fn key(&self, id: u32) -> Result<Option<&RingKey>, PersistenceError> {
        if let Some(key) = self.known(id) {
            return Ok(Some(key));
        }
        let Some(provider) = &self.provider else { return Ok(None) };
        let Some(key) = provider.key(id)? else { return Ok(None) };
        self.provided.insert(id, RingKey::new(id, &key)?);
        Ok(self.provided.get(id))
    }

    fn primary_key(&self, id: u32) -> Result<&RingKey, PersistenceError> {
        self.key(id)?.ok_or_else(|| {
            PersistenceError::programming(format!("the primary key {id} is not in the key ring"))
        })
    }

    fn open(
        &self,
        envelope: Envelope<'_>,
        context: &EventContext<'_>,
        out: &mut Vec<u8>,
    ) -> Result<(), PersistenceError> {
        let Header { algorithm, key_id } = envelope.header;
        let key = self.key(key_id)?.ok_or_else(|| {
            PersistenceError::data(format!(
                "the state was encrypted with key {key_id}, which is not in the key ring"
            ))
        })?;
        let associated_data = envelope.header.associated_data(context)?;
        let start = out.len();
        out.extend_from_slice(envelope.text);
        // In bounds: the bytes after `start` were appended above.
        if key.open(algorithm, envelope.nonce, &associated_data, *envelope.tag, &mut out[start..]) {
            return Ok(());
        }
        out.truncate(start);
        Err(PersistenceError::data(format!(
            "the state cannot be decrypted: it was encrypted with another key than key {key_id} of this ring, was \
             written for another event, or has changed since"
        )))
    }
}

/// Keys that are added and never removed: a list, in which a key is found without a lock.
#[derive(Default)]
struct ProvidedKeys(OnceLock<Box<ProvidedKey>>);

struct ProvidedKey {
    id: u32,
    key: RingKey,
    following: ProvidedKeys,
}

impl ProvidedKeys {
    fn get(&self, id: u32) -> Option<&RingKey> {
        let mut entry = self.0.get();
        while let Some(provided) = entry {
            if provided.id == id {
                return Some(&provided.key);
            }
            entry = provided.following.0.get();
        }
        None
    }

    /// Adds a key, unless another thread was faster: its key has the count.
    fn insert(&self, id: u32, key: RingKey) {
        let mut end = &self.0;
        let mut new = Box::new(ProvidedKey { id, key, following: Self::default() });
        while let Err(refused) = end.set(new) {
            new = refused;
            let Some(entry) = end.get() else { continue };
            if entry.id == id {
                return;
            }
            end = &entry.following.0;
        }
    }
}

/// A key of a ring.
struct RingKey {
    gcm: Gcm,
    /// On the heap, because each move would leave a copy.
    xaes: Box<XaesKey>,
    /// The number of states that were encrypted.
    encrypted: AtomicU64,
}

impl RingKey {
    fn new(id: u32, key: &AesKey) -> Result<Self, PersistenceError> {
        let xaes = XaesKey::new(key).ok_or_else(|| {
            PersistenceError::programming(format!(
                "key {id} of a key ring is expected to have {KEY_BITS} bits; it has {}",
                key.bits()
            ))
        })?;
        Ok(Self { gcm: Gcm::new(key), xaes, encrypted: AtomicU64::new(0) })
    }

    fn seal(
        &self,
        algorithm: EnvelopeAlgorithm,
        nonce: &[u8],
        associated_data: &[u8],
        text: &mut [u8],
    ) -> Option<[u8; TAG_LENGTH]> {
        match algorithm {
            EnvelopeAlgorithm::Aes256Gcm => self.gcm.seal(nonce.try_into().ok()?, associated_data, text),
            EnvelopeAlgorithm::Xaes256Gcm => {
                let (gcm, nonce) = self.xaes.derive(nonce.try_into().ok()?)?;
                gcm.seal(nonce, associated_data, text)
            }
        }
    }

    fn open(
        &self,
        algorithm: EnvelopeAlgorithm,
        nonce: &[u8],
        associated_data: &[u8],
        tag: [u8; TAG_LENGTH],
        text: &mut [u8],
    ) -> bool {
        match algorithm {
            EnvelopeAlgorithm::Aes256Gcm => {
                nonce.try_into().is_ok_and(|nonce| self.gcm.open(nonce, associated_data, tag, text))
            }
            EnvelopeAlgorithm::Xaes256Gcm => {
                let derived = nonce.try_into().ok().and_then(|nonce| self.xaes.derive(nonce));
                derived.is_some_and(|(gcm, nonce)| gcm.open(nonce, associated_data, tag, text))
            }
        }
    }

    fn count(&self, id: u32, algorithm: EnvelopeAlgorithm) {
        let encrypted = self.encrypted.fetch_add(1, Ordering::Relaxed) + 1;
        if algorithm == EnvelopeAlgorithm::Aes256Gcm && is_warning_due(encrypted) {
            tracing::warn!(
                key_id = id,
                encrypted,
                "a key of AES-256-GCM may encrypt 4294967296 states, over all processes: make a new key the \
                 primary key"
            );
        }
    }
}

fn is_warning_due(encrypted: u64) -> bool {
    encrypted >= FIRST_WARNING && encrypted.is_power_of_two()
}

/// The builder of a [`KeyRing`].
#[derive(Default)]
#[must_use = "build the key ring"]
pub struct KeyRingBuilder {
    keys: Vec<(u32, AesKey)>,
    primary: Option<u32>,
    legacy: Option<AesKey>,
    algorithm: EnvelopeAlgorithm,
    provider: Option<Box<dyn KeyProvider>>,
}

impl KeyRingBuilder {
    /// Adds a key of 256 bits.
    pub fn key(mut self, id: u32, key: AesKey) -> Self {
        self.keys.push((id, key));
        self
    }

    /// Adds the keys of a text, as the variable `CIPHER_KEYS` or a file has them: `ID:BASE64`, separated by
    /// commas or white space.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if the text has another form; the error counts the
    /// keys, and shows no text.
    pub fn keys(mut self, text: &str) -> Result<Self, PersistenceError> {
        let entries = text.split(|c: char| c == ',' || c.is_ascii_whitespace()).filter(|key| !key.is_empty());
        for (number, entry) in (1..).zip(entries) {
            let (id, key) = entry
                .split_once(':')
                .and_then(|(id, key)| Some((id.parse().ok()?, key)))
                .ok_or_else(|| {
                    PersistenceError::programming(format!(
                        "entry {number} of the cipher keys is expected to be ID:BASE64, with a number as its id"
                    ))
                })?;
            let key = AesKey::from_base64(key).map_err(|error| {
                PersistenceError::new(error.kind(), format!("key {id} of the cipher keys: {error}"))
            })?;
            self.keys.push((id, key));
        }
        Ok(self)
    }

    /// Sets the primary key, which encrypts; the first one by default.
    pub fn primary(mut self, id: u32) -> Self {
        self.primary = Some(id);
        self
    }

    /// Sets the key of states without an envelope, which an [`AesCipher`] or the Python library wrote.
    pub fn legacy_key(mut self, key: AesKey) -> Self {
        self.legacy = Some(key);
        self
    }

    /// Sets the algorithm of new states; [`EnvelopeAlgorithm::Aes256Gcm`] by default, which `ring` has in
    /// assembly. All are decrypted.
    pub fn algorithm(mut self, algorithm: EnvelopeAlgorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Asks a provider for keys that are not in the ring.
    pub fn provider(mut self, provider: impl KeyProvider) -> Self {
        self.provider = Some(Box::new(provider));
        self
    }

    /// Builds the ring.
    ///
    /// # Errors
    /// [`Programming`](es_core::ErrorKind::Programming) if there is no key, an id occurs twice, a key does
    /// not have 256 bits, or the primary key is missing; any error of the provider.
    pub fn build(self) -> Result<KeyRing, PersistenceError> {
        let first = self.keys.first().map(|(id, _)| *id);
        let primary = self.primary.or(first).ok_or_else(|| {
            PersistenceError::programming(
                "a key ring needs a key, or the id of the primary key of a provider",
            )
        })?;
        let mut keys = BTreeMap::new();
        for (id, key) in &self.keys {
            match keys.entry(*id) {
                Entry::Vacant(entry) => entry.insert(RingKey::new(*id, key)?),
                Entry::Occupied(_) => {
                    return Err(PersistenceError::programming(format!("key {id} is twice in the key ring")));
                }
            };
        }
        let ring = Ring {
            keys,
            provided: ProvidedKeys::default(),
            provider: self.provider,
            legacy: self.legacy.as_ref().map(AesCipher::new),
            algorithm: self.algorithm,
            primary: AtomicU32::new(primary),
        };
        ring.primary_key(primary)?;
        Ok(KeyRing(Arc::new(ring)))
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Ring { keys, provider, legacy, algorithm, .. } = &*self.0;
        f.debug_struct("KeyRing")
            .field("key_ids", &keys.keys().collect::<Vec<_>>())
            .field("primary_key_id", &self.primary_key_id())
            .field("legacy", legacy)
            .field("algorithm", algorithm)
            .field("provider", provider)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for KeyRingBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, primary, legacy, algorithm, provider } = self;
        f.debug_struct("KeyRingBuilder")
            .field("keys", keys)
            .field("primary", primary)
            .field("legacy", legacy)
            .field("algorithm", algorithm)
            .field("provider", provider)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_is_due_long_before_the_limit_and_at_each_doubling() {
        let due: Vec<u64> = (0..=32).map(|bits| 1 << bits).filter(|count| is_warning_due(*count)).collect();
        assert_eq!(due, [1 << 28, 1 << 29, 1 << 30, 1 << 31, 1 << 32]);
        assert!(!is_warning_due((1 << 28) + 1));
    }

    /// Keeps the warnings.
    #[derive(Clone, Default)]
    struct Warnings(Arc<std::sync::Mutex<Vec<String>>>);

    impl tracing::Subscriber for Warnings {
        fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
            *metadata.level() == tracing::Level::WARN
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}

        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}

        fn event(&self, event: &tracing::Event<'_>) {
            let mut warning = String::new();
            event.record(&mut |field: &tracing::field::Field, value: &dyn fmt::Debug| {
                warning.push_str(&format!("{field}={value:?} "));
            });
            self.0.lock().unwrap().push(warning);
        }

        fn enter(&self, _: &tracing::span::Id) {}

        fn exit(&self, _: &tracing::span::Id) {}
    }

    /// The counts cannot be reached by encrypting.
    #[test]
    fn a_key_is_warned_of_once_at_each_count() {
        let warnings = Warnings::default();
        let _subscribed = tracing::subscriber::set_default(warnings.clone());
        let topic = es_core::Topic::from_static("bank:Account.Opened");
        let context =
            EventContext { originator_id: es_core::uuid::Uuid::nil(), originator_version: 1, topic: &topic };
        let key = || AesKey::from_bytes(&[1; 32]).unwrap();
        for (algorithm, expected) in [(EnvelopeAlgorithm::Aes256Gcm, 1), (EnvelopeAlgorithm::Xaes256Gcm, 0)] {
            let ring = KeyRing::builder().key(6, key()).key(7, key()).primary(7).algorithm(algorithm);
            let ring = ring.build().unwrap();
            for count in [1 << 28, 1 << 31] {
                ring.0.known(7).unwrap().encrypted.store(count - 3, Ordering::Relaxed);
                for _ in 0..6 {
                    ring.encrypt(&context, b"state", &mut Vec::new()).unwrap();
                }
                assert_eq!(ring.encrypted(7), count + 3);
                let logged = std::mem::take(&mut *warnings.0.lock().unwrap());
                assert_eq!(logged.len(), expected, "{logged:?}");
                for warning in logged {
                    let has_numbers = warning.contains(&format!("key_id=7 encrypted={count} "));
                    assert!(has_numbers && warning.contains("4294967296 states"), "{warning}");
                }
            }
        }
    }
}
