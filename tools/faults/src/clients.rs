//! Clients of one recorder: they put, alone and in groups, with tracking and without, get, read pages,
//! streams and subscriptions, and report all of it.

use std::{
    num::NonZeroUsize,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::Result;
use es_core::{
    AggregateRecorder, ApplicationRecorder, ApplicationRecorderExt, Conflict, EventRange,
    NotificationSelection, PersistenceError, ProcessRecorder, StoredEvent, Tracking, TrackingRecorder,
    uuid::Uuid,
};
use futures_util::TryStreamExt;
use tokio::{sync::watch, task::JoinSet};

use crate::{
    history::{Answer, Call, Event, Message, Recorded, Required, TOPICS, topics},
    report::Report,
    test_database::Recorder,
};

/// The upstream applications whose positions are tracked.
pub const FEEDS: [&str; 2] = ["feed-0", "feed-1"];

/// Aggregates that all clients of a round write.
const SHARED: u64 = 8;

/// The time limit of a reader that waits for a notification.
const WAIT: Duration = Duration::from_secs(60);

const PAGE_SIZE: NonZeroUsize = NonZeroUsize::new(64).unwrap();

/// Clients of one recorder, in one process.
#[derive(Clone, Debug)]
pub struct Clients {
    recorder: Recorder,
    report: Arc<Report>,
    /// The first of the aggregates that others write, too.
    shared: u64,
    /// The next aggregate of its own.
    fresh: Arc<AtomicU64>,
    pause: Duration,
    required: Required,
    stop: watch::Receiver<bool>,
}

impl Clients {
    /// Clients that go on until `stop` says so. Processes of one round share the aggregates of that
    /// round; `seed` is the process's own.
    pub fn new(
        recorder: Recorder,
        report: Arc<Report>,
        round: u32,
        seed: u32,
        stop: watch::Receiver<bool>,
    ) -> Self {
        let fresh = (u64::from(seed) << 32) + (1 << 31);
        Self {
            recorder,
            report,
            shared: u64::from(round) * SHARED,
            fresh: Arc::new(AtomicU64::new(fresh)),
            pause: Duration::ZERO,
            required: Required::Acknowledged,
            stop,
        }
    }

    /// Sets the pause between two calls of a writer. Readers of the whole log pause for a multiple of it.
    #[must_use]
    pub fn pause(self, pause: Duration) -> Self {
        Self { pause, ..self }
    }

    /// Runs so many writers at the same time, and four readers.
    ///
    /// # Errors
    /// When the recorder fails in a way that it must not.
    pub async fn run(&self, writers: u32, seed: u64) -> Result<()> {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tasks = JoinSet::new();
        for _ in 0..writers {
            let (clients, random) = (self.clone(), random.fork());
            tasks.spawn(async move { clients.write(random).await });
        }
        for topic in [None, some_topic(&mut random)] {
            let clients = self.clone();
            tasks.spawn(async move { clients.follow(topic).await });
        }
        let clients = self.clone();
        tasks.spawn(async move { clients.stream().await });
        let clients = self.clone();
        tasks.spawn(async move { clients.page(random).await });
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Runs four readers of standbys, which may be behind unless a reader has waited.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_on_standbys(self, seed: u64) -> Result<()> {
        let clients = Self { required: Required::UpTo(0), ..self };
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tasks = JoinSet::new();
        for topic in [None, some_topic(&mut random)] {
            let clients = clients.clone();
            tasks.spawn(async move { clients.follow(topic).await });
        }
        let reader = clients.clone();
        tasks.spawn(async move { reader.page(random).await });
        tasks.spawn(async move { clients.wait().await });
        while let Some(ended) = tasks.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Puts one event on an aggregate of its own.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn put_one(&self) -> Result<Answer> {
        self.put(vec![(self.fresh(), 1)], None, 0).await
    }

    async fn write(&self, mut random: fastrand::Rng) -> Result<()> {
        while self.continues(self.pause).await {
            match random.u32(0..100) {
                0..70 => self.append(&mut random).await?,
                70..90 => self.track(&mut random).await?,
                90..97 => drop(self.put_one().await?),
                _ => self.put_many(&mut random).await?,
            }
        }
        Ok(())
    }

    /// Appends to aggregates that other clients write: the second of two appends meets a conflict.
    async fn append(&self, random: &mut fastrand::Rng) -> Result<()> {
        let aggregate = self.shared + random.u64(0..SHARED);
        let mut places = self.next_places(aggregate, random.i64(1..5)).await?;
        if random.u8(0..8) == 0 {
            let other = self.shared + (aggregate + 1) % SHARED;
            if other != aggregate {
                places.extend(self.next_places(other, 1).await?);
            }
        }
        if !places.is_empty() {
            self.put(places, None, random.usize(0..200)).await?;
        }
        Ok(())
    }

    async fn next_places(&self, aggregate: u64, events: i64) -> Result<Vec<(u64, i64)>> {
        let Some(length) = self.get(aggregate).await? else { return Ok(Vec::new()) };
        Ok((1..=events).map(|event| (aggregate, length + event)).collect())
    }

    async fn track(&self, random: &mut fastrand::Rng) -> Result<()> {
        let name = FEEDS[random.usize(0..FEEDS.len())];
        let position = match self.recorder.max_tracking_id(name).await {
            Ok(position) => position.unwrap_or(0),
            Err(error) => return judge(error).map(drop),
        };
        let places = (1..=random.i64(1..3)).map(|_| (self.fresh(), 1)).collect();
        self.put(places, Some((name.to_owned(), position + 1)), 0).await.map(drop)
    }

    async fn put_many(&self, random: &mut fastrand::Rng) -> Result<()> {
        let aggregate = self.fresh();
        let places = (1..=random.i64(50..400)).map(|version| (aggregate, version)).collect();
        self.put(places, None, 500).await.map(drop)
    }

    async fn put(
        &self,
        places: Vec<(u64, i64)>,
        tracking: Option<(String, i64)>,
        padding: usize,
    ) -> Result<Answer> {
        let put = self.report.key();
        let event = |(index, (aggregate, version))| -> StoredEvent {
            Event { aggregate, version, put: put.clone(), index }.stored(padding)
        };
        let events = places.iter().copied().enumerate().map(event).collect();
        let record = tracking.clone().map(|(name, position)| Tracking::new(name, position)).transpose()?;
        self.report.invoked(&put, Call::Put { places, tracking });
        let outcome = match record {
            Some(tracking) => self.recorder.insert_events_with_tracking(events, tracking).await,
            None => self.recorder.insert_events(events).await,
        };
        let answer = outcome.map(Answer::Recorded).or_else(judge)?;
        self.report.returned(put, answer.clone());
        Ok(answer)
    }

    /// The number of events of an aggregate, if it could be read.
    async fn get(&self, aggregate: u64) -> Result<Option<i64>> {
        let key = self.report.key();
        self.report.invoked(&key, Call::Get { aggregate });
        let found = self.recorder.select_events(Uuid::from_u128(aggregate.into()), EventRange::all()).await;
        let length = found.as_ref().ok().and_then(|events| i64::try_from(events.len()).ok());
        let events = found.map(|events| Answer::Events(events.iter().map(Event::read).collect()));
        self.report.returned(key, events.or_else(judge)?);
        Ok(length)
    }

    /// Reads pages of all sizes, again and again from the beginning.
    async fn page(&self, mut random: fastrand::Rng) -> Result<()> {
        let mut after = 0;
        while self.continues(self.pause * 8).await {
            let limit = random.usize(1..500);
            let topic = if random.bool() { some_topic(&mut random) } else { None };
            let key = self.report.key();
            self.report.invoked(&key, Call::Select { after, limit, topic, required: self.required });
            let selection = NotificationSelection::new(limit).after(after).topics(topics(topic));
            let page = self.recorder.select_notifications(selection).await;
            let last = page.as_ref().ok().and_then(|page| page.last()).map(|last| last.id);
            let answer = page.map(|page| Answer::Notifications(page.iter().map(Recorded::read).collect()));
            self.report.returned(key, answer.or_else(judge)?);
            after = last.unwrap_or(0);
        }
        Ok(())
    }

    /// Streams the log from its beginning to its end, again and again.
    async fn stream(&self) -> Result<()> {
        while self.continues(self.pause * 32).await {
            let key = self.report.key();
            self.report.invoked(
                &key,
                Call::Select { after: 0, limit: usize::MAX, topic: None, required: self.required },
            );
            let all = NotificationSelection::new(usize::MAX);
            let log = self.recorder.stream_notifications_by(PAGE_SIZE, all);
            let log: Result<Vec<Recorded>, _> = log.map_ok(|one| Recorded::read(&one)).try_collect().await;
            self.report.returned(key, log.map(Answer::Notifications).or_else(judge)?);
        }
        Ok(())
    }

    /// Follows the log, or a topic, by a subscription.
    async fn follow(&self, topic: Option<usize>) -> Result<()> {
        let mut subscription = self.recorder.subscribe(0, topics(topic)).page_size(PAGE_SIZE);
        loop {
            let key = self.report.key();
            let (after, limit, required) = (subscription.position(), PAGE_SIZE.get(), self.required);
            let call = Call::Select { after, limit, topic, required };
            self.report.invoked(&key, call);
            let page = tokio::select! {
                page = subscription.next_page() => page,
                () = stopped(self.stop.clone()) => return Ok(()),
            };
            let answer = match page {
                Ok(None) => return Ok(()),
                Ok(Some(page)) => {
                    let read = page.notifications.iter().map(Recorded::read).collect();
                    Ok(Answer::ReadUpTo(read, page.position))
                }
                Err(error) if error.is_rolled_back() => {
                    self.report.say(Message::RolledBack);
                    subscription =
                        self.recorder.subscribe(subscription.position(), topics(topic)).page_size(PAGE_SIZE);
                    Ok(Answer::Refused)
                }
                Err(error) => judge(error),
            };
            self.report.returned(key, answer?);
        }
    }

    /// Waits for the end of the log on a standby, then reads a page up to it, again and again.
    async fn wait(&self) -> Result<()> {
        while self.continues(self.pause * 4).await {
            let end = match self.recorder.max_notification_id().await {
                Ok(end) => end.unwrap_or(0),
                Err(error) => {
                    judge(error)?;
                    continue;
                }
            };
            let (after, limit) = (end - 50, 500);
            let key = self.report.key();
            let call = Call::Select { after, limit, topic: None, required: Required::UpTo(end) };
            self.report.invoked(&key, call);
            let page = match self.recorder.wait_for_notification(end, WAIT).await {
                Ok(()) => {
                    self.recorder.select_notifications(NotificationSelection::new(limit).after(after)).await
                }
                Err(error) => Err(error),
            };
            let answer = page.map(|page| Answer::Notifications(page.iter().map(Recorded::read).collect()));
            self.report.returned(key, answer.or_else(judge)?);
        }
        Ok(())
    }

    /// Pauses, or yields if there is no pause, then returns whether the client continues. A recorder in
    /// memory never yields by itself.
    async fn continues(&self, pause: Duration) -> bool {
        if pause.is_zero() {
            tokio::task::yield_now().await;
        } else {
            tokio::time::sleep(pause).await;
        }
        !*self.stop.borrow()
    }

    fn fresh(&self) -> u64 {
        self.fresh.fetch_add(1, Ordering::Relaxed)
    }
}

/// One of the topics, for a select.
fn some_topic(random: &mut fastrand::Rng) -> Option<usize> {
    Some(random.usize(0..TOPICS.len()))
}

/// Waits for the stop signal.
pub(crate) async fn stopped(mut stop: watch::Receiver<bool>) {
    // A dropped sender is a stop, too.
    drop(stop.wait_for(|stop| *stop).await);
}

/// Maps an error to an answer of a history; fails for errors that must not occur.
fn judge(error: PersistenceError) -> Result<Answer> {
    match error.conflict() {
        Some(Conflict::Version { .. }) => Ok(Answer::Conflict),
        Some(Conflict::Tracking { .. }) => Ok(Answer::TrackingConflict),
        _ if error.is_outcome_unknown() => Ok(Answer::Unknown),
        _ if error.is_transient() => Ok(Answer::Refused),
        _ => Err(error.into()),
    }
}
