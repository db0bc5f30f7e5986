//! A process manager: decisions of a repository, recorded by a processor with its position.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
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

/// Credits a fee for each event. While the first is handled, another writer credits one, so that the version
/// of the decision is taken.
fn fee_for_each<R: AggregateRecorder + Clone + 'static>(
    store: &EventStore<R, JsonTranscoder>,
    calls: &Arc<AtomicU32>,
) -> impl EventHandler<AccountEvent, JsonTranscoder> + 'static {
    let (fees, rival) = (Accounts::new(store.clone()), Accounts::new(store.clone()));
    let calls = Arc::clone(calls);
    move |notification: EventNotification<AccountEvent>| {
        let (fees, rival) = (fees.clone(), rival.clone());
        let is_first = calls.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            assert_eq!(notification.event.originator_id, A);
            let mut new = NewEvents::new();
            new.extend(fees.decide(B, |account| account.credit(10).map_err(|_| NoFee)).await?);
            if is_first {
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
    let calls = Arc::new(AtomicU32::new(0));
    let processor = Processor::for_events("fees", &bank, &fees, fee_for_each(&fees, &calls));
    let mut running = processor.spawn().unwrap();
    tokio::select! {
        ended = running.join() => panic!("the processor ended: {ended:?}"),
        waited = fees.recorder().wait("fees", 5, TOO_LONG) => waited.unwrap(),
    }
    running.stop();
    running.join().await.unwrap();

    assert_eq!(calls.load(Ordering::SeqCst), 6);
    let loaded = Accounts::new(fees.clone()).load(B).await.unwrap();
    assert_eq!((loaded.version, loaded.state), (6, Account { balance: 51, events: 6 }));
    // A decision that fails returns its error.
    let overdrawn = Accounts::new(fees.clone()).decide(B, |account| account.debit(52)).await.unwrap_err();
    assert_eq!(overdrawn.rejection(), Some(&Overdrawn));
    let recorded = fees.get::<AccountEvent>(B, EventRange::all()).await.unwrap();
    let causations = recorded.iter().map(|event| event.metadata.causation_id().map(str::to_owned));
    let expected = std::iter::once(None).chain((1..=5).map(|version| Some(format!("{A}/{version}"))));
    assert_eq!(causations.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
    let correlation = recorded[1].metadata.correlation_id();
    assert_eq!(correlation, Some("request 5"));
}
