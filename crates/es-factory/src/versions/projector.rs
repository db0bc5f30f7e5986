//! The consumer of a version.

use std::{
    fmt,
    marker::PhantomData,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use es_core::{
    ConsumerError, DynTrackingRecorder, HandlerError, LoadingConsumer, Mapper, NotificationBatch,
    NotificationConsumer, PersistenceError, TrackingRecorder,
};
use es_transcode::JsonTranscoder;

use super::{
    ProjectionContext, ProjectionVersion, Projections, VersionState, VersionedProjection,
    projection::{BatchState, TypedVersion},
    projections::has_no_row,
    statements::consumer_name,
};
use crate::{Backend, BoxConsumer};

/// The number of looks at the state of a version before the processor pauses, and the pause between them.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// Runs a version of a [`VersionedProjection`] and records its position in the same commit. It is a
/// [`NotificationConsumer`] for a processor of the crate `es-process`, which must run under its
/// [`consumer_name`](Self::consumer_name).
///
/// Made by [`InfrastructureFactory::versioned_projector`](crate::InfrastructureFactory::versioned_projector).
///
/// While it is built, a version processes no notification that the active one has not processed. A version
/// that is paused or replaced waits: its processor reports a transient failure, and tries again.
pub struct VersionedProjector<P: VersionedProjection> {
    consumer: LoadingConsumer<BoxConsumer, JsonTranscoder, P::Event>,
    projections: Projections,
    name: String,
    version: u32,
    consumer_name: String,
    /// The state of the version, as the projection needs it.
    state: Arc<RwLock<BatchState>>,
    /// The state of the version and the last notification that it may process, as they were read.
    known: Option<Known>,
    /// The position that the processor expects, and the later one that was recorded without it.
    moved: Option<(i64, i64)>,
    projection: PhantomData<fn() -> P>,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    epoch: i64,
    /// The reason why nothing is processed.
    blocked: Option<Blocked>,
    /// Notifications up to this one are replayed.
    live_from: i64,
    /// Notifications after this one are not processed yet.
    limit: i64,
}

#[derive(Clone, Copy, Debug)]
enum Blocked {
    Paused,
    Retired,
    Dropped,
}

impl<P: VersionedProjection> VersionedProjector<P> {
    pub(crate) async fn new(
        backend: Arc<dyn Backend>,
        mapper: Mapper<JsonTranscoder>,
        (name, version): (String, u32),
        projection: P,
    ) -> Result<Self, PersistenceError> {
        let projections = Projections::new(Arc::clone(&backend));
        // Creates the table of positions.
        backend.tracking_recorder(&es_core::RecorderTables::new()).await?;
        let set_up = projection.set_up(&ProjectionContext::new(version, true));
        projections.register(&name, version, P::TABLES, &set_up).await?;
        let state = Arc::default();
        let typed = TypedVersion {
            projection,
            mapper: mapper.clone(),
            name: name.clone(),
            version,
            state: Arc::clone(&state),
        };
        let consumer = backend.projector(Box::new(typed)).await?;
        Ok(Self {
            consumer: LoadingConsumer::new(consumer, mapper),
            projections,
            consumer_name: consumer_name(&name, version),
            name,
            version,
            state,
            known: None,
            moved: None,
            projection: PhantomData,
        })
    }

    /// Returns the name under which a processor must run: the projection's name for version 1, `NAME@2` for
    /// version 2.
    pub fn consumer_name(&self) -> &str {
        &self.consumer_name
    }

    /// Waits until the version may process the first notifications of a batch, and returns those.
    async fn admit<'a>(
        &mut self,
        batch: NotificationBatch<'a>,
    ) -> Result<NotificationBatch<'a>, ConsumerError> {
        if batch.application_name != self.consumer_name {
            return Err(PersistenceError::programming(format!(
                "version {} of projection {:?} is run as consumer {:?}, and must be run as {:?}",
                self.version, self.name, batch.application_name, self.consumer_name
            ))
            .into());
        }
        let mut batch = batch;
        if let Some((from, to)) = self.moved
            && batch.expected_position == Some(from)
        {
            batch.expected_position = Some(to);
        }
        if batch.notifications.is_empty() {
            // No statement of the transaction verifies the state.
            self.known = None;
        }
        for look in 0..=LOOKS {
            if look > 0 {
                self.recorder().tracking_signal().closed_timeout(PAUSE).await;
            }
            let known = match self.known {
                Some(known) => known,
                None => self.look().await?,
            };
            if known.blocked.is_none() {
                let notifications = batch.notifications;
                let allowed = notifications.partition_point(|notification| notification.id <= known.limit);
                if allowed > 0 || notifications.is_empty() {
                    self.prepare(known, batch);
                    return Ok(first_of(batch, allowed));
                }
                self.skip_to(known.limit, &mut batch).await?;
            }
            self.known = None;
        }
        Err(self.waiting().await?.into())
    }

    /// Passes the state to the projection.
    fn prepare(&self, Known { epoch, live_from, .. }: Known, batch: NotificationBatch<'_>) {
        let first = batch.notifications.first().map_or(0, |first| first.id);
        *self.state.write().unwrap_or_else(PoisonError::into_inner) = BatchState { first, epoch, live_from };
    }

    /// Records the active version's position, before which no notification of the batch is, so that the
    /// version counts as caught up. The processor still expects the earlier position.
    async fn skip_to(&mut self, limit: i64, batch: &mut NotificationBatch<'_>) -> Result<(), ConsumerError> {
        let Some(expected) = batch.expected_position.filter(|expected| *expected < limit) else {
            return Ok(());
        };
        self.consumer.process(NotificationBatch { notifications: &[], position: limit, ..*batch }).await?;
        let from = self.moved.filter(|(_, to)| *to == expected).map_or(expected, |(from, _)| from);
        self.moved = Some((from, limit));
        batch.expected_position = Some(limit);
        Ok(())
    }

    /// Reads the state of the version.
    async fn look(&mut self) -> Result<Known, PersistenceError> {
        let versions = self.projections.select(Some(&self.name)).await?;
        let own = versions.iter().find(|version| version.version == self.version);
        let blocked = match own {
            None => Some(Blocked::Dropped),
            Some(ProjectionVersion { state: VersionState::Dropped, .. }) => Some(Blocked::Dropped),
            Some(ProjectionVersion { is_paused: true, .. }) => Some(Blocked::Paused),
            Some(ProjectionVersion { state: VersionState::Retired, .. }) => Some(Blocked::Retired),
            Some(_) => None,
        };
        if let Some(Blocked::Dropped) = blocked {
            let message = format!("version {} of projection {:?} was dropped", self.version, self.name);
            return Err(PersistenceError::programming(message));
        }
        let is_active = |version: &&ProjectionVersion| version.state == VersionState::Active;
        let (epoch, live_from, limit) = match own {
            Some(own) if own.state == VersionState::Active => (own.epoch, own.live_from, i64::MAX),
            own => {
                let limit = versions.iter().find(is_active).map_or(0, ProjectionVersion::effects_position);
                (own.map_or(0, |own| own.epoch), i64::MAX, limit)
            }
        };
        let known = Known { epoch, blocked, live_from, limit };
        self.known = Some(known);
        Ok(known)
    }

    /// Returns the error that makes the processor try again.
    async fn waiting(&mut self) -> Result<PersistenceError, PersistenceError> {
        let Known { blocked, limit, .. } = self.look().await?;
        self.known = None;
        let reason = match blocked {
            Some(Blocked::Paused) => "is paused".to_owned(),
            Some(_) => "was replaced".to_owned(),
            None => format!("waits for the active version, which is at {limit}"),
        };
        let message = format!("version {} of projection {:?} {reason}", self.version, self.name);
        Ok(PersistenceError::operational(message).transient())
    }

    /// Returns whether a commit was refused because the versions have changed since their state was read.
    async fn is_refused(&mut self, error: &ConsumerError) -> Result<bool, PersistenceError> {
        let ConsumerError::Handler { error, .. } = error else { return Ok(false) };
        if !has_no_row(&**error) {
            return Ok(false);
        }
        let before = self.known.map(|known| known.epoch);
        Ok(Some(self.look().await?.epoch) != before)
    }
}

