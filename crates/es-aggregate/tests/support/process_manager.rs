//! A process manager: decisions of a repository, recorded by a processor with its position.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use es_aggregate::Repository;
use es_core::{
    AggregateRecorder, EventNotification, EventRange, EventStore, Metadata, ProcessRecorder,
    TrackingRecorderExt,
};
use es_process::{EventHandler, NewEvents, Processor};
use es_transcode::JsonTranscoder;

use super::{A, Account, AccountEvent, B, Overdrawn, store};

/// A timeout after which a waiting test has failed.
const TOO_LONG: Duration = Duration::from_secs(60);

type Accounts<R> = Repository<Account, R, JsonTranscoder>;

/// The number of decisions before which another writer is faster.
const LOST: i64 = 12;

/// Credits a fee for each event. During the first calls, another writer credits one after the decision, so
/// that its version is taken.
fn fee_for_each<R: AggregateRecorder + Clone + 'static>(
    store: &EventStore<R, JsonTranscoder>,
    calls: &Arc<AtomicI64>,
) -> impl EventHandler<AccountEvent, JsonTranscoder> + 'static {
    let (fees, rival) = (Accounts::new(store.clone()), Accounts::new(store.clone()));
    let calls = Arc::clone(calls);
    move |notification: EventNotification<AccountEvent>| {
        let (fees, rival) = (fees.clone(), rival.clone());
        let loses = calls.fetch_add(1, Ordering::SeqCst) < LOST;
        async move {
            assert_eq!(notification.event.originator_id, A);
            let mut new = NewEvents::new();
            new.extend(fees.decide(B, |account| account.credit(10).map_err(|_| NoFee)).await?);
            if loses {
                rival.execute(B, Metadata::new(), |account| account.credit(1).map_err(|_| NoFee)).await?;
            }
            Ok::<_, es_aggregate::CommandError<NoFee>>(new)
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("no fee")]
struct NoFee;

/// The handler is called again after a conflict, and each of its events is recorded once, with the metadata.
pub(crate) async fn decides_again_after_a_conflict<R: ProcessRecorder + Clone + 'static>(bank: R, fees: R) {
    let (bank, fees) = (store(bank), store(fees));
    let accounts = Accounts::new(bank.clone());
    let request = Metadata::new().with_correlation_id("request 5");
    for _ in 0..5 {
        accounts.execute(A, request.clone(), |account| account.credit(100)).await.unwrap();
    }
    let calls = Arc::new(AtomicI64::new(0));
    let processor = Processor::for_events("fees", &bank, &fees, fee_for_each(&fees, &calls));
    let mut running = processor.spawn().unwrap();
    tokio::select! {
        ended = running.join() => panic!("the processor ended: {ended:?}"),
        waited = fees.recorder().wait("fees", 5, TOO_LONG) => waited.unwrap(),
    }
    running.stop();
    running.join().await.unwrap();

    assert_eq!(calls.load(Ordering::SeqCst), LOST + 5);
    let loaded = Accounts::new(fees.clone()).load(B).await.unwrap();
    let events = LOST + 5;
    assert_eq!((loaded.version, loaded.state), (events, Account { balance: LOST + 50, events }));
    // A decision that fails returns its error.
    let overdrawn =
        Accounts::new(fees.clone()).decide(B, |account| account.debit(LOST + 51)).await.unwrap_err();
    assert_eq!(overdrawn.rejection(), Some(&Overdrawn));
    let recorded = fees.get::<AccountEvent>(B, EventRange::all()).await.unwrap();
    let causations = recorded.iter().map(|event| event.metadata.causation_id().map(str::to_owned));
    let expected = (1..=5).map(|version| Some(format!("{A}/{version}")));
    assert_eq!(causations.skip(LOST as usize).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    assert_eq!(recorded[LOST as usize].metadata.correlation_id(), Some("request 5"));
}
