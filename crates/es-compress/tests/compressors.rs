//! The guarantees of every compressor: each state is decompressed unchanged, and other bytes are rejected.
#![cfg(any(feature = "zlib", feature = "zstd"))]
#![expect(clippy::unwrap_used, reason = "tests say what they expect by unwrapping it")]

use std::thread;

use es_core::{Compressor, ErrorKind, PersistenceError};
use proptest::prelude::*;

fn compress(compressor: &dyn Compressor, data: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compressor.compress(data, &mut out).unwrap();
    out
}

fn decompress(compressor: &dyn Compressor, data: &[u8]) -> Result<Vec<u8>, PersistenceError> {
    let mut out = Vec::new();
    let result = compressor.decompress(data, &mut out);
    if result.is_err() {
        assert!(out.is_empty(), "a part of a state is not handed out");
    }
    result.map(|()| out)
}

fn assert_refused(compressor: &dyn Compressor, data: &[u8]) {
    assert_eq!(decompress(compressor, data).unwrap_err().kind(), ErrorKind::Data);
}

/// Incompressible bytes.
fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

/// The same tests for every compressor.
macro_rules! tests {
    ($module:ident, $feature:literal, $compressor:ty) => {
        #[cfg(feature = $feature)]
        mod $module {
            use super::*;

            fn compressor() -> $compressor {
                <$compressor>::new()
            }

            #[test]
            fn the_limit_applies_to_the_state_and_not_to_earlier_content_of_the_buffer() {
                let state = noise(5_000);
                let compressed = compress(&compressor(), &state);
                let before = noise(10_000);
                let mut out = before.clone();
                compressor().limit(state.len()).decompress(&compressed, &mut out).unwrap();
                assert_eq!(out, [&*before, &*state].concat());

                let mut out = before.clone();
                let error =
                    compressor().limit(state.len() - 1).decompress(&compressed, &mut out).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Data);
                assert_eq!(out, before);
            }

            proptest! {
                #[test]
                fn every_state_comes_back(data in prop::collection::vec(any::<u8>(), 0..4096)) {
                    let compressor = compressor();
                    prop_assert_eq!(decompress(&compressor, &compress(&compressor, &data)).unwrap(), data);
                }

                #[test]
                fn every_repetitive_state_comes_back(
                    unit in prop::collection::vec(any::<u8>(), 1..20),
                    times in 0_usize..2000,
                ) {
                    let compressor = compressor();
                    let data = unit.repeat(times);
                    prop_assert_eq!(decompress(&compressor, &compress(&compressor, &data)).unwrap(), data);
                }

                #[test]
                fn random_bytes_are_rejected(data in prop::collection::vec(any::<u8>(), 0..512)) {
                    assert_refused(&compressor(), &data);
                }
            }

            #[test]
            fn states_of_all_sizes_come_back() {
                let compressor = compressor();
                for length in [0, 1, 63, 64, 511, 512, 513, 65_535, 65_536, 65_537, 3_000_000] {
                    for data in [noise(length), vec![b'x'; length]] {
                        let compressed = compress(&compressor, &data);
                        assert!(decompress(&compressor, &compressed).unwrap() == data, "{length} bytes");
                    }
                }
            }

            #[test]
            fn every_level_writes_what_any_reads() {
                let data = noise(300).repeat(5);
                for level in [1, 2, 3, 5, 6, 8, 9] {
                    let compressed = compress(&compressor().level(level).unwrap(), &data);
                    assert!(compressed.len() < data.len());
                    assert_eq!(decompress(&compressor(), &compressed).unwrap(), data);
                }
            }

            #[test]
            fn a_level_that_does_not_exist_is_refused() {
                let error = compressor().level(23).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Programming);
                assert!(error.to_string().contains("23"), "{error}");
            }

            #[test]
            fn output_is_appended_and_untouched_on_failure() {
                let compressor = compressor();
                let mut compressed = b"before".to_vec();
                compressor.compress(b"state", &mut compressed).unwrap();
                assert_eq!(&compressed[..6], b"before");

                let mut out = b"before".to_vec();
                compressor.decompress(&compressed[6..], &mut out).unwrap();
                assert_eq!(out, b"beforestate");
                compressor.decompress(&compressed[6..compressed.len() - 1], &mut out).unwrap_err();
                assert_eq!(out, b"beforestate");
                compressor.limit(4).compress(b"state", &mut out).unwrap_err();
                assert_eq!(out, b"beforestate");
            }

            #[test]
            fn an_empty_input_is_not_a_state() {
                assert_refused(&compressor(), b"");
            }

            #[test]
            fn a_truncated_state_is_refused_wherever_it_ends() {
                let compressor = compressor();
                for data in [noise(2000), b"state ".repeat(200), Vec::new()] {
                    let compressed = compress(&compressor, &data);
                    for length in 0..compressed.len() {
                        assert_refused(&compressor, &compressed[..length]);
                    }
                    let cut = &compressed[..compressed.len() - 1];
                    let refused = compressor.decompress(cut, &mut Vec::new()).unwrap_err().to_string();
                    assert!(refused.contains("ends before"), "{refused}");
                }
            }

            #[test]
            fn bytes_after_the_stream_are_refused() {
                let compressor = compressor();
                let stream = compress(&compressor, b"state");
                assert_refused(&compressor, &[&stream[..], b"\0"].concat());
                assert_refused(&compressor, &[&stream[..], b"and more"].concat());
                assert_refused(&compressor, &stream.repeat(2));
            }

            #[test]
            fn a_wrong_checksum_is_refused() {
                let compressor = compressor();
                let stream = compress(&compressor, b"state");
                // Both formats end with a checksum of four bytes.
                for bit in 0..32 {
                    let mut wrong = stream.clone();
                    let at = wrong.len() - 1 - bit / 8;
                    wrong[at] ^= 1 << (bit % 8);
                    assert_refused(&compressor, &wrong);
                }
            }

            #[test]
            fn the_limit_itself_is_allowed_and_one_byte_more_is_not() {
                for limit in [0, 1, 511, 512, 513, 4096, 100_000, 1_000_000] {
                    let bounded = compressor().limit(limit);
                    for fill in [noise, |length| vec![0; length]] {
                        let fits = fill(limit);
                        assert!(decompress(&bounded, &compress(&bounded, &fits)).unwrap() == fits);

                        let too_large = compress(&compressor(), &fill(limit + 1));
                        let error = decompress(&bounded, &too_large).unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Data);
                        let message = error.to_string();
                        assert!(message.contains(&format!("more than {limit} bytes")), "{message}");
                        assert!(message.contains("limit()"), "{message}");
                    }
                }
            }

            #[test]
            fn values_that_could_not_be_read_back_are_not_written() {
                let bounded = compressor().limit(10);
                let mut out = Vec::new();
                bounded.compress(&[0; 10], &mut out).unwrap();
                let error = bounded.compress(&[0; 11], &mut out).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Data);
            }

            #[test]
            fn decompression_allocates_no_more_than_the_limit() {
                let bomb = compress(&compressor(), &vec![0; 50 << 20]);
                assert!(bomb.len() < 100_000);
                let mut out = Vec::new();
                compressor().limit(1 << 20).decompress(&bomb, &mut out).unwrap_err();
                assert!(out.capacity() <= 4 << 20, "{} bytes reserved", out.capacity());
            }

            #[test]
            fn failures_leave_a_compressor_usable() {
                let compressor = compressor();
                let data = noise(5000);
                let compressed = compress(&compressor, &data);
                for length in [0, 1, 10, 100, 1000, 4000] {
                    assert_refused(&compressor, &compressed[..length]);
                    assert_eq!(decompress(&compressor, &compressed).unwrap(), data);
                    assert_eq!(compress(&compressor, &data), compressed);
                }
            }

            #[test]
            fn threads_share_a_compressor() {
                let compressor = compressor();
                thread::scope(|scope| {
                    for thread in 0..16_usize {
                        let compressor = &compressor;
                        scope.spawn(move || {
                            for round in 0..100 {
                                let data = noise(thread * 37 + round * 5);
                                let compressed = compress(compressor, &data);
                                assert_eq!(decompress(compressor, &compressed).unwrap(), data);
                            }
                        });
                    }
                });
            }

            #[test]
            fn debug_shows_the_settings() {
                let shown = format!("{:?}", compressor().limit(77));
                assert!(shown.contains("level") && shown.contains("limit: 77"), "{shown}");
            }
        }
    };
}

