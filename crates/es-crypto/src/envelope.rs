//! The envelope of an encrypted state: which key and algorithm encrypted it, bound to the event.
//! The documentation of the crate has its bytes.

use es_core::{EventContext, PersistenceError};
use smallvec::SmallVec;

use crate::{
    gcm::{NONCE_LENGTH, TAG_LENGTH},
    xaes::XAES_NONCE_LENGTH,
};

const MARK: [u8; 4] = [0x89, b'E', b'S', 1];
const HEADER_LENGTH: usize = 10;
/// The length of the associated data before the topic.
const FIXED_LENGTH: usize = HEADER_LENGTH + 26;

/// The associated data of an event. That of usual topics is on the stack.
pub(crate) type AssociatedData = SmallVec<[u8; 128]>;

/// The algorithm of a new envelope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum EnvelopeAlgorithm {
    /// AES-256-GCM with random nonces of 12 bytes: for at most 2³² states per key.
    #[default]
    Aes256Gcm,
    /// [XAES-256-GCM](https://c2sp.org/XAES-256-GCM) with random nonces of 24 bytes: for any number of
    /// states.
    Xaes256Gcm,
}

impl EnvelopeAlgorithm {
    /// Returns the length of a nonce.
    pub(crate) fn nonce_length(self) -> usize {
        match self {
            Self::Aes256Gcm => NONCE_LENGTH,
            Self::Xaes256Gcm => XAES_NONCE_LENGTH,
        }
    }

    fn code(self) -> u8 {
        match self {
            Self::Aes256Gcm => 1,
            Self::Xaes256Gcm => 2,
        }
    }
}

/// The first bytes of an envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) algorithm: EnvelopeAlgorithm,
    pub(crate) key_id: u32,
}

impl Header {
    fn bytes(self) -> [u8; HEADER_LENGTH] {
        let [a, b, c, d] = self.key_id.to_be_bytes();
        [MARK[0], MARK[1], MARK[2], MARK[3], self.algorithm.code(), 0, a, b, c, d]
    }

    /// Appends an envelope without its tag, and with the text. Returns the offset of the text.
    pub(crate) fn append_envelope(self, nonce: &[u8], text: &[u8], out: &mut Vec<u8>) -> usize {
        out.reserve(HEADER_LENGTH + nonce.len() + TAG_LENGTH + text.len());
        out.extend_from_slice(&self.bytes());
        out.extend_from_slice(nonce);
        out.extend_from_slice(&[0; TAG_LENGTH]);
        let text_start = out.len();
        out.extend_from_slice(text);
        text_start
    }

    /// Returns the associated data of an event.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if the topic is longer than its length can say.
    pub(crate) fn associated_data(
        self,
        context: &EventContext<'_>,
    ) -> Result<AssociatedData, PersistenceError> {
        let topic = context.topic.as_str();
        let length = u16::try_from(topic.len()).map_err(|_| {
            PersistenceError::data(format!(
                "a topic of {} bytes is too long to be bound to an encrypted state: at most {} bytes",
                topic.len(),
                u16::MAX
            ))
        })?;
        // In place, without a second copy: this is a large part of the cost of a short state.
        let mut data = AssociatedData::from_elem(0, FIXED_LENGTH + topic.len());
        data[..10].copy_from_slice(&self.bytes());
        data[10..26].copy_from_slice(context.originator_id.as_bytes());
        data[26..34].copy_from_slice(&context.originator_version.to_be_bytes());
        data[34..36].copy_from_slice(&length.to_be_bytes());
        data[FIXED_LENGTH..].copy_from_slice(topic.as_bytes());
        Ok(data)
    }
}

/// The parts of an envelope that was read.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Envelope<'a> {
    pub(crate) header: Header,
    pub(crate) nonce: &'a [u8],
    pub(crate) tag: &'a [u8; TAG_LENGTH],
    pub(crate) text: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Returns `None` if the state has no envelope: it does not begin with the mark.
    ///
    /// # Errors
    /// [`Data`](es_core::ErrorKind::Data) if it begins with the mark, and the rest is too short, or has an
    /// unknown algorithm or flags.
    pub(crate) fn read(state: &'a [u8]) -> Option<Result<Self, PersistenceError>> {
        let rest = state.strip_prefix(&MARK)?;
        Some(Self::after_mark(rest).map_err(PersistenceError::data))
    }

    fn after_mark(rest: &'a [u8]) -> Result<Self, String> {
        let too_short = || "the envelope of an encrypted state is cut off".to_owned();
        let ([algorithm, flags, key_id @ ..], rest) = rest.split_first_chunk::<6>().ok_or_else(too_short)?;
        let algorithm = match (algorithm, flags) {
            (1, 0) => EnvelopeAlgorithm::Aes256Gcm,
            (2, 0) => EnvelopeAlgorithm::Xaes256Gcm,
            _ => {
                return Err(format!(
                    "the envelope of an encrypted state has algorithm {algorithm} and flags {flags}, which this \
                     version cannot read"
                ));
            }
        };
        let (nonce, rest) = rest.split_at_checked(algorithm.nonce_length()).ok_or_else(too_short)?;
        let (tag, text) = rest.split_first_chunk().ok_or_else(too_short)?;
        let header = Header { algorithm, key_id: u32::from_be_bytes(*key_id) };
        Ok(Self { header, nonce, tag, text })
    }
}