impl<P: VersionedProjection> NotificationConsumer for VersionedProjector<P> {
    type Recorder = Arc<dyn DynTrackingRecorder>;

    fn recorder(&self) -> &Self::Recorder {
        self.consumer.recorder()
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        loop {
            let admitted = self.admit(batch).await?;
            match self.consumer.process(admitted).await {
                Err(error) if self.is_refused(&error).await? => {}
                result => {
                    // After an error, such as that of a reset, the recorded position is read again.
                    self.moved = self.moved.filter(|_| result.is_ok());
                    return result;
                }
            }
        }
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        let admitted = self.admit(batch).await?;
        match self.consumer.park(admitted, failure).await {
            Err(error) if self.is_refused(&error).await? => {
                let message =
                    "the versions of the projection have changed: the notification is handled again";
                Err(PersistenceError::operational(message).transient().into())
            }
            result => result,
        }
    }
}

impl<P: VersionedProjection> fmt::Debug for VersionedProjector<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VersionedProjector")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("recorder", self.recorder())
            .finish_non_exhaustive()
    }
}

/// Returns the batch with the first `count` notifications.
fn first_of(batch: NotificationBatch<'_>, count: usize) -> NotificationBatch<'_> {
    match batch.notifications.get(..count) {
        Some(notifications @ [.., last]) if count < batch.notifications.len() => {
            NotificationBatch { notifications, position: last.id, ..batch }
        }
        _ => batch,
    }
}
