//! A thread that reads the ranking again while the log grows.

use std::{
    sync::mpsc as requests,
    thread,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, sync::mpsc};

use crate::{
    catalog::{Catalog, Order, Ranking, Selection},
    configuration::Settings,
    database::Database,
    failure::Failure,
};

/// The pause between reads.
const INTERVAL: Duration = Duration::from_secs(1);
/// The pause after a read, as a multiple of its duration, so that the database has time for its application.
const REST: u32 = 9;

/// The outcome of a read; `None` if the log has not changed.
type Read = Result<Option<Ranking>, Failure>;

/// Reads in a thread of its own, so that a long read neither delays a key nor the end of the process.
pub(super) struct Reader {
    orders: requests::Sender<Order>,
    rankings: mpsc::Receiver<Read>,
}

impl Reader {
    /// Starts reading; `last_id` is that of the ranking that is known.
    pub(super) fn start(
        settings: Settings,
        catalog: Catalog,
        selection: Selection,
        last_id: i64,
    ) -> Result<Self, Failure> {
        let (orders, received) = requests::channel();
        let (sender, rankings) = mpsc::channel(1);
        let runtime = Handle::current();
        let work = Work { settings, catalog: Some(catalog), selection, last_id: Some(last_id) };
        thread::Builder::new()
            .name("es-top".to_owned())
            .spawn(move || work.run(&runtime, &received, &sender))
            .map_err(|error| Failure::new(format!("cannot start the reader of the database: {error}")))?;
        Ok(Self { orders, rankings })
    }

    /// Reads in another order, at once.
    pub(super) fn sort(&self, order: Order) {
        // Fails if the thread has ended, which the next ranking reports.
        let _ = self.orders.send(order);
    }

    /// Waits for the next read; `None` if the thread has ended.
    pub(super) async fn next(&mut self) -> Option<Read> {
        self.rankings.recv().await
    }
}

/// The state of the thread.
struct Work {
    settings: Settings,
    /// `None` after a failure.
    catalog: Option<Catalog>,
    selection: Selection,
    /// The last id of the newest ranking; `None` if another one is to be read in any case.
    last_id: Option<i64>,
}

impl Work {
    /// Reads until the screen has ended.
    fn run(mut self, runtime: &Handle, orders: &requests::Receiver<Order>, rankings: &mpsc::Sender<Read>) {
        let mut pause = INTERVAL;
        loop {
            match orders.recv_timeout(pause) {
                Ok(order) => {
                    self.selection.order = orders.try_iter().last().unwrap_or(order);
                    self.last_id = None;
                }
                Err(requests::RecvTimeoutError::Timeout) => {}
                Err(requests::RecvTimeoutError::Disconnected) => return,
            }
            let begin = Instant::now();
            let read = runtime.block_on(self.read());
            pause = INTERVAL.max(begin.elapsed() * REST);
            if rankings.blocking_send(read).is_err() {
                return;
            }
        }
    }

    /// Reads the ranking, if the log or the order has changed. After a failure, connects again.
    async fn read(&mut self) -> Read {
        let mut catalog = match self.catalog.take() {
            Some(catalog) => catalog,
            None => {
                self.last_id = None;
                Database::open(self.settings.clone())?.catalog().await?
            }
        };
        let last_id = catalog.last_id().await?;
        let ranking = if self.last_id == Some(last_id) {
            None
        } else {
            let ranking = catalog.ranking(self.selection).await?;
            self.last_id = Some(ranking.last_id);
            Some(ranking)
        };
        self.catalog = Some(catalog);
        Ok(ranking)
    }
}
