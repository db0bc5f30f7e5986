//! Commands, on one aggregate or on several in one commit.

use std::{fmt, future::Future, sync::Arc};

use es_core::{
    AggregateRecorder, DomainEvent, EventBatch, Metadata, PersistenceError, Transcoder, next_version,
    uuid::Uuid,
};
use futures_timer::Delay;

use crate::{Aggregate, CommandError, Loaded, Repository, backoff::Backoff, locks::Lock, repository::Shared};

impl<A, R, T> Repository<A, R, T>
where
    A: Aggregate,
    R: AggregateRecorder + 'static,
    T: Transcoder,
{
    /// Executes a command: loads the aggregate, decides, and appends the events of the decision with the
    /// metadata. Returns their notification ids, if the recorder assigns any.
    ///
    /// - A decision returns events, such as a `Vec` or an array, or an error of your own. Without events
    ///   nothing is recorded.
    /// - After a conflict with another process the command is repeated: it pauses with full jitter, reads
    ///   the events since the version that it had loaded, and decides again. So a decision may be called
    ///   several times, and has no effects other than its result.
    /// - Commands on one aggregate of this repository take turns, and do not conflict.
    ///
    /// # Errors
    /// [`CommandError::Rejected`] with the error of the decision; [`CommandError::Persistence`] with any
    /// error of loading and recording, among them the last conflict after the
    /// [time limit](Self::retry_for).
    ///
    /// If [the outcome is unknown](PersistenceError::is_outcome_unknown), the command is not repeated, since
    /// its events may be recorded. Repeat it if its decision returns no events for a command that has been
    /// executed: the [crate's documentation](crate#idempotent-commands) shows one.
    ///
    /// # Cancel safety
    /// Cancel safe: either all events are recorded or none.
    pub fn execute<I, E>(
        &self,
        id: Uuid,
        metadata: Metadata,
        mut decide: impl FnMut(&A) -> Result<I, E> + Send,
    ) -> impl Future<Output = Result<Vec<i64>, CommandError<E>>> + Send
    where
        I: IntoIterator<Item = A::Event>,
    {
        let decide = move |state: &A| decide(state).map(|events| events.into_iter().collect());
        execute_together(self.aggregate(id), metadata, decide)
    }

    /// Loads the aggregate and decides, as [`execute`](Self::execute) does, and returns the events of the
    /// decision with their versions, without recording them: for a process manager, whose processor records
    /// them together with its position.
    ///
    /// If other writers are faster, the recording conflicts. A processor then calls its handler again, which
    /// decides again. No lock and no snapshot is taken. Decide once for each aggregate: a second decision
    /// does not see the events of the first.
    ///
    /// ```
    /// use es_aggregate::{Aggregate, CommandError, Repository};
    /// use es_core::{AggregateRecorder, DomainEvent, Transcoder, uuid::Uuid};
    /// # #[derive(es_derive::Event)]
    /// # #[event(topic = "shop:Reserved")]
    /// # struct StockEvent;
    /// # #[derive(Default)]
    /// # struct Stock;
    /// # impl Aggregate for Stock {
    /// #     type Event = StockEvent;
    /// #     fn apply(&mut self, _: &StockEvent) {}
    /// # }
    /// # struct OutOfStock;
    /// # impl Stock {
    /// #     fn reserve(&self, _: u32) -> Result<[StockEvent; 1], OutOfStock> {
    /// #         Ok([StockEvent])
    /// #     }
    /// # }
    ///
    /// async fn reserve<R: AggregateRecorder + 'static, T: Transcoder>(
    ///     stock: &Repository<Stock, R, T>,
    ///     item: Uuid,
    /// ) -> Result<Vec<DomainEvent<StockEvent>>, CommandError<OutOfStock>> {
    ///     stock.decide(item, |stock| stock.reserve(2)).await
    /// }
    /// ```
    ///
    /// # Errors
    /// [`CommandError::Rejected`] with the error of the decision; [`CommandError::Persistence`] with any
    /// error of loading.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub fn decide<I, E>(
        &self,
        id: Uuid,
        decide: impl FnOnce(&A) -> Result<I, E> + Send,
    ) -> impl Future<Output = Result<Vec<DomainEvent<A::Event>>, CommandError<E>>> + Send
    where
        I: IntoIterator<Item = A::Event>,
    {
        let mut aggregate = self.aggregate(id);
        async move {
            aggregate.load().await?;
            let events = decide(&aggregate.loaded.state).map_err(CommandError::Rejected)?;
            aggregate.number(events.into_iter().collect(), &Metadata::new())?;
            Ok(aggregate.events)
        }
    }

    /// Returns a reference to an aggregate, for [`execute_together`].
    pub fn aggregate(&self, id: Uuid) -> AggregateRef<A, R, T> {
        AggregateRef::new(self.clone(), id)
    }
}

