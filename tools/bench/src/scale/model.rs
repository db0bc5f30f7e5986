//! The model: the costs on PostgreSQL by the format of its pages.
//!
//! The formats are those of PostgreSQL's manual, chapter "Database Page Layout".

use super::{Cost, PAGE, Sample, log::OF_AGGREGATE};
use crate::data::{Ids, STATE_SIZE, TOPIC};

/// Usable bytes of a page of PostgreSQL, without its header.
const HEAP_PAGE: f64 = 8_168.0;
/// The same of an index, without what its last bytes are reserved for.
const INDEX_PAGE: f64 = 8_152.0;
/// The share of a leaf that an index fills when it is built, or when keys ascend.
const LEAF_FILL: f64 = 0.9;
/// The same of the other pages.
const INNER_FILL: f64 = 0.7;
/// A pointer to a row in its page.
const POINTER: f64 = 4.0;
/// The header of a row: 23 bytes, rounded up.
const ROW_HEADER: f64 = 24.0;
/// The header of an entry of an index.
const ENTRY_HEADER: f64 = 8.0;
const UUID: f64 = 16.0;
const BIGINT: f64 = 8.0;

/// Returns the cost by the model; none where it has none.
pub(super) fn cost(cost: Cost, sample: &Sample) -> Option<f64> {
    if sample.backend != super::postgres::BACKEND {
        return None;
    }
    let stored = sample.stored as f64;
    let per_page = (HEAP_PAGE / row()).floor();
    let key_levels = levels(stored, UUID + BIGINT, UUID);
    let id_levels = levels(stored, BIGINT, BIGINT);
    Some(match cost {
        Cost::TableBytes => 8_192.0 / per_page,
        Cost::KeyBytes => 8_192.0 / per_leaf(UUID + BIGINT),
        Cost::IdBytes => 8_192.0 / per_leaf(BIGINT),
        Cost::KeyLevels => key_levels,
        // A search for a conflict, the row, which is confirmed afterwards, and an entry in both indexes.
        // Where keys ascend, the last leaf is known, in an index of three levels and more.
        Cost::AppendPages => {
            let last_leaf = |levels: f64| if levels < 3.0 { levels } else { 1.0 };
            let entry = match sample.ids {
                Ids::Random => key_levels,
                Ids::TimeOrdered => last_leaf(key_levels),
            };
            key_levels + 2.0 + entry + last_leaf(id_levels)
        }
        Cost::LoadPages => key_levels + OF_AGGREGATE as f64,
        Cost::ReadPages => id_levels + PAGE as f64 / per_leaf(BIGINT) + PAGE as f64 / per_page,
        Cost::AppendImages if sample.ids == Ids::TimeOrdered => 0.0,
        _ => return None,
    })
}

/// Bytes of a row and its pointer.
fn row() -> f64 {
    // Texts and byte strings of up to 126 bytes have a header of one byte, longer ones one of four, aligned.
    let topic = 1.0 + TOPIC.len() as f64;
    let fixed = ROW_HEADER + UUID + BIGINT;
    let state = if STATE_SIZE <= 126 {
        fixed + topic + 1.0 + STATE_SIZE as f64
    } else {
        aligned(fixed + topic, 4.0) + 4.0 + STATE_SIZE as f64
    };
    aligned(aligned(state, 8.0) + BIGINT, 8.0) + POINTER
}

fn aligned(bytes: f64, to: f64) -> f64 {
    (bytes / to).ceil() * to
}

/// Entries of a leaf.
fn per_leaf(key: f64) -> f64 {
    (INDEX_PAGE * LEAF_FILL / (ENTRY_HEADER + key + POINTER)).floor()
}

/// Pages from the root to a leaf. Inner pages have only so much of a key as distinguishes two leaves.
fn levels(stored: f64, key: f64, inner_key: f64) -> f64 {
    let fan_out = (INDEX_PAGE * INNER_FILL / (ENTRY_HEADER + inner_key + POINTER)).floor();
    let mut pages = (stored / per_leaf(key)).ceil();
    let mut levels = 1.0;
    while pages > 1.0 {
        pages = (pages / fan_out).ceil();
        levels += 1.0;
    }
    levels
}
