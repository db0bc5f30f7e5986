//! Calls on recorders that the environment selects can be made in spawned tasks, as in handlers of HTTP
//! requests: their futures are `Send`. The compiler once could not see that of a repository's
//! ("implementation of `Send` is not general enough").

use std::{convert::Infallible, sync::Arc};

use es_persistence::{DynProcessRecorder, aggregate::execute_together, prelude::*};

type Store = EventStore<Arc<dyn DynProcessRecorder>, JsonTranscoder>;

#[derive(Clone, Event)]
#[event(topic = "bank:Credited")]
struct Credited {
    cents: i64,
}

#[derive(Default)]
struct Account {
    balance: i64,
}

impl Aggregate for Account {
    type Event = Credited;

    fn apply(&mut self, event: &Credited) {
        self.balance += event.cents;
    }
}

fn credit(_: &Account) -> Result<[Credited; 1], Infallible> {
    Ok([Credited { cents: 5 }])
}

async fn use_store(store: Store) -> Result<(), PersistenceError> {
    let id = Uuid::now_v7();
    let ids = store.append(id, Expected::New, [Credited { cents: 1 }]).await?;
    store.put(&[DomainEvent::new(id, 2, Credited { cents: 1 })]).await?;
    store.batch().with(&[DomainEvent::new(id, 3, Credited { cents: 1 })]).await?.commit().await?;
    let tracking = Tracking::new("upstream", 1)?;
    store.batch().commit_with_tracking(tracking).await?;
    assert_eq!(store.get::<Credited>(id, EventRange::all()).await?.len(), 3);
    let mut events = store.subscribe::<Credited>();
    assert_eq!(events.next().await?.map(|notification| notification.id), ids.first().copied());
    let lag = store.recorder().consumer_lag("upstream", store.recorder()).await?;
    assert_eq!(lag.lag(), 2);
    Ok(())
}

async fn use_repository(store: Store) -> Result<i64, CommandError<Infallible>> {
    let accounts = Repository::<Account, _, _>::new(store);
    let (alice, bob) = (Uuid::now_v7(), Uuid::now_v7());
    accounts.execute(alice, Metadata::new(), credit).await?;
    let both = (accounts.aggregate(alice), accounts.aggregate(bob));
    let credit_both =
        |(_, _): (&Account, &Account)| Ok((vec![Credited { cents: 2 }], vec![Credited { cents: 3 }]));
    execute_together(both, Metadata::new(), credit_both).await?;
    let events = accounts.decide(alice, credit).await?;
    assert_eq!(events[0].originator_version, 3);
    Ok(accounts.load(alice).await?.state.balance)
}

#[tokio::test]
async fn stores_and_repositories_are_used_in_spawned_tasks() {
    for url in ["sqlite::memory:", ""] {
        let factory =
            InfrastructureFactory::builder("bank").environment([("DATABASE_URL", url)]).build().unwrap();
        let store = EventStore::new(factory.process_recorder().await.unwrap(), factory.mapper().unwrap());
        tokio::spawn(use_store(store.clone())).await.unwrap().unwrap();
        assert_eq!(tokio::spawn(use_repository(store)).await.unwrap().unwrap(), 7);
    }
}
