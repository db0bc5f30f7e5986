//! AES-GCM ciphers for stored events.
//!
//! [`AesCipher`] encrypts the state of events with AES-128, AES-192 or AES-256 in Galois/Counter
//! Mode, in the layout of the Python library: each reads the other's states with the same key.
//!
//! | bytes | content |
//! |---|---|
//! | 12 | nonce, random |
//! | 16 | authentication tag |
//! | as many as the plaintext | ciphertext |
//!
//! There is no associated data: an encrypted state is not bound to its event's context. An attacker with
//! write access to the database can move a state to another event, but cannot change one. A [`KeyRing`] binds
//! states to their events, and can change its key.
//!
//! # Example
//! ```
//! use es_core::{Cipher, EventContext, Topic, uuid::Uuid};
//! use es_crypto::AesCipher;
//!
//! // Once: make a key and keep it where secrets are kept, for example as `CIPHER_KEY`.
//! let key = AesCipher::create_key(32)?;
//!
//! let cipher = AesCipher::from_base64(&key)?;
//! let topic = Topic::from_static("bank:Account.Opened");
//! let context = EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic };
//!
//! let mut encrypted = Vec::new();
//! cipher.encrypt(&context, br#"{"owner":"Ada"}"#, &mut encrypted)?;
//!
//! let mut decrypted = Vec::new();
//! cipher.decrypt(&context, &encrypted, &mut decrypted)?;
//! assert_eq!(decrypted, br#"{"owner":"Ada"}"#);
//! # Ok::<(), es_core::PersistenceError>(())
//! ```
//! Usually a cipher is passed to a mapper: `Mapper::new(transcoder).with_cipher(cipher)`.
//!
//! # Key rings
//! A [`KeyRing`] has several keys of 256 bits. Its states have an envelope:
//!
//! | bytes | content |
//! |---|---|
//! | 4 | `89 45 53 01` |
//! | 1 | algorithm: 1 AES-256-GCM, 2 [XAES-256-GCM](https://c2sp.org/XAES-256-GCM) |
//! | 1 | flags, 0 |
//! | 4 | key id, big-endian |
//! | 12, or 24 for XAES-256-GCM | nonce, random |
//! | 16 | authentication tag |
//! | as many as the plaintext | ciphertext |
//!
//! The associated data is the first ten bytes, the originator id (16 bytes), the version (8 bytes, signed,
//! big-endian), the length of the topic (2 bytes, big-endian) and the topic as stored (UTF-8).
//!
//! [`Reencryption`] encrypts a table again after the primary key has changed, while the table is in use, and
//! [`KeyUsage`] counts the states that still need each key.
//!
//! Ciphers of the Python library are not given the event, and cannot read these states. The module
//! `python/es_key_ring.py` of this crate has a mapper and a cipher for that library that can.
//!
//! A [`Sealer`] encrypts byte strings that are not states, in the layout of [`AesCipher`], with associated
//! data.
//!
//! # How many events one key may encrypt
//! Two states with the same key and nonce reveal each other, and allow forgeries. Nonces are 96
//! random bits, so that two may fall together by chance: NIST SP 800-38D (section 8.3) therefore
//! allows a key 2³² encryptions, about 4.3 billion, where the chance is below 2⁻³².
//! An application that records more needs a key ring with another primary key by then, or XAES-256-GCM, whose
//! nonces of 192 bits have no such limit. An [`AesCipher`] does not count: the count goes over all processes
//! that ever used the key, Python's included. A [`KeyRing`] counts the states of its own process, and logs a
//! warning (`tracing`) from a sixteenth of that number on.
//!
//! # Where nonces come from
//! Each is drawn from the operating system. A generator inside the process would be faster, but
//! hands the same nonces to both sides of a `fork()`, or of a virtual machine that is restored twice
//! from one snapshot; the kernel's does not.
//!
//! The C library decides between a system call and the kernel's vDSO, which is many times as fast: glibc
//! from 2.41, on Linux from 6.11, takes the vDSO. By a system call, the nonce is the larger part of the cost
//! of a short state. `cargo bench -p es-crypto` measures a nonce alone, and the sealing and opening of 341
//! bytes with each size of key and with both algorithms of a key ring. AES-192 is that of `aes-gcm`, because
//! `ring` lacks it, and slower.
//!
//! # What a key ring costs
//! A state of a ring is authenticated together with its event: `ring` takes a step for each 16 bytes of the
//! associated data, four for a topic of 19 bytes. For short states this is a large part of the AES-GCM alone,
//! so that an [`AesCipher`], which has no associated data, is faster there. Through a mapper and an event
//! store it is a small part of the cost of an event. `cargo xtask bench --without-python --filter keys`
//! compares both: alone, through a mapper, and through stores in memory and on SQLite.
//!
//! # Keys in memory
//! [`AesKey`] overwrites its bytes when it is dropped, and no `Debug` or error shows them. A cipher, a
//! sealer and a key ring have the expanded key in memory until they are dropped, and then overwrite it. The
//! copies that moves of an expanded key leave on the stack are overwritten, too. A test searches core dumps
//! for keys after they were dropped, and finds none.
//!
//! What remains:
//! - While a cipher exists, its expanded key is in ordinary memory, and the first bytes of it are the key: it
//!   is in core dumps, and in swap space. `ring` has no function to place it in locked memory. A program can
//!   make core dumps impossible, as the tool `es` does on Linux, by `prctl(PR_SET_DUMPABLE, 0)`:
//!   `rustix::process::set_dumpable_behavior`. Encrypt the swap space.
//! - The keys of single messages of XAES-256-GCM may remain on the stack until it is used again.
//! - The environment of the process has the text of `CIPHER_KEY` and `CIPHER_KEYS`; that of a key file is
//!   overwritten after it was read. The caller is responsible for the texts that
//!   [`create_key`](AesCipher::create_key) returns and [`from_base64`](AesCipher::from_base64) reads.
//! - Decrypted states are in the memory of the program, and are not overwritten.
//!
//! Tags are compared in constant time, by `ring` and `aes-gcm`; keys are never compared. The decoding of
//! base64 text is not in constant time.

mod cipher;
mod envelope;
mod gcm;
mod key;
mod key_ring;
mod rotation;
mod sealer;
mod xaes;

pub use cipher::AesCipher;
pub use envelope::EnvelopeAlgorithm;
pub use key::AesKey;
pub use key_ring::{KeyProvider, KeyRing, KeyRingBuilder};
pub use rotation::{KeyUsage, ReencryptedPage, Reencryption};
pub use sealer::Sealer;
