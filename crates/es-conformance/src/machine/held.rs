//! Subscriptions, waits and listeners that are open while other operations record.
//!
//! After each step their results must equal those of the oracle. They do not poll: one that is not notified
//! never advances.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use es_core::{
    ApplicationRecorderExt, DynApplicationRecorder, DynTrackingRecorder, ErrorKind, Listener, Notification,
    NotificationPage, PersistenceError, Subscription, Topic, TrackingRecorderExt,
};
use futures_util::FutureExt;
use tokio::task::JoinSet;

use super::{
    answer::{Refusal, comparable},
    log::Log,
};
use crate::support::NEVER;

/// A subscription.
pub(super) struct Follower {
    pub(super) handle: usize,
    wanted: Wanted,
    following: Following,
}

/// The parameters of a subscription.
struct Wanted {
    topics: Vec<Topic>,
    page_size: NonZeroUsize,
}

enum Following {
    Idle(Subscription<Arc<dyn DynApplicationRecorder>>),
    /// Waits for the next page after this position.
    Waiting(i64, Task<(Subscription<Arc<dyn DynApplicationRecorder>>, NextPage)>),
}

type NextPage = Result<Option<NotificationPage>, PersistenceError>;

impl Follower {
    pub(super) fn new(
        handle: usize,
        recorder: &Arc<dyn DynApplicationRecorder>,
        position: i64,
        topics: &[Topic],
        page_size: NonZeroUsize,
    ) -> Self {
        let wanted = Wanted { topics: topics.to_vec(), page_size };
        let following = Following::Idle(wanted.subscribe(recorder, position));
        Self { handle, wanted, following }
    }

    /// Seeks to another position. A waiting subscription is dropped and replaced.
    pub(super) fn seek(&mut self, recorder: &Arc<dyn DynApplicationRecorder>, position: i64) {
        match &mut self.following {
            Following::Idle(subscription) => subscription.seek(position),
            Following::Waiting(..) => {
                self.following = Following::Idle(self.wanted.subscribe(recorder, position));
            }
        }
    }

    /// Reads the next page, which must equal the oracle's. If the oracle has none yet, starts to wait for it.
    pub(super) async fn read(mut self, oracle: &Arc<dyn DynApplicationRecorder>, log: &Log) -> Self {
        let Following::Idle(mut subscription) = self.following else { return self };
        let position = subscription.position();
        let expected = self.wanted.subscribe(oracle, log.up_to(position)).next_page().now_or_never();
        self.following = match expected {
            Some(expected) => {
                let page = subscription.next_page().await.map(|page| page.map(|page| ranked(page, log)));
                assert_eq!(comparable(page), comparable(expected));
                Following::Idle(subscription)
            }
            None => {
                // Dropping the wait loses nothing.
                assert_eq!(subscription.next_page().now_or_never().map(comparable), None);
                Following::Waiting(position, Task::spawn(next_page(subscription)))
            }
        };
        self
    }

    /// Asserts that a waiting subscription receives the next page if there is one, and waits otherwise.
    pub(super) async fn settle(mut self, oracle: &Arc<dyn DynApplicationRecorder>, log: &Log) -> Self {
        let Following::Waiting(mut position, mut waiting) = self.following else { return self };
        let (expected, is_over) = rest(self.wanted.subscribe(oracle, log.up_to(position)));
        let mut followed = Vec::new();
        loop {
            let is_due = is_over || followed.len() < expected.len();
            let (subscription, page) = if is_due {
                waiting.end().await
            } else if let Some(ended) = waiting.ended() {
                ended
            } else {
                break;
            };
            let Some(page) = page.expect("following should succeed") else {
                assert!(is_over, "the recorder is not closed");
                self.following = Following::Idle(subscription);
                return self;
            };
            self.wanted.check(&page, position, log);
            position = subscription.position();
            followed.extend(page.notifications.into_iter().map(|notification| log.ranked(notification)));
            waiting = Task::spawn(next_page(subscription));
        }
        assert_eq!(followed, expected);
        self.following = Following::Waiting(position, waiting);
        self
    }
}

impl Wanted {
    fn subscribe(
        &self,
        recorder: &Arc<dyn DynApplicationRecorder>,
        position: i64,
    ) -> Subscription<Arc<dyn DynApplicationRecorder>> {
        subscribe(recorder, position, &self.topics).page_size(self.page_size)
    }

