//! Bounds on the allocations of a call.

use allocation_counter::measure;

/// Runs `call`, and asserts that it holds at most `bytes` additional bytes at any time.
///
/// Allocations of libraries in C are not counted; the fuzzer's limit of the whole process covers them.
#[track_caller]
pub(crate) fn within<R>(bytes: u64, call: impl FnOnce() -> R) -> R {
    let mut result = None;
    let taken = measure(|| result = Some(call()));
    assert!(taken.bytes_max <= bytes, "{} bytes were allocated, more than {bytes}", taken.bytes_max);
    #[expect(clippy::expect_used, reason = "`measure` calls what it is given")]
    result.expect("the call was made")
}
