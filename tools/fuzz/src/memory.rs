//! Bounds on what a call allocates.

use allocation_counter::measure;

/// Runs `call`, which may hold at most so many bytes at any time beside what was allocated before.
///
/// What libraries in C allocate is not seen; the fuzzer's limit on the whole process covers it.
#[track_caller]
pub(crate) fn within<R>(bytes: u64, call: impl FnOnce() -> R) -> R {
    let mut result = None;
    let taken = measure(|| result = Some(call()));
    assert!(taken.bytes_max <= bytes, "{} bytes were allocated, more than {bytes}", taken.bytes_max);
    #[expect(clippy::expect_used, reason = "`measure` calls what it is given")]
    result.expect("the call was made")
}
