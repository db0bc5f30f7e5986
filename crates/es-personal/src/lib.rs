//! Personal values in events, sealed with a key per data subject.
//!
//! A field of type [`Personal<T>`] holds a value of a [`Subject`]: a person, usually. In the stored event it
//! is encrypted with the key of its subject, and the rest of the event stays readable. [`SubjectKeys`] has
//! the keys in memory, and loads them from a [`KeyStore`]. An [erasure](SubjectKeys::erase) is recorded there
//! and destroys the key: the event stays, and its value is decoded as [`Personal::Erased`].
//!
//! # Example
//! ```
//! use es_core::{EventRange, EventStore, Expected, Mapper, PersistenceError, uuid::Uuid};
//! use es_crypto::{AesKey, KeyRing};
//! use es_derive::Event;
//! use es_personal::{MemoryKeyStore, Personal, Subject, SubjectKeys};
//! use es_popo::PopoApplicationRecorder;
//! use es_transcode::JsonTranscoder;
//!
//! #[derive(Debug, PartialEq, Event)]
//! #[event(topic = "shop:Order.Placed")]
//! struct Placed {
//!     item: String,
//!     buyer: Personal<String>,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), PersistenceError> {
//! let ring = KeyRing::builder().key(1, AesKey::random(32)?).build()?;
//! let keys = SubjectKeys::new(MemoryKeyStore::new(), ring);
//! let mut transcoder = JsonTranscoder::new();
//! keys.register::<String>(&mut transcoder);
//! let store = EventStore::new(PopoApplicationRecorder::new(), Mapper::new(transcoder));
//!
//! let (order, alice) = (Uuid::now_v7(), Subject::from(Uuid::now_v7()));
//! let buyer = Personal::new(alice.clone(), "Alice".to_owned());
//! store.append(order, Expected::New, [Placed { item: "book".to_owned(), buyer }]).await?;
//!
//! keys.erase(alice.clone(), "request 4711").await?;
//! let events = store.get::<Placed>(order, EventRange::all()).await?;
//! assert_eq!(events[0].payload.buyer, Personal::Erased { subject: alice });
//! # Ok(())
//! # }
//! ```
//!
//! # Sealed events
//! If all attributes of an event are personal, `subject` seals it as a whole, and `erased` has a function
//! that makes the event of an erased subject. The aggregate folds that event like any other:
//! ```
//! use es_core::{DomainEvent, Mapper, PersistenceError, uuid::Uuid};
//! # use es_crypto::{AesKey, KeyRing};
//! use es_derive::Event;
//! use es_personal::{MemoryKeyStore, Subject, SubjectKeys};
//! use es_transcode::JsonTranscoder;
//!
//! #[derive(Debug, PartialEq, Event)]
//! #[event(topic = "shop:Customer")]
//! enum CustomerEvent {
//!     #[event(subject = customer, erased = |customer| Self::Forgotten { customer })]
//!     Registered { customer: Subject, name: String, birthday: String },
//!     Forgotten { customer: Subject },
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), PersistenceError> {
//! # let ring = KeyRing::builder().key(1, AesKey::random(32)?).build()?;
//! let keys = SubjectKeys::new(MemoryKeyStore::new(), ring);
//! let mut transcoder = JsonTranscoder::new();
//! keys.register_events(&mut transcoder);
//! let mapper = Mapper::new(transcoder);
//!
//! let customer = Subject::from(Uuid::now_v7());
//! let registered = CustomerEvent::Registered {
//!     customer: customer.clone(),
//!     name: "Alice".to_owned(),
//!     birthday: "1970-01-01".to_owned(),
//! };
//! let stored = mapper.write_events(&[DomainEvent::new(Uuid::now_v7(), 1, registered)]).await?;
//! keys.erase(customer.clone(), "request 4711").await?;
//! let read = mapper.read_event::<CustomerEvent>(&stored[0]).await?;
//! assert_eq!(read.payload, CustomerEvent::Forgotten { customer });
//! # Ok(())
//! # }
//! ```
//! The function may return any event of the type: a variant for that, or the same one with empty fields. It
//! is called for events that were stored; such an event is not recorded by itself. The attributes are one
//! personal value, `_personal_`, beside `timestamp`, `class_version` and `_metadata_`; its plaintext is the
//! object of the attributes. States without it, from before the event was sealed, are read as they are, and
//! not sealed afterwards.
//!
//! # Notification
//! [`SubjectKeys::erase_in`] records a [`SubjectErased`] in a log before it destroys the key. Consumers that
//! follow this event delete what they have of the subject, exactly once as with any event:
//! ```
//! # use es_derive::Event;
//! use es_personal::SubjectErased;
//! # #[derive(Event)]
//! # #[event(topic = "shop:Placed")]
//! # struct OrderEvent {}
//!
//! #[derive(Event)]
//! #[event(transparent)]
//! enum Followed {
//!     Order(OrderEvent),
//!     Erased(SubjectErased),
//! }
//! ```
//! If the process ends in between, the erasure is recorded and the key is still there. A repeated call
//! completes it, or a consumer of [`SubjectErased`] that [erases](SubjectKeys::erase) each subject.
//!
//! # Keys in memory
//! Transcoding is synchronous, and keys are loaded asynchronously. A value whose key is not in memory fails
//! with an [unloaded](es_core::PersistenceError::is_unloaded) error; event stores, subscriptions,
//! repositories and the asynchronous methods of [`Mapper`](es_core::Mapper) then load the keys for all events
//! of the page or batch in one request, and try again. Writing creates the key of a new subject; processes
//! that create one at the same time get the same key.
//!
//! Keys in memory are bounded in number, and expire a fixed time after they were requested: by default
//! [10,000](SubjectKeys::DEFAULT_CAPACITY) and [60 s](SubjectKeys::DEFAULT_LIFETIME). That is also the
//! longest time for which another process reads values after an erasure, and writes values that are then
//! lost. Time in which the machine is suspended may not be counted. A process that follows [`SubjectErased`]
//! and erases each subject does so at once.
//!
//! # Format
//! A value is `{"_type_":"personal","_data_":{"subject":SUBJECT,"sealed":BASE64}}`, or with `null` as
//! `sealed` if it was erased when it was written. `BASE64` (RFC 4648 section 4, padded) has the bytes:
//!
//! | bytes | content |
//! |---|---|
//! | 1 | 1: AES-256-GCM |
//! | 12 | nonce, random |
//! | 16 | authentication tag |
//! | as many as the plaintext | ciphertext of the value as JSON |
//!
//! The key is that of the subject, 256 random bits. The associated data is the byte 1 and the subject in
//! UTF-8. One subject may have 2³² values: see [es-crypto](es_crypto#how-many-events-one-key-may-encrypt).
//!
//! The Python library reads and writes personal values with the module `python/es_personal.py` of
//! es-crypto, in the same database and with the same key store; it shows erased values as
//! `Personal(subject, is_erased=True)`.
//!
//! A key ring wraps the key as the state of an event: an [envelope](es_crypto#key-rings) for the originator
//! id of zeros, version 0 and the topic `personal-key:SUBJECT`. After a rotation of the ring, [`Rewrapping`]
//! wraps the keys again, and counts those that need an old key.
//!
//! # Threat model
//! - Events alone, or events with a key store, reveal no value: the keys of the ring are needed too. Keep the
//!   three apart.
//! - Subjects are stored in plain text, and stay after an erasure. Take random ids. The length of a value is
//!   visible.
//! - A changed value, a value of another subject, and a value that claims to be erased though its subject is
//!   not, are errors. An attacker who can write to the log can move values between fields and events of one
//!   subject; a [`KeyRing`](es_crypto::KeyRing) as the mapper's cipher binds each state to its event.
//! - A subject that the key store does not know is an error, and not an erasure: a lost key store is noticed.
//! - Erasure does not reach what was derived in plain text: tables of projections, exports, logs. It does not
//!   reach backups and archived write-ahead logs of the key store either: keep them for a short time only.
//!   Backups and replicas of the events, and snapshots with [`Personal`] fields, become unreadable with the
//!   key.
//! - A key in memory is overwritten when its subject is erased there, and after it has expired when other
//!   keys are loaded: see [es-crypto](es_crypto#keys-in-memory). The plaintext of a value is encrypted in
//!   place, or overwritten after it was read. While one of more than 480 bytes is written, its buffer grows,
//!   and leaves copies in freed memory. The values themselves are in the memory of the program.
//! - Errors and `Debug` show no values. The error of a type's own `Deserialize` or `Serialize` is passed on:
//!   its text must not have the value.

mod cache;
mod dynamic;
mod format;
mod keys;
mod memory;
mod notification;
mod personal;
#[cfg(feature = "postgres")]
mod postgres;
mod rewrapping;
mod sealed;
#[cfg(feature = "sqlite")]
mod sqlite;
mod store;
mod subject;
mod transcoding;
mod wrapper;

pub use dynamic::DynKeyStore;
pub use keys::SubjectKeys;
pub use memory::MemoryKeyStore;
pub use notification::SubjectErased;
pub use personal::Personal;
#[cfg(feature = "postgres")]
pub use postgres::PostgresKeyStore;
pub use rewrapping::{RewrappedPage, Rewrapping};
pub use sealed::{Sealed, encode_sealed};
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteKeyStore;
pub use store::{Erasure, KeyRecord, KeyReplacement, KeyStore, WrappedKey};
pub use subject::Subject;
pub use wrapper::KeyWrapper;
