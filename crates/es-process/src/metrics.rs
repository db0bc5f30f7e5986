//! Reports to the `metrics` facade, where that feature is compiled in.

#[cfg(feature = "metrics")]
mod facade {
    use metrics::{Counter, Gauge, counter, gauge};

    /// The metrics of one processor, labelled with the name of its consumer.
    pub(crate) struct Metrics {
        position: Gauge,
        lag: Gauge,
        processed: Counter,
        commits: Counter,
        failures: Counter,
        parked: Counter,
        lost: Counter,
        running: Gauge,
        name: String,
    }

    impl Metrics {
        /// Uses the metrics recorder that is installed now.
        pub(crate) fn new(name: &str) -> Self {
            let processor = || name.to_owned();
            Self {
                position: gauge!("es_processor_position", "processor" => processor()),
                lag: gauge!("es_processor_lag", "processor" => processor()),
                processed: counter!("es_processor_notifications_total", "processor" => processor()),
                commits: counter!("es_processor_commits_total", "processor" => processor()),
                failures: counter!("es_processor_failures_total", "processor" => processor()),
                parked: counter!("es_processor_parked_total", "processor" => processor()),
                lost: counter!("es_processor_lost_total", "processor" => processor()),
                running: gauge!("es_processor_running", "processor" => processor()),
                name: processor(),
            }
        }

        pub(crate) fn started(&self) {
            self.running.increment(1.0);
        }

        pub(crate) fn stopped(&self, reason: &'static str) {
            self.running.decrement(1.0);
            counter!("es_processor_stops_total", "processor" => self.name.clone(), "reason" => reason)
                .increment(1);
        }

        pub(crate) fn moved(&self, position: i64, lag: i64) {
            self.position.set(position as f64);
            self.lag.set(lag as f64);
        }

        pub(crate) fn committed(&self, notifications: usize) {
            self.processed.increment(notifications as u64);
            self.commits.increment(1);
        }

        pub(crate) fn failed(&self) {
            self.failures.increment(1);
        }

        pub(crate) fn parked(&self) {
            self.parked.increment(1);
        }

        pub(crate) fn lost(&self) {
            self.lost.increment(1);
        }
    }
}

#[cfg(not(feature = "metrics"))]
mod facade {
    /// Reports no metrics.
    pub(crate) struct Metrics;

    impl Metrics {
        pub(crate) fn new(_name: &str) -> Self {
            Self
        }

        pub(crate) fn started(&self) {}

        pub(crate) fn stopped(&self, _reason: &'static str) {}

        pub(crate) fn moved(&self, _position: i64, _lag: i64) {}

        pub(crate) fn committed(&self, _notifications: usize) {}

        pub(crate) fn failed(&self) {}

        pub(crate) fn parked(&self) {}

        pub(crate) fn lost(&self) {}
    }
}

pub(crate) use facade::Metrics;