/// Executes a command on several aggregates, and records the events of all in one commit.
///
/// The aggregates are references from [`Repository::aggregate`], in a tuple or a vector, or in tuples of
/// these. The decision gets their states in this form, and returns a vector of events for each, in this
/// form; it may be empty. All else is as for [`Repository::execute`]: after a conflict about any of them, the
/// events of all since the loaded versions are read, and the decision is called again.
///
/// The repositories must share their store: make one from the other by [`Repository::repository`].
///
/// ```
/// use es_aggregate::{Aggregate, CommandError, Repository, execute_together};
/// use es_core::{EventStore, Mapper, Metadata, uuid::Uuid};
/// use es_derive::Event;
/// use es_popo::PopoApplicationRecorder;
/// use es_transcode::JsonTranscoder;
///
/// # #[derive(Event)]
/// # #[event(topic = "bank:Account")]
/// # enum AccountEvent {
/// #     Credited { cents: i64 },
/// #     Debited { cents: i64 },
/// # }
/// # #[derive(Default)]
/// # struct Account {
/// #     balance: i64,
/// # }
/// # impl Aggregate for Account {
/// #     type Event = AccountEvent;
/// #     fn apply(&mut self, event: &AccountEvent) {
/// #         match event {
/// #             AccountEvent::Credited { cents } => self.balance += cents,
/// #             AccountEvent::Debited { cents } => self.balance -= cents,
/// #         }
/// #     }
/// # }
/// # #[derive(Debug)]
/// # struct Overdrawn;
/// # impl Account {
/// #     fn credit(&self, cents: i64) -> Result<Vec<AccountEvent>, Overdrawn> {
/// #         Ok(vec![AccountEvent::Credited { cents }])
/// #     }
/// #     fn debit(&self, cents: i64) -> Result<Vec<AccountEvent>, Overdrawn> {
/// #         if cents > self.balance { Err(Overdrawn) } else { Ok(vec![AccountEvent::Debited { cents }]) }
/// #     }
/// # }
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), CommandError<Overdrawn>> {
/// let store = EventStore::new(PopoApplicationRecorder::new(), Mapper::new(JsonTranscoder::new()));
/// let accounts = Repository::<Account, _, _>::new(store);
/// let (alice, bob) = (Uuid::now_v7(), Uuid::now_v7());
/// accounts.execute(alice, Metadata::new(), |account| account.credit(500)).await?;
///
/// let both = (accounts.aggregate(alice), accounts.aggregate(bob));
/// let transfer = |(from, to): (&Account, &Account)| Ok::<_, Overdrawn>((from.debit(200)?, to.credit(200)?));
/// execute_together(both, Metadata::new(), transfer).await?;
///
/// assert_eq!(accounts.load(alice).await?.state.balance, 300);
/// assert_eq!(accounts.load(bob).await?.state.balance, 200);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// As [`Repository::execute`]; [`Interface`](es_core::ErrorKind::Interface) if an aggregate is named twice,
/// if the repositories do not share a store, or if the decision has events for more or fewer aggregates than
/// a vector has.
///
/// # Cancel safety
/// Cancel safe: either all events are recorded or none.
#[expect(clippy::manual_async_fn, reason = "callers with a recorder behind a `dyn` need the declared `Send`")]
pub fn execute_together<P: Aggregates, E>(
    mut aggregates: P,
    metadata: Metadata,
    mut decide: impl FnMut(P::States<'_>) -> Result<P::Events, E> + Send,
) -> impl Future<Output = Result<Vec<i64>, CommandError<E>>> + Send {
    async move {
        let mut participants = Vec::new();
        aggregates.participants(&mut participants);
        let Some(shared) = shared(&mut participants)? else { return Ok(Vec::new()) };
        let ids = {
            let _locks = lock_all(&shared, &participants).await;
            let time_limit = participants.iter().map(|participant| participant.retry_for).min();
            let mut backoff = Backoff::new(time_limit.unwrap_or_default());
            loop {
                aggregates.load().await?;
                let events = decide(aggregates.states()).map_err(CommandError::Rejected)?;
                aggregates.number(events, &metadata)?;
                let batch = aggregates.add_to(shared.store.batch()).await?;
                match batch.commit().await {
                    Ok(ids) => break ids,
                    Err(error) if error.is_conflict() => {
                        let Some(pause) = backoff.next_pause() else { return Err(error.into()) };
                        Delay::new(pause).await;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        };
        aggregates.write_snapshots().await;
        Ok(ids)
    }
}

/// A reference to an aggregate of a repository, for [`execute_together`].
pub struct AggregateRef<A: Aggregate, R, T> {
    repository: Repository<A, R, T>,
    loaded: Loaded<A>,
    /// The events of the last decision.
    events: Vec<DomainEvent<A::Event>>,
}

impl<A: Aggregate, R, T> AggregateRef<A, R, T> {
    pub(crate) fn new(repository: Repository<A, R, T>, id: Uuid) -> Self {
        Self { repository, loaded: Loaded::empty(id), events: Vec::new() }
    }
}

/// The aggregates of a command: an [`AggregateRef`], a vector, or a tuple of up to four of all these.
///
/// The methods are details of [`execute_together`].
pub trait Aggregates: private::Sealed + Send + 'static {
    /// The recorder of the store.
    type Recorder: AggregateRecorder + 'static;
    /// The transcoder of the store.
    type Transcoder: Transcoder;
    /// The argument of the decision: a reference to each state.
    type States<'a>
    where
        Self: 'a;
    /// The result of the decision: a vector of events for each aggregate.
    type Events;

    #[doc(hidden)]
    fn participants(&self, participants: &mut Vec<private::Participant<Self::Recorder, Self::Transcoder>>);

    /// Loads the aggregates, or the events since they were loaded.
    #[doc(hidden)]
    fn load(&mut self) -> impl Future<Output = Result<(), PersistenceError>> + Send;

    #[doc(hidden)]
    fn states(&self) -> Self::States<'_>;

    /// Numbers the events of a decision from the loaded versions on, in place of those of earlier decisions.
    #[doc(hidden)]
    fn number(&mut self, events: Self::Events, metadata: &Metadata) -> Result<(), PersistenceError>;

    #[doc(hidden)]
    fn add_to<'s>(
        &mut self,
        batch: EventBatch<'s, Self::Recorder, Self::Transcoder>,
    ) -> impl Future<Output = Result<EventBatch<'s, Self::Recorder, Self::Transcoder>, PersistenceError>> + Send;

    #[doc(hidden)]
    fn write_snapshots(self) -> impl Future<Output = ()> + Send;
}

impl<A, R, T> Aggregates for AggregateRef<A, R, T>
where
    A: Aggregate,
    R: AggregateRecorder + 'static,
    T: Transcoder,
{
    type Recorder = R;
    type Transcoder = T;
    type States<'a> = &'a A;
    type Events = Vec<A::Event>;

    fn participants(&self, participants: &mut Vec<private::Participant<R, T>>) {
        participants.push(private::Participant {
            id: self.loaded.id,
            shared: Arc::clone(&self.repository.shared),
            retry_for: self.repository.retry_for,
        });
    }

    async fn load(&mut self) -> Result<(), PersistenceError> {
        if self.loaded.exists() {
            self.repository.catch_up(&mut self.loaded).await
        } else {
            self.loaded = self.repository.load(self.loaded.id).await?;
            Ok(())
        }
    }

    fn states(&self) -> &A {
        &self.loaded.state
    }

    fn number(&mut self, events: Vec<A::Event>, metadata: &Metadata) -> Result<(), PersistenceError> {
        self.events.clear();
        let mut version = self.loaded.version;
        for payload in events {
            version = next_version(version)?;
            let event = DomainEvent::new(self.loaded.id, version, payload);
            self.events.push(event.with_metadata(metadata.clone()));
        }
        Ok(())
    }

    async fn add_to<'s>(
        &mut self,
        batch: EventBatch<'s, R, T>,
    ) -> Result<EventBatch<'s, R, T>, PersistenceError> {
        batch.with(&self.events).await
    }

    async fn write_snapshots(self) {
        self.repository.write_snapshot(self.loaded, &self.events).await;
    }
}

impl<P: Aggregates> Aggregates for Vec<P> {
    type Recorder = P::Recorder;
    type Transcoder = P::Transcoder;
    type States<'a> = Vec<P::States<'a>>;
    type Events = Vec<P::Events>;

    fn participants(&self, participants: &mut Vec<private::Participant<P::Recorder, P::Transcoder>>) {
        self.iter().for_each(|aggregates| aggregates.participants(participants));
    }

    async fn load(&mut self) -> Result<(), PersistenceError> {
        for aggregates in self {
            aggregates.load().await?;
        }
        Ok(())
    }

    fn states(&self) -> Vec<P::States<'_>> {
        self.iter().map(P::states).collect()
    }

    fn number(&mut self, events: Vec<P::Events>, metadata: &Metadata) -> Result<(), PersistenceError> {
        if events.len() != self.len() {
            let message = format!("a decision has events for {} of {} aggregates", events.len(), self.len());
            return Err(PersistenceError::interface(message));
        }
        self.iter_mut().zip(events).try_for_each(|(aggregates, events)| aggregates.number(events, metadata))
    }

    async fn add_to<'s>(
        &mut self,
        mut batch: EventBatch<'s, P::Recorder, P::Transcoder>,
    ) -> Result<EventBatch<'s, P::Recorder, P::Transcoder>, PersistenceError> {
        for aggregates in self {
            batch = aggregates.add_to(batch).await?;
        }
        Ok(batch)
    }

    async fn write_snapshots(self) {
        for aggregates in self {
            aggregates.write_snapshots().await;
        }
    }
}