tests!(zlib, "zlib", es_compress::ZlibCompressor);
tests!(zstd, "zstd", es_compress::ZstdCompressor);

/// The checksum detects a change that nothing else detects. zlib's Adler-32 is a sum: occasionally two
/// similar short states have the same sum, which only a cipher's tag can detect. The test therefore
/// requires only that the sum is correct.
#[cfg(feature = "zlib")]
mod zlib_only {
    use es_compress::ZlibCompressor;

    use super::*;

    fn adler32(data: &[u8]) -> [u8; 4] {
        let (low, high) = data.iter().fold((1_u32, 0_u32), |(low, high), byte| {
            let low = (low + u32::from(*byte)) % 65_521;
            (low, (high + low) % 65_521)
        });
        (high << 16 | low).to_be_bytes()
    }

    proptest! {
        #[test]
        fn changed_bytes_never_pass_with_another_checksum(
            data in prop::collection::vec(0_u8..4, 0..512),
            at in any::<prop::sample::Index>(),
            change in 1_u8..=255,
        ) {
            let compressor = ZlibCompressor::new();
            let mut changed = compress(&compressor, &data);
            let at = at.index(changed.len());
            changed[at] ^= change;
            if let Ok(read) = decompress(&compressor, &changed) {
                prop_assert_eq!(&changed[changed.len() - 4..], &adler32(&read));
            }
        }
    }
}

