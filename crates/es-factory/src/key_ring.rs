//! The key ring of an environment.

use std::fs;

use es_core::PersistenceError;
use es_crypto::{AesKey, EnvelopeAlgorithm, KeyRing};
use zeroize::Zeroizing;

use crate::Environment;

/// Builds the ring of `CIPHER_KEYS` and `CIPHER_KEYS_FILE`. `CIPHER_KEY` is its legacy key.
pub(crate) fn key_ring(environment: &Environment) -> Result<KeyRing, PersistenceError> {
    let unusable = |setting| move |error| environment.unusable(setting, &error);
    let mut ring = KeyRing::builder().algorithm(algorithm(environment)?);
    if let Some(keys) = environment.get("CIPHER_KEYS") {
        ring = ring.keys(keys).map_err(unusable("CIPHER_KEYS"))?;
    }
    if let Some(path) = environment.get("CIPHER_KEYS_FILE") {
        let keys = fs::read_to_string(path).map(Zeroizing::new).map_err(|error| {
            let failed = format!("reading the cipher keys of {path:?}: {error}");
            environment.unusable("CIPHER_KEYS_FILE", &PersistenceError::programming(failed))
        })?;
        ring = ring.keys(&keys).map_err(unusable("CIPHER_KEYS_FILE"))?;
    }
    if let Some(key) = environment.get("CIPHER_KEY") {
        ring = ring.legacy_key(AesKey::from_base64(key).map_err(unusable("CIPHER_KEY"))?);
    }
    if let Some(id) = environment.count("CIPHER_PRIMARY_KEY_ID")? {
        ring = ring.primary(id);
    }
    ring.build().map_err(unusable("CIPHER_KEYS"))
}

fn algorithm(environment: &Environment) -> Result<EnvelopeAlgorithm, PersistenceError> {
    const KEY: &str = "CIPHER_ALGORITHM";
    match environment.get(KEY) {
        None | Some("aes-256-gcm") => Ok(EnvelopeAlgorithm::Aes256Gcm),
        Some("xaes-256-gcm") => Ok(EnvelopeAlgorithm::Xaes256Gcm),
        Some(other) => Err(environment.unreadable(KEY, other, "aes-256-gcm or xaes-256-gcm")),
    }
}