macro_rules! tuple {
    ($First:ident $first:tt $(, $Other:ident $other:tt)*) => {
        impl<$First: private::Sealed, $($Other: private::Sealed),*> private::Sealed for ($First, $($Other),*) {}

        impl<$First, $($Other),*> Aggregates for ($First, $($Other),*)
        where
            $First: Aggregates,
            $($Other: Aggregates<Recorder = $First::Recorder, Transcoder = $First::Transcoder>,)*
        {
            type Recorder = $First::Recorder;
            type Transcoder = $First::Transcoder;
            type States<'a> = ($First::States<'a>, $($Other::States<'a>),*);
            type Events = ($First::Events, $($Other::Events),*);

            fn participants(
                &self,
                participants: &mut Vec<private::Participant<Self::Recorder, Self::Transcoder>>,
            ) {
                self.$first.participants(participants);
                $(self.$other.participants(participants);)*
            }

            async fn load(&mut self) -> Result<(), PersistenceError> {
                self.$first.load().await?;
                $(self.$other.load().await?;)*
                Ok(())
            }

            fn states(&self) -> Self::States<'_> {
                (self.$first.states(), $(self.$other.states()),*)
            }

            fn number(&mut self, events: Self::Events, metadata: &Metadata) -> Result<(), PersistenceError> {
                self.$first.number(events.$first, metadata)?;
                $(self.$other.number(events.$other, metadata)?;)*
                Ok(())
            }

            async fn add_to<'s>(
                &mut self,
                batch: EventBatch<'s, Self::Recorder, Self::Transcoder>,
            ) -> Result<EventBatch<'s, Self::Recorder, Self::Transcoder>, PersistenceError> {
                let batch = self.$first.add_to(batch).await?;
                $(let batch = self.$other.add_to(batch).await?;)*
                Ok(batch)
            }

            async fn write_snapshots(self) {
                self.$first.write_snapshots().await;
                $(self.$other.write_snapshots().await;)*
            }
        }
    };
}