#[cfg(feature = "zstd")]
mod zstd_only {
    use es_compress::ZstdCompressor;

    use super::*;

    proptest! {
        #[test]
        fn changed_bytes_are_never_decompressed_to_another_state(
            data in prop::collection::vec(0_u8..4, 0..512),
            at in any::<prop::sample::Index>(),
            change in 1_u8..=255,
        ) {
            let compressor = ZstdCompressor::new();
            let mut changed = compress(&compressor, &data);
            let at = at.index(changed.len());
            changed[at] ^= change;
            // Some bits of the header are ignored by decoders.
            if let Ok(read) = decompress(&compressor, &changed) {
                prop_assert_eq!(read, data);
            }
        }
    }

    /// The start of a frame that declares its size, without content.
    fn claim(bytes: u64) -> Vec<u8> {
        const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
        // Eight bytes of size, and a window as large as the content.
        const DESCRIPTOR: [u8; 1] = [0xe0];
        [&MAGIC[..], &DESCRIPTOR, &bytes.to_le_bytes()].concat()
    }

    #[test]
    fn a_declared_size_allocates_no_memory() {
        let mut out = Vec::new();
        let error = ZstdCompressor::new().decompress(&claim(100 << 20), &mut out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Data);
        assert!(out.capacity() <= 1 << 20, "{} bytes reserved", out.capacity());
    }

    #[test]
    fn a_window_as_large_as_the_limit_is_decoded() {
        const STATE: u32 = 9 << 20;
        const BLOCK: u32 = 128 << 10;
        // Of one byte, repeated: the last block or not, the kind, the size, then the byte.
        let block = |is_last: u32| [&(is_last | 1 << 1 | BLOCK << 3).to_le_bytes()[..3], b"x"].concat();
        let mut frame = claim(STATE.into());
        (1..STATE / BLOCK).for_each(|_| frame.extend(block(0)));
        frame.extend(block(1));
        let compressor = ZstdCompressor::new().limit(STATE as usize);
        assert_eq!(decompress(&compressor, &frame).unwrap(), vec![b'x'; STATE as usize]);
    }

    #[test]
    fn a_declared_size_beyond_the_limit_is_an_error_that_names_the_limit() {
        let error = decompress(&ZstdCompressor::new(), &claim(1 << 40)).unwrap_err();
        assert!(error.to_string().contains("limit()"), "{error}");
    }
}
