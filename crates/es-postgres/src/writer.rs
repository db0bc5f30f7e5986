//! The way of a request to the database: queue, group, one call, an answer to each caller.
//!
//! Requests that wait are committed together, because the table's lock is held until a commit is
//! durable and one flush of the disk then serves them all. An idle writer sends a request at once.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use es_core::{Conflict, ErrorKind, PersistenceError, StoredEvent, Tracking};
use tokio::sync::{Mutex as AsyncMutex, OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};
use uuid::Uuid;

use crate::{
    append::Batch,
    error,
    options::{GroupBounds, PostgresOptions},
    outcome::{Answer, Committer},
};

/// What an event counts beyond its topic and state, in bytes of the queue: so that the queue is
/// bounded in rows too.
const ROW_COST: usize = 128;

/// What PostgreSQL can take in one value, and therefore in one array of states.
const LARGEST_REQUEST: usize = 1_000_000_000;

/// What a caller wants recorded as one.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) events: Vec<StoredEvent>,
    pub(crate) tracking: Option<Tracking>,
    reply: oneshot::Sender<Result<Vec<i64>, PersistenceError>>,
    /// Its share of the queue, until it is answered.
    _share: OwnedSemaphorePermit,
}

impl Request {
    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { events: &self.events, tracking: self.tracking.as_ref() }
    }

    pub(crate) fn answer(self, result: Result<Vec<i64>, PersistenceError>) {
        // A caller who has gone away does not want to know.
        let _ = self.reply.send(result);
    }
}

/// Where requests wait. Dropping it lets the writers finish what was accepted, and end.
#[derive(Debug)]
pub(crate) struct Queue {
    sender: Mutex<Option<mpsc::UnboundedSender<Request>>>,
    shares: Arc<Semaphore>,
    size: u32,
    /// Ends when the last writer has ended.
    writers: watch::Receiver<()>,
}

impl Queue {
    /// A queue and the tasks that empty it.
    pub(crate) fn start(committer: Committer, options: &PostgresOptions, writers: usize) -> Self {
        let (sender, receiver) = mpsc::unbounded_channel();
        let (alive, ended) = watch::channel(());
        let (committer, receiver, alive) =
            (Arc::new(committer), Arc::new(AsyncMutex::new(receiver)), Arc::new(alive));
        for _ in 0..writers {
            let writer = Writer {
                committer: Arc::clone(&committer),
                receiver: Arc::clone(&receiver),
                bounds: options.group,
                postponed: VecDeque::new(),
                _alive: Arc::clone(&alive),
            };
            tokio::spawn(writer.run());
        }
        Self {
            sender: Mutex::new(Some(sender)),
            shares: Arc::new(Semaphore::new(options.queue_bytes.get() as usize)),
            size: options.queue_bytes.get(),
            writers: ended,
        }
    }

    /// Waits for room in the queue, and then for the answer.
    pub(crate) async fn append(
        &self,
        events: Vec<StoredEvent>,
        tracking: Option<Tracking>,
    ) -> Result<Vec<i64>, PersistenceError> {
        if self.is_closed() {
            return Err(error::closed());
        }
        if events.is_empty() && tracking.is_none() {
            return Ok(Vec::new());
        }
        check(&events)?;
        let cost = events.iter().map(cost).sum::<usize>() + ROW_COST;
        // A request larger than the queue waits until it is alone.
        let share = u32::try_from(cost).unwrap_or(u32::MAX).min(self.size);
        let share = Arc::clone(&self.shares).acquire_many_owned(share).await.map_err(|_| error::closed())?;
        let (reply, answer) = oneshot::channel();
        self.send(Request { events, tracking, reply, _share: share })?;
        answer.await.unwrap_or_else(|_| {
            Err(PersistenceError::new(
                ErrorKind::OutcomeUnknown,
                "the writer ended before it answered: its runtime was shut down",
            ))
        })
    }

    /// Takes no more requests, and waits until those that were taken are answered.
    pub(crate) async fn close(&self) {
        drop(self.lock_sender().take());
        self.shares.close();
        let mut writers = self.writers.clone();
        // Nothing is ever sent: this ends in an error, when the last writer has ended.
        while writers.changed().await.is_ok() {}
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.lock_sender().is_none()
    }