tuple!(P 0, Q 1);
tuple!(P 0, Q 1, S 2);
tuple!(P 0, Q 1, S 2, U 3);

/// Returns the store of the aggregates, and sorts the aggregates by id; `None` if
/// there are no aggregates.
fn shared<R, T>(
    participants: &mut [private::Participant<R, T>],
) -> Result<Option<Arc<Shared<R, T>>>, PersistenceError> {
    participants.sort_unstable_by_key(|participant| participant.id);
    let Some(first) = participants.first() else { return Ok(None) };
    if participants.iter().any(|participant| !Arc::ptr_eq(&participant.shared, &first.shared)) {
        let advice = "make one from the other, by `Repository::repository`";
        let message = format!("the repositories of a command do not share a store; {advice}");
        return Err(PersistenceError::interface(message));
    }
    let mut pairs = participants.iter().zip(participants.iter().skip(1));
    if let Some((one, _)) = pairs.find(|(one, next)| one.id == next.id) {
        return Err(PersistenceError::interface(format!("a command names aggregate {} twice", one.id)));
    }
    Ok(Some(Arc::clone(&first.shared)))
}

/// Locks the aggregates in the order of their ids, so that two commands do not wait for each other.
async fn lock_all<'l, R, T>(
    shared: &'l Shared<R, T>,
    participants: &[private::Participant<R, T>],
) -> Vec<Lock<'l>> {
    let mut locks = Vec::with_capacity(participants.len());
    for participant in participants {
        locks.push(shared.locks.lock(participant.id).await);
    }
    locks
}

impl<A: Aggregate, R, T> fmt::Debug for AggregateRef<A, R, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AggregateRef").field("id", &self.loaded.id).finish_non_exhaustive()
    }
}

mod private {
    use std::{sync::Arc, time::Duration};

    use es_core::uuid::Uuid;

    use crate::{Aggregate, AggregateRef, repository::Shared};

    pub trait Sealed {}

    impl<A: Aggregate, R, T> Sealed for AggregateRef<A, R, T> {}
    impl<P: Sealed> Sealed for Vec<P> {}

    /// An aggregate of a command.
    #[expect(missing_debug_implementations, reason = "no public function returns one")]
    pub struct Participant<R, T> {
        pub(crate) id: Uuid,
        pub(crate) shared: Arc<Shared<R, T>>,
        pub(crate) retry_for: Duration,
    }
}
