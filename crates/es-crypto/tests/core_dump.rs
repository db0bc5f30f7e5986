//! Keys are overwritten when they are dropped: a core dump of the process does not have them any more.
//!
//! The dumps are made by `gcore` of gdb; without it, the test only says so. Each is of this same program,
//! which runs again as a child.
#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]
#![expect(clippy::print_stdout, reason = "a child speaks to the test")]

use std::{
    env, fs,
    hint::black_box,
    io::{self, BufRead, BufReader, Read, Write},
    path::Path,
    process::{Child, Command, Stdio},
};

use es_core::{Cipher, EventContext, Topic, uuid::Uuid};
use es_crypto::{AesCipher, AesKey, EnvelopeAlgorithm, KeyRing};
use memchr::memmem;
use zeroize::Zeroizing;

/// Set for a child: what it does.
const SCENARIO: &str = "ES_CORE_DUMP";
const READY: &str = "ready for a core dump";
/// Without optimization, each AES instruction of the crate `aes` leaves its key on the stack: with keys of 24
/// bytes, and in the key derivation of XAES-256-GCM.
const IS_OPTIMIZED: bool = !cfg!(debug_assertions);
const SIZES: &[usize] = if IS_OPTIMIZED { &[16, 24, 32] } else { &[16, 32] };

#[test]
fn dropped_keys_are_not_in_a_core_dump() {
    match env::var(SCENARIO).as_deref() {
        Ok("used") => child(true),
        Ok(_) => child(false),
        Err(_) => {
            let Some(in_use) = keys_in_dump("used") else {
                // Without `eprintln!`, whose output the harness does not show if a test passes.
                let left_out = "left out: core dumps with keys, because gcore, a part of gdb, makes none";
                return writeln!(io::stderr(), "{left_out}").unwrap();
            };
            // Otherwise the search finds nothing.
            assert!(!in_use.is_empty(), "no key is in the dump of a process that uses keys");
            assert_eq!(keys_in_dump("dropped").unwrap(), Vec::<String>::new());
        }
    }
}

/// Encrypts with ciphers of all sizes and with rings; then waits, with the ciphers in use or dropped.
fn child(is_used: bool) {
    let mut ciphers: Vec<Box<dyn Cipher>> = Vec::new();
    for size in SIZES {
        ciphers.push(Box::new(AesCipher::new(&key(*size, 0))));
    }
    let mut algorithms = vec![EnvelopeAlgorithm::Aes256Gcm];
    if IS_OPTIMIZED {
        algorithms.push(EnvelopeAlgorithm::Xaes256Gcm);
    }
    for algorithm in algorithms {
        let ring = KeyRing::builder().key(1, key(32, 1)).legacy_key(key(16, 1)).algorithm(algorithm);
        ciphers.push(Box::new(ring.build().unwrap()));
    }
    let topic = Topic::from_static("bank:Account.Opened");
    let context = EventContext { originator_id: Uuid::nil(), originator_version: 1, topic: &topic };
    for cipher in &ciphers {
        let (mut encrypted, mut decrypted) = (Vec::new(), Vec::new());
        cipher.encrypt(&context, b"state", &mut encrypted).unwrap();
        cipher.decrypt(&context, &encrypted, &mut decrypted).unwrap();
        assert_eq!(decrypted, b"state");
    }
    if !is_used {
        ciphers.clear();
    }
    println!("{READY}");
    // Until the test has the dump.
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    drop(ciphers);
}

fn key(size: usize, number: u8) -> AesKey {
    AesKey::from_bytes(&bytes(size, number)).unwrap()
}

/// Returns the bytes of a key, which are computed: the program does not contain them.
fn bytes(size: usize, number: u8) -> Zeroizing<Vec<u8>> {
    let mut bytes = Zeroizing::new(vec![0; size]);
    let mut state = black_box(u32::try_from(size).unwrap() << 8 | u32::from(number));
    for byte in bytes.iter_mut() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = state.to_be_bytes()[0];
    }
    bytes
}

/// Returns the keys that are in a core dump of a child; `None` if there is no core dump.
fn keys_in_dump(scenario: &str) -> Option<Vec<String>> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "dropped_keys_are_not_in_a_core_dump", "--nocapture"])
        .env(SCENARIO, scenario)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains(READY)), "the child has ended");
    let directory = tempfile::tempdir().unwrap();
    let dump = core_dump(&child, directory.path());
    drop(child.stdin.take());
    lines.for_each(drop);
    assert!(child.wait().unwrap().success());
    let dump = dump?;
    let keys = SIZES.iter().map(|size| (*size, 0)).chain([(32, 1), (16, 1)]);
    let is_in_dump = |(size, number): &(usize, u8)| {
        let key = bytes(*size, *number);
        // The halves too: an expanded key may have them apart.
        key.chunks_exact(8).any(|part| memmem::find(&dump, part).is_some())
    };
    Some(keys.filter(is_in_dump).map(|(size, number)| format!("key {number} of {size} bytes")).collect())
}

fn core_dump(child: &Child, directory: &Path) -> Option<Vec<u8>> {
    let prefix = directory.join("core");
    let mut gcore = Command::new("gcore");
    gcore.arg("-o").arg(&prefix).arg(child.id().to_string());
    let status = gcore.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().ok()?;
    status.success().then(|| fs::read(format!("{}.{}", prefix.display(), child.id())).unwrap())
}