    /// One page of the oracle may be several pages here, if the events were recorded one by one.
    fn check(&self, page: &NotificationPage, before: i64, log: &Log) {
        let NotificationPage { notifications, position, lag, .. } = page;
        assert!(notifications.len() <= self.page_size.get(), "{page:?} is too long");
        // A subscription to topics may be notified of others, and advances past them.
        assert!(!notifications.is_empty() || !self.topics.is_empty(), "{page:?} is empty");
        assert!(*position > before, "{page:?} does not move on from {before}");
        assert!(notifications.last().is_none_or(|last| last.id <= *position), "{page:?} goes on");
        // Both are notification ids.
        log.rank(*position);
        log.rank(position + lag);
    }
}

/// Returns a subscription that does not poll.
pub(super) fn subscribe(
    recorder: &Arc<dyn DynApplicationRecorder>,
    position: i64,
    topics: &[Topic],
) -> Subscription<Arc<dyn DynApplicationRecorder>> {
    recorder.subscribe(position, topics).poll_interval(NEVER)
}

/// Reads the remaining pages. Returns true if the subscription has ended.
fn rest(mut subscription: Subscription<Arc<dyn DynApplicationRecorder>>) -> (Vec<Notification>, bool) {
    let mut notifications = Vec::new();
    while let Some(page) = subscription.next_page().now_or_never() {
        match page.expect("the oracle should be readable") {
            None => return (notifications, true),
            Some(page) => notifications.extend(page.notifications),
        }
    }
    (notifications, false)
}

async fn next_page(
    mut subscription: Subscription<Arc<dyn DynApplicationRecorder>>,
) -> (Subscription<Arc<dyn DynApplicationRecorder>>, NextPage) {
    let page = subscription.next_page().await;
    (subscription, page)
}

/// A page by ranks: `position` and the end of the log, from which it lags.
fn ranked(mut page: NotificationPage, log: &Log) -> NotificationPage {
    let end = log.rank(page.position + page.lag);
    page.position = log.rank(page.position);
    page.lag = end - page.position;
    page.notifications = page.notifications.into_iter().map(|each| log.ranked(each)).collect();
    page
}

/// Waits until a notification was processed.
pub(super) struct Wait {
    pub(super) handle: usize,
    application_name: &'static str,
    notification_id: i64,
    waiting: Task<Result<(), PersistenceError>>,
}

impl Wait {
    pub(super) fn new(
        handle: usize,
        recorder: Arc<dyn DynTrackingRecorder>,
        application_name: &'static str,
        notification_id: i64,
    ) -> Self {
        let waiting =
            Task::spawn(async move { recorder.wait(application_name, notification_id, NEVER).await });
        Self { handle, application_name, notification_id, waiting }
    }

    /// Returns true if it still waits, which it must if the oracle does.
    pub(super) async fn settle(&mut self, oracle: &Arc<dyn DynTrackingRecorder>) -> bool {
        let expected =
            comparable(oracle.wait(self.application_name, self.notification_id, Duration::ZERO).await);
        if matches!(&expected, Err(Refusal { kind: ErrorKind::TimedOut, .. })) {
            assert_eq!(self.waiting.ended().map(comparable), None, "it was not processed");
            return true;
        }
        assert_eq!(comparable(self.waiting.end().await), expected);
        false
    }
}

/// Listens to one of the signals.
pub(super) struct Listening {
    pub(super) handle: usize,
    tested: Listener,
    oracle: Listener,
}

impl Listening {
    pub(super) fn new(handle: usize, tested: Listener, oracle: Listener) -> Self {
        Self { handle, tested, oracle }
    }

    /// Asserts that the listener is notified if the oracle's is, and ends with its handle. It may be notified
    /// spuriously.
    pub(super) async fn settle(&mut self, is_open: bool) {
        if !is_open {
            assert!(!self.tested.notified().await, "the signal is closed");
        } else if self.oracle.notified().now_or_never().is_some() {
            assert!(self.tested.notified().await, "the signal is open");
        }
    }
}

/// A task that runs concurrently; it ends when it is dropped.
struct Task<T>(JoinSet<T>);

impl<T: Send + 'static> Task<T> {
    fn spawn(future: impl Future<Output = T> + Send + 'static) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(future);
        Self(tasks)
    }

    async fn end(&mut self) -> T {
        let ended = self.0.join_next().await.expect("it was not ended before");
        ended.expect("it should not panic")
    }

    /// Returns the result if the task has ended.
    fn ended(&mut self) -> Option<T> {
        self.0.try_join_next().map(|ended| ended.expect("it should not panic"))
    }
}
