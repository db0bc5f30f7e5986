//! The largest and the busiest aggregates.

use clap::ValueEnum;
use serde::Serialize;

/// The order of aggregates.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Order {
    /// By the number of events.
    #[default]
    Events,
    /// By the number of recent events.
    Recent,
    /// By the size of the recent events.
    Size,
}

/// The selection of a ranking.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Selection {
    pub(crate) order: Order,
    /// The number of the last notification ids, whose events are recent.
    pub(crate) window: i64,
    pub(crate) limit: i64,
}

/// The aggregates of a selection, in their order.
#[derive(Debug)]
pub(crate) struct Ranking {
    pub(crate) order: Order,
    /// The last id of the log; 0 if it is empty.
    pub(crate) last_id: i64,
    pub(crate) aggregates: Vec<Aggregate>,
}

/// The activity of an aggregate.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Aggregate {
    pub(crate) originator_id: String,
    pub(crate) events: i64,
    pub(crate) recent_events: i64,
    /// The size of the stored states of the recent events.
    pub(crate) recent_bytes: i64,
}

/// The names that differ by the backend.
pub(super) struct Names<'a> {
    pub(super) table: &'a str,
    pub(super) id: &'a str,
    /// The size of a state.
    pub(super) bytes: &'a str,
}

impl Selection {
    /// Returns the query for the aggregates after `last_id`: id, events, recent events and their size.
    ///
    /// The totals of all aggregates are counted in the index of versions, without reading an event. The sizes
    /// are those of the recent events only: that of all events requires a read of the whole table.
    pub(super) fn sql(&self, names: &Names<'_>, last_id: i64) -> String {
        let Names { table, id, bytes } = names;
        let Self { order, window, limit } = self;
        let after = last_id.saturating_sub(*window);
        let recent = format!(
            "SELECT originator_id, count(*) AS recent, coalesce(sum({bytes}), 0) AS bytes FROM {table} \
             WHERE {id} > {after} GROUP BY originator_id"
        );
        let select = "SELECT CAST(a.originator_id AS text), ";
        let top = |key: &str| format!("ORDER BY {key} DESC, originator_id LIMIT {limit}");
        match order {
            Order::Events => format!(
                "{select} a.events, coalesce(r.recent, 0), coalesce(r.bytes, 0) FROM \
                 (SELECT originator_id, count(*) AS events FROM {table} GROUP BY originator_id {}) AS a \
                 LEFT JOIN ({recent}) AS r ON r.originator_id = a.originator_id \
                 ORDER BY a.events DESC, a.originator_id",
                top("events")
            ),
            Order::Recent | Order::Size => {
                let key = if *order == Order::Recent { "recent" } else { "bytes" };
                format!(
                    "{select} (SELECT count(*) FROM {table} AS e WHERE e.originator_id = a.originator_id), \
                     a.recent, a.bytes FROM ({recent} {}) AS a ORDER BY a.{key} DESC, a.originator_id",
                    top(key)
                )
            }
        }
    }
}
