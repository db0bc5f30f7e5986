//! Bytes that claim to be an encrypted state, and keys.

use std::{fs, path::PathBuf, sync::LazyLock};

use es_persistence::{
    Cipher, EventContext, PersistenceError, Topic,
    crypto::{AesCipher, AesKey, EnvelopeAlgorithm, KeyRing, KeyRingBuilder},
    factory::InfrastructureFactory,
};
use tempfile::TempDir;
use uuid::Uuid;

/// The keys of ciphertexts in the corpus, which the Python library wrote. AES-128 and AES-256 are one
/// implementation, AES-192 another.
const KEYS: [&str; 3] = [
    "dnDrlAvVM1+XParYYZuR/w==",
    "F86IpDdDaL/wphYc6kTo/22Og0+RPKJy",
    "5wdic04TK5JqIJwzovogEQfdBVpOPpHBSVaczFBDkqU=",
];

/// The first byte says which key, the others are a ciphertext, a plaintext and a key.
pub fn decrypt(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    #[expect(clippy::expect_used, reason = "the keys are above")]
    let cipher = AesCipher::from_base64(KEYS[usize::from(*choice) % KEYS.len()]).expect("a key");
    let topic = Topic::from_static("bank:Account.Opened");
    let context = EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic };

    decrypt_anything(&cipher, &context, data);
    changes_are_noticed(&cipher, &context, data);
    keys_are_not_shown(data);
}

fn decrypt_anything(cipher: &AesCipher, context: &EventContext<'_>, data: &[u8]) {
    let mut out = b"before".to_vec();
    match cipher.decrypt(context, data, &mut out) {
        Ok(()) => assert_eq!(out.len() + 28, b"before".len() + data.len(), "nonce and tag take 28 bytes"),
        Err(_) => assert_eq!(out, b"before", "a part of what was refused came out"),
    }
}

/// Decryption returns the plaintext, and fails when a bit has changed.
fn changes_are_noticed(cipher: &AesCipher, context: &EventContext<'_>, plaintext: &[u8]) {
    let mut encrypted = Vec::new();
    let mut decrypted = Vec::new();
    assert!(cipher.encrypt(context, plaintext, &mut encrypted).is_ok(), "a plaintext is refused");
    assert!(cipher.decrypt(context, &encrypted, &mut decrypted).is_ok(), "what was encrypted is refused");
    assert_eq!(decrypted, plaintext);

    let at = plaintext.iter().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let length = encrypted.len();
    encrypted[at % length] ^= 1 << (at % 8);
    assert!(cipher.decrypt(context, &encrypted, &mut decrypted).is_err(), "a changed bit goes unnoticed");
}

/// Bytes make a key when their number is right, and text when it is the base64 of such bytes.
fn keys_are_not_shown(data: &[u8]) {
    assert_eq!(AesKey::from_bytes(data).is_ok(), matches!(data.len(), 16 | 24 | 32));
    let Ok(text) = str::from_utf8(data) else { return };
    let secret = format!("🔑{text}🔑");
    for text in [text, &secret] {
        if let Err(error) = AesKey::from_base64(text) {
            assert!(!format!("{error} {error:?}").contains('🔑'), "an error shows a key");
        }
    }
}

/// A ring for each algorithm, made once: the expansion of a key overwrites a large part of the stack.
static RINGS: LazyLock<[KeyRing; 2]> = LazyLock::new(|| {
    [EnvelopeAlgorithm::Aes256Gcm, EnvelopeAlgorithm::Xaes256Gcm].map(|algorithm| {
        #[expect(clippy::expect_used, reason = "the keys are above")]
        let [legacy, key] = [KEYS[0], KEYS[2]].map(|key| AesKey::from_base64(key).expect("a key"));
        let ring = KeyRing::builder().key(1, key.clone()).key(2, key).legacy_key(legacy);
        #[expect(clippy::expect_used, reason = "the ids differ")]
        ring.algorithm(algorithm).build().expect("a ring")
    })
});

/// A ring of two keys and a legacy key. The first byte selects algorithm and topic; the others are a state
/// and a plaintext.
pub fn key_ring(data: &[u8]) {
    let Some((choice, data)) = data.split_first() else { return };
    let ring = &RINGS[usize::from(choice % 2)];
    let topic = Topic::from_stored(if choice & 2 == 0 { "bank:Account.Opened" } else { "" });
    let originator_version = i64::from(*choice) - 128;
    let context = EventContext { originator_id: Uuid::nil(), originator_version, topic: &topic };

    // As it is, and after the mark, with which random bytes rarely begin.
    for state in [data.to_vec(), [b"\x89ES\x01", data].concat()] {
        let mut out = b"before".to_vec();
        match ring.decrypt(&context, &state, &mut out) {
            Ok(()) => assert!(out.len() < b"before".len() + state.len(), "there is no tag"),
            Err(_) => assert_eq!(out, b"before", "a part of a refused state was returned"),
        }
    }
    is_bound_to_its_event(ring, &context, data);
}