    fn send(&self, request: Request) -> Result<(), PersistenceError> {
        let sender = self.lock_sender();
        let sender = sender.as_ref().ok_or_else(error::closed)?;
        sender.send(request).map_err(|_| {
            PersistenceError::interface("the recorder's writer has ended: its runtime was shut down")
        })
    }

    fn lock_sender(&self) -> std::sync::MutexGuard<'_, Option<mpsc::UnboundedSender<Request>>> {
        // Nothing panics while it is held.
        self.sender.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A task that commits groups.
struct Writer {
    committer: Arc<Committer>,
    receiver: Arc<AsyncMutex<mpsc::UnboundedReceiver<Request>>>,
    bounds: GroupBounds,
    /// What was at odds with the group before.
    postponed: VecDeque<Request>,
    _alive: Arc<watch::Sender<()>>,
}

impl Writer {
    async fn run(mut self) {
        while let Some(first) = self.next().await {
            let mut candidates = vec![first];
            self.take_waiting(&mut candidates);
            let group = Group::form(candidates);
            let several = group.requests.len() > 1;
            let has_events = group.requests.iter().any(|request| !request.events.is_empty());
            let answers = self.committer.commit(group.requests).await;
            if has_events && answers.contains(&Ok(())) {
                self.committer.tell();
            }
            // The last one first, so that they stand in their order before all that waits.
            for postponed in group.postponed.into_iter().rev() {
                match postponed.lost_to(&answers) {
                    Some(conflict) => postponed.request.answer(Err(conflict.into())),
                    None => self.postponed.push_front(postponed.request),
                }
            }
            if several {
                // Callers who were just answered ask again at once: let them, so that the next group is
                // theirs and not of the few who got a thread first (a fifth more events, `insert, 64
                // tasks, 1 per commit`). An idle writer does not come here.
                tokio::task::yield_now().await;
            }
        }
    }

    /// The next request; none when the queue is closed and empty.
    async fn next(&mut self) -> Option<Request> {
        match self.postponed.pop_front() {
            Some(request) => Some(request),
            None => self.receiver.lock().await.recv().await,
        }
    }

