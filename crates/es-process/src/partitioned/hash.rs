//! The hash of keys.

use twox_hash::XxHash3_64;

/// Returns the hash of a key, which selects its segment: the upper 63 bits of its XXH3 of 64 bits, with the
/// seed 0.
///
/// It is part of what is recorded, and does not change.
///
/// ```
/// use es_process::key_hash;
///
/// assert_eq!(key_hash(b""), 0x2d06_8005_38d3_94c2 >> 1);
/// ```
pub fn key_hash(key: &[u8]) -> i64 {
    // 63 bits are never negative.
    (XxHash3_64::oneshot(key) >> 1).cast_signed()
}