/// The text of `CIPHER_KEYS`, also as a key file: a ring of the keys that a simpler parser finds, or an error
/// that does not show the text.
pub fn cipher_keys(data: &[u8]) {
    let from_file = factory_with("CIPHER_KEYS_FILE", &key_file(data));
    let Ok(text) = str::from_utf8(data) else {
        return assert!(from_file.is_err(), "a key file that is no text is accepted");
    };
    let ring = KeyRing::builder().keys(text).and_then(KeyRingBuilder::build);
    match (&ring, parsed(text)) {
        (Ok(ring), Some(ids)) => {
            assert_eq!(Some(&ring.primary_key_id()), ids.first(), "the first key is the primary key");
            let (mut found, mut expected) = (ring.key_ids().collect::<Vec<_>>(), ids);
            expected.sort_unstable();
            found.sort_unstable();
            assert_eq!(found, expected);
        }
        (Err(_), None) => {}
        (ring, ids) => assert!(ring.is_ok() == ids.is_some(), "{ring:?}, expected {ids:?}"),
    }
    assert_eq!(from_file.is_ok(), ring.is_ok(), "a key file is read like the variable");
    // A variable has no NUL, and an empty one is not set.
    if !text.is_empty() {
        assert_eq!(factory_with("CIPHER_KEYS", text).is_ok(), ring.is_ok());
    }
    let secret = format!("1:🔑{text}🔑");
    for outcome in [
        KeyRing::builder().keys(&secret).map(drop),
        factory_with("CIPHER_KEYS", &secret),
        factory_with("CIPHER_KEYS_FILE", &key_file(secret.as_bytes())),
    ] {
        let shown =
            format!("{outcome:?}{}", outcome.as_ref().err().map(ToString::to_string).unwrap_or_default());
        assert!(!shown.contains('🔑'), "an error shows a key");
    }
}

/// Returns the ids of the keys, if the text is well-formed.
fn parsed(text: &str) -> Option<Vec<u32>> {
    let entries = text.split([',', ' ', '\t', '\n', '\r', '\x0c']).filter(|entry| !entry.is_empty());
    let mut ids = Vec::new();
    for entry in entries {
        let (id, key) = entry.split_once(':')?;
        let id = id.parse().ok().filter(|id| !ids.contains(id))?;
        AesCipher::from_base64(key).ok().filter(|cipher| format!("{cipher:?}") == "AesCipher(256 bits)")?;
        ids.push(id);
    }
    (!ids.is_empty()).then_some(ids)
}

fn key_file(content: &[u8]) -> String {
    #[expect(clippy::expect_used, reason = "a directory does not depend on the input")]
    static DIRECTORY: LazyLock<TempDir> = LazyLock::new(|| {
        // In memory if there is such a file system: a disk takes most of the time.
        tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
    });
    // Tests use it on several threads.
    let path: PathBuf = DIRECTORY.path().join(format!("{:?}", std::thread::current().id()));
    #[expect(clippy::expect_used, reason = "a file does not depend on the input")]
    fs::write(&path, content).expect("a file");
    path.display().to_string()
}

/// Makes the cipher of an environment with this setting.
fn factory_with(name: &str, value: &str) -> Result<(), PersistenceError> {
    let settings =
        [("PERSISTENCE_MODULE", "popo"), ("CIPHER_TOPIC", "es_key_ring:KeyRingCipher"), (name, value)];
    let factory = InfrastructureFactory::builder("Bank").environment(settings).build()?;
    assert!(!format!("{factory:?}").contains('🔑'), "a factory shows a key");
    factory.mapper().map(drop)
}

/// Decryption returns the plaintext, and fails when a bit of the state or of the event has changed.
fn is_bound_to_its_event(ring: &KeyRing, context: &EventContext<'_>, plaintext: &[u8]) {
    let (mut encrypted, mut decrypted) = (Vec::new(), Vec::new());
    assert!(ring.encrypt(context, plaintext, &mut encrypted).is_ok(), "a plaintext is refused");
    assert!(ring.decrypt(context, &encrypted, &mut decrypted).is_ok(), "an encrypted state is refused");
    assert_eq!(decrypted, plaintext);
    let moved = EventContext { originator_version: context.originator_version + 1, ..*context };
    assert!(ring.decrypt(&moved, &encrypted, &mut decrypted).is_err(), "a moved state is decrypted");
    let at = plaintext.iter().fold(0, |sum: usize, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
    let length = encrypted.len();
    encrypted[at % length] ^= 1 << (at % 8);
    assert!(ring.decrypt(context, &encrypted, &mut decrypted).is_err(), "a changed bit is not noticed");
}
