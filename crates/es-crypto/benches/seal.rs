//! The cost of sealing and opening an event of 341 bytes, with a cipher and a key ring, and of a nonce alone.
#![expect(clippy::print_stdout, reason = "the numbers are what a benchmark is for")]

use std::{hint::black_box, time::Instant};

use es_core::{Cipher, EventContext, PersistenceError, Topic, uuid::Uuid};
use es_crypto::{AesCipher, AesKey, EnvelopeAlgorithm, KeyRing};

const ROUNDS: usize = 31;
const CALLS_PER_ROUND: u32 = 2_000;

fn main() -> Result<(), PersistenceError> {
    let topic = Topic::from_static("bank:Account.Opened");
    let context = EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic };
    let plaintext = [b'x'; 341];
    for num_bytes in [16, 24, 32] {
        let cipher = AesCipher::new(&AesKey::random(num_bytes)?);
        seal_and_open(&format!("AES-{}", num_bytes * 8), &cipher, &context, &plaintext)?;
    }
    for algorithm in [EnvelopeAlgorithm::Aes256Gcm, EnvelopeAlgorithm::Xaes256Gcm] {
        let ring = KeyRing::builder().key(1, AesKey::random(32)?).algorithm(algorithm).build()?;
        seal_and_open(&format!("key ring, {algorithm:?}"), &ring, &context, &plaintext)?;
    }
    let mut nonce = [0_u8; 12];
    report("nonce", || {
        getrandom::fill(black_box(&mut nonce))
            .map_err(|error| PersistenceError::operational("no random bytes").with_source(error))
    })
}

fn seal_and_open(
    name: &str,
    cipher: &impl Cipher,
    context: &EventContext<'_>,
    plaintext: &[u8],
) -> Result<(), PersistenceError> {
    let (mut encrypted, mut decrypted) = (Vec::new(), Vec::new());
    report(&format!("seal, {name}"), || {
        encrypted.clear();
        cipher.encrypt(context, plaintext, &mut encrypted)
    })?;
    report(&format!("open, {name}"), || {
        decrypted.clear();
        cipher.decrypt(context, &encrypted, &mut decrypted)
    })
}

/// Prints the time of one call: the median of all rounds, and the minimum, which load affects less.
fn report(
    name: &str,
    mut call: impl FnMut() -> Result<(), PersistenceError>,
) -> Result<(), PersistenceError> {
    let mut rounds = Vec::with_capacity(ROUNDS);
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..CALLS_PER_ROUND {
            call()?;
        }
        rounds.push(start.elapsed() / CALLS_PER_ROUND);
    }
    rounds.sort_unstable();
    println!("{name}: {} ns, best {} ns", rounds[ROUNDS / 2].as_nanos(), rounds[0].as_nanos());
    Ok(())
}