    /// Adds what waits, within the bounds of a group.
    fn take_waiting(&mut self, candidates: &mut Vec<Request>) {
        let size = |request: &Request| {
            (request.events.len() + 1, request.events.iter().map(cost).sum::<usize>() + ROW_COST)
        };
        let (mut rows, mut bytes) = candidates.first().map_or((0, 0), size);
        // Another writer that waits for a request holds the receiver: then there is none.
        let mut receiver = self.receiver.try_lock();
        while rows < self.bounds.rows && bytes < self.bounds.bytes {
            let waiting = match self.postponed.pop_front() {
                Some(request) => Some(request),
                None => receiver.as_mut().ok().and_then(|receiver| receiver.try_recv().ok()),
            };
            let Some(request) = waiting else { return };
            let (more_rows, more_bytes) = size(&request);
            (rows, bytes) = (rows + more_rows, bytes + more_bytes);
            if rows > self.bounds.rows || bytes > self.bounds.bytes {
                // Too large for what is left: it opens the next group.
                self.postponed.push_front(request);
                return;
            }
            candidates.push(request);
        }
    }
}

/// Requests that are not at odds with each other, and those that had to be left out for that.
struct Group {
    requests: Vec<Request>,
    postponed: Vec<Postponed>,
}

/// A request that is left out of a group.
struct Postponed {
    request: Request,
    /// The one of the group that it is at odds with, and what both want; none when it waits behind
    /// another that is left out.
    rival: Option<(usize, Conflict)>,
}

impl Postponed {
    /// The conflict, if the rival was accepted, or refused because somebody else has the version or the position that
    /// both want: without this, many who are late for one aggregate would be refused one after the
    /// other, a call each. Otherwise the request's own time comes; so does that of one with a position,
    /// which may be lost as well, and would have to be told first.
    fn lost_to(&self, answers: &[Answer]) -> Option<Conflict> {
        let (rival, conflict) = self.rival.as_ref()?;
        let is_of_version = matches!(conflict, Conflict::Version { .. });
        if is_of_version && self.request.tracking.is_some() {
            return None;
        }
        let is_taken = match answers.get(*rival)? {
            Ok(()) => true,
            Err(Some(met)) => met == conflict,
            Err(None) => false,
        };
        is_taken.then(|| conflict.clone())
    }
}

impl Group {
    fn form(candidates: Vec<Request>) -> Self {
        let mut group = Self { requests: Vec::with_capacity(candidates.len()), postponed: Vec::new() };
        if candidates.len() == 1 {
            group.requests = candidates;
            return group;
        }
        let mut claims = Claims::default();
        for request in candidates {
            match claims.check(&request) {
                Ok(()) => {
                    claims.add(&request, Some(group.requests.len()));
                    group.requests.push(request);
                }
                Err(rival) => {
                    claims.add(&request, None);
                    group.postponed.push(Postponed { request, rival });
                }
            }
        }
        group
    }
}

/// What the requests before want: with the number of the one that wants it, or none if that one is left
/// out, which nobody may overtake who would be at odds with it.
#[derive(Default)]
struct Claims {
    versions: HashMap<(Uuid, i64), Option<usize>>,
    positions: HashMap<String, (i64, Option<usize>)>,
}

impl Claims {
    /// Whether a request goes together with those before; if not, its rival in the group, if it has one.
    ///
    /// Ascending positions of one application go well together: each is greater than all before it,
    /// whichever of those are accepted.
    fn check(&self, request: &Request) -> Result<(), Option<(usize, Conflict)>> {
        if let Some(tracking) = &request.tracking {
            match self.positions.get(tracking.application_name()) {
                Some((_, None)) => return Err(None),
                Some((position, Some(rival))) if *position >= tracking.first() => {
                    return Err(Some((*rival, tracking_conflict(tracking))));
                }
                _ => {}
            }
        }
        for event in &request.events {
            if let Some(claimant) = self.versions.get(&(event.originator_id, event.originator_version)) {
                return Err(claimant.map(|rival| (rival, version_conflict(event))));
            }
        }
        Ok(())
    }

    fn add(&mut self, request: &Request, claimant: Option<usize>) {
        for event in &request.events {
            // What one of the group wants stays its own.
            self.versions.entry((event.originator_id, event.originator_version)).or_insert(claimant);
        }
        if let Some(tracking) = &request.tracking {
            let claim = (tracking.notification_id(), claimant);
            self.positions.insert(tracking.application_name().to_owned(), claim);
        }
    }
}

/// What can be said of events without asking the database.
pub(crate) fn check(events: &[StoredEvent]) -> Result<(), PersistenceError> {
    let bytes: usize = events.iter().map(cost).sum();
    if bytes > LARGEST_REQUEST {
        let largest = events.iter().max_by_key(|event| event.state.len());
        let error = PersistenceError::data(format!(
            "{bytes} bytes of events are more than the {LARGEST_REQUEST} that PostgreSQL takes at once"
        ));
        return Err(match largest {
            Some(largest) => error.at(&largest.place()),
            None => error,
        });
    }
    // The common case needs no set: versions of one aggregate in ascending order.
    let place = |event: &StoredEvent| (event.originator_id, event.originator_version);
    if events.is_sorted_by(|a, b| place(a) < place(b)) {
        return Ok(());
    }
    let mut places = std::collections::HashSet::with_capacity(events.len());
    match events.iter().find(|event| !places.insert(place(event))) {
        Some(twice) => Err(version_conflict(twice).into()),
        None => Ok(()),
    }
}

pub(crate) fn version_conflict(event: &StoredEvent) -> Conflict {
    Conflict::Version { originator_id: event.originator_id, originator_version: event.originator_version }
}

pub(crate) fn tracking_conflict(tracking: &Tracking) -> Conflict {
    Conflict::Tracking {
        application_name: tracking.application_name().to_owned(),
        notification_id: tracking.first(),
    }
}

fn cost(event: &StoredEvent) -> usize {
    event.topic.len() + event.state.len() + ROW_COST
}
