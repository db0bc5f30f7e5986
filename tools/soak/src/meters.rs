//! The metrics of the workload of one datastore.

use std::{
    fmt,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use hdrhistogram::Histogram;

/// Latencies are kept from one microsecond to a minute, with three digits.
const LONGEST: u64 = 60_000_000;
const DIGITS: u8 = 3;

/// The counters and measurements of one workload.
#[derive(Debug)]
pub struct Meters {
    /// From the call that records one event to its return; alone or among others.
    pub insert: Latencies,
    /// From the call that records a batch to its return.
    pub batch: Latencies,
    /// From the call that loads the newest events of an aggregate to its return.
    pub load: Latencies,
    /// From the call that records an event to a subscriber that has it.
    pub delivery: Latencies,
    /// From the call that records an event to the projection that is handed it.
    pub projection: Latencies,
    /// Events that are acknowledged.
    pub recorded: Counter,
    /// Inserts that were refused by a conflict, and tried again.
    pub conflicts: Counter,
    /// Inserts that were refused for a reason that passes, and tried again.
    pub refused: Counter,
    /// Notifications that subscribers, pagers and streams have checked.
    pub read: Counter,
    /// Notifications that were projected.
    pub projected: Counter,
    /// Subscriptions that were begun.
    pub subscriptions: Counter,
    /// Processors that were started.
    pub processors: Counter,
    /// Recorders that were opened beside the first one, and closed.
    pub recorders: Counter,
    /// Databases that were filled or begun.
    pub databases: Counter,
    /// Bytes of the largest database.
    pub bytes: AtomicU64,
    /// The highest id that is acknowledged in the present database.
    pub written: AtomicI64,
    /// The position of the steady subscriber there.
    pub followed: AtomicI64,
    /// Bytes of the write-ahead log: the server's whole one on PostgreSQL.
    pub wal: AtomicU64,
    /// The prepared statements of the session that projected last; none on SQLite.
    pub statements: AtomicI64,
}

impl Default for Meters {
    fn default() -> Self {
        let none = Counter::default;
        Self {
            insert: Latencies::default(),
            batch: Latencies::default(),
            load: Latencies::default(),
            delivery: Latencies::default(),
            projection: Latencies::default(),
            recorded: none(),
            conflicts: none(),
            refused: none(),
            read: none(),
            projected: none(),
            subscriptions: none(),
            processors: none(),
            recorders: none(),
            databases: none(),
            bytes: AtomicU64::new(0),
            written: AtomicI64::new(0),
            followed: AtomicI64::new(0),
            wal: AtomicU64::new(0),
            statements: AtomicI64::new(0),
        }
    }
}

impl Meters {
    /// From now on latencies belong to the second half of the run.
    pub fn begin_second_half(&self) {
        for (_, latencies) in self.latencies() {
            latencies.is_second_half.store(true, Ordering::Relaxed);
        }
    }

    /// A database is begun.
    pub fn begin_database(&self) {
        self.databases.add(1);
        self.written.store(0, Ordering::Relaxed);
        self.followed.store(0, Ordering::Relaxed);
    }

    /// The lag of the steady subscriber behind the acknowledged ids.
    pub fn lag(&self) -> i64 {
        (self.written.load(Ordering::Relaxed) - self.followed.load(Ordering::Relaxed)).max(0)
    }

    fn latencies(&self) -> [(&'static str, &Latencies); 5] {
        [
            ("insert", &self.insert),
            ("batch", &self.batch),
            ("load", &self.load),
            ("delivery", &self.delivery),
            ("projection", &self.projection),
        ]
    }
}

impl fmt::Display for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "  {} events, {} conflicts and {} passing refusals tried again, {} notifications read, {} projected; {} databases of {:.0} MB at most; \
             {} subscriptions, {} processors and {} recorders opened and closed",
            self.recorded,
            self.conflicts,
            self.refused,
            self.read,
            self.projected,
            self.databases,
            self.bytes.load(Ordering::Relaxed) as f64 / 1e6,
            self.subscriptions,
            self.processors,
            self.recorders,
        )?;
        writeln!(
            f,
            "  {:<12} {:>9} {:>9} {:>9} {:>9} {:>9}   p50, p99 in the second half",
            "ms", "number", "p50", "p99", "p99.9", "max"
        )?;
        for (name, latencies) in self.latencies() {
            writeln!(f, "  {name:<12} {latencies}")?;
        }
        Ok(())
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds to the number.
    pub fn add(&self, more: usize) {
        self.0.fetch_add(more as u64, Ordering::Relaxed);
    }

    /// Returns the number.
    pub fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl fmt::Display for Counter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.count())
    }
}

/// Durations in the first half of a run and in the second.
#[derive(Debug)]
pub struct Latencies {
    is_second_half: AtomicBool,
    halves: Mutex<[Histogram<u64>; 2]>,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { is_second_half: AtomicBool::new(false), halves: Mutex::new([histogram(), histogram()]) }
    }
}

impl Latencies {
    /// It took so long.
    pub fn record(&self, latency: Duration) {
        let half = usize::from(self.is_second_half.load(Ordering::Relaxed));
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(LONGEST);
        self.halves.lock().unwrap_or_else(PoisonError::into_inner)[half].saturating_record(microseconds);
    }
}

impl fmt::Display for Latencies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [first, second] = &*self.halves.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = first.clone();
        // They have the same bounds.
        all.add(second).map_err(|_| fmt::Error)?;
        let milliseconds = |microseconds: u64| microseconds as f64 / 1_000.0;
        write!(f, "{:>9}", all.len())?;
        for quantile in [0.5, 0.99, 0.999] {
            write!(f, " {:>9.2}", milliseconds(all.value_at_quantile(quantile)))?;
        }
        write!(f, " {:>9.2}  ", milliseconds(all.max()))?;
        for quantile in [0.5, 0.99] {
            write!(f, " {:.2}", milliseconds(second.value_at_quantile(quantile)))?;
        }
        Ok(())
    }
}

#[expect(clippy::expect_used, reason = "the bounds are constants, and valid")]
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("valid bounds")
}
