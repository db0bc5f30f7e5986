//! Versions are built, switched to, rolled back, paused, reset and dropped.

use es_core::{
    AggregateRecorder, ConsumerError, ErrorKind, EventNotification, Expected, HandlerError,
    NotificationBatch, NotificationConsumer, PersistenceError, TrackingRecorder, uuid::Uuid,
};
use es_factory::{ProjectionContext, Sql, VersionState, VersionedProjection};
use es_process::{Processor, ProcessorError};

use crate::{
    sales::{
        OrderEvent, SHORT, Sales, TOO_LONG, all_after, append, mails, process, projector, read, start,
        states, stays_behind, stop, wait,
    },
    support::{self, on_each_database},
};

#[tokio::test]
async fn a_version_is_built_switched_to_and_rolled_back() {
    on_each_database(async |factory| {
        let projections = factory.projections();
        assert!(projections.all().await.unwrap().is_empty());
        append(factory, 3).await;
        let first = start(factory, 1).await;
        wait(factory, "sales", 3).await;
        assert_eq!(read(factory).await, [(1, 3, 3)]);

        let second = start(factory, 2).await;
        append(factory, 2).await;
        wait(factory, "sales@2", 5).await;
        assert_eq!(read(factory).await, [(1, 5, 5)]);
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5]);
        projections.catch_up_and_switch("sales", 2, TOO_LONG).await.unwrap();
        assert_eq!(states(factory).await, [VersionState::Retired, VersionState::Active]);
        assert_eq!(read(factory).await, [(2, 5, 5)]);
        assert_eq!(projections.active("sales").await.unwrap().consumer_name, "sales@2");

        append(factory, 2).await;
        wait(factory, "sales@2", 7).await;
        assert_eq!(read(factory).await, [(2, 7, 7)]);
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5, 6, 7]);

        projections.rollback("sales").await.unwrap();
        wait(factory, "sales", 7).await;
        append(factory, 1).await;
        wait(factory, "sales", 8).await;
        assert_eq!(read(factory).await, [(1, 8, 8)]);
        stays_behind(factory, "sales@2", 8).await;
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5, 6, 7, 8]);
        assert!(projections.rollback("sales").await.is_err());

        projections.switch("sales", 2, 0).await.unwrap();
        wait(factory, "sales@2", 8).await;
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5, 6, 7, 8]);
        stop(first).await;
        projections.drop("sales", 1).await.unwrap();
        projections.drop("sales", 1).await.unwrap();
        assert_eq!(states(factory).await, [VersionState::Dropped, VersionState::Active]);
        assert!(factory.query::<i64>(Sql::new("SELECT version FROM sales_v1")).await.is_err());
        assert_eq!(read(factory).await, [(2, 8, 8)]);
        stop(second).await;
    })
    .await;
}

#[tokio::test]
async fn a_version_that_is_built_does_not_pass_the_active_one() {
    on_each_database(async |factory| {
        append(factory, 3).await;
        let first = start(factory, 1).await;
        wait(factory, "sales", 3).await;
        stop(first).await;
        append(factory, 3).await;
        let second = start(factory, 2).await;
        wait(factory, "sales@2", 3).await;
        stays_behind(factory, "sales@2", 4).await;
        assert_eq!(mails(factory).await, [1, 2, 3]);
        let first = start(factory, 1).await;
        wait(factory, "sales@2", 6).await;
        assert_eq!(mails(factory).await, [1, 2, 3, 4, 5, 6]);
        stop(first).await;
        stop(second).await;
    })
    .await;
}

#[tokio::test]
async fn a_version_counts_as_caught_up_if_only_other_topics_follow() {
    on_each_database(async |factory| {
        append(factory, 2).await;
        let other = factory.application_recorder().await.unwrap();
        other.insert_events(vec![support::event(1)]).await.unwrap();
        let mut first = projector(factory, 1).await;
        let mut second = projector(factory, 2).await;
        process(&mut first, &all_after(factory, 0).await, 0).await.unwrap();
        append(factory, 1).await;
        let mut of_second = all_after(factory, 0).await;
        of_second.retain(|notification| notification.id != 3);
        assert_eq!(process(&mut second, &of_second, 0).await.unwrap(), 2);
        let projections = factory.projections();
        assert!(projections.switch("sales", 2, 0).await.unwrap_err().is_transient());
        // The next one is not processed, and those before it count as processed.
        let waits = process(&mut second, &of_second[2..], 2).await.unwrap_err();
        assert!(matches!(waits, ConsumerError::Recording(error) if error.is_transient()));
        projections.switch("sales", 2, 0).await.unwrap();
        // The processor still expects its own position.
        assert_eq!(process(&mut second, &of_second[2..], 2).await.unwrap(), 1);
        assert_eq!(mails(factory).await, [1, 2, 4]);
        assert_eq!(read(factory).await, [(2, 3, 4)]);
    })
    .await;
}

#[tokio::test]
async fn a_commit_of_a_version_that_was_replaced_meanwhile_is_refused() {
    on_each_database(async |factory| {
        append(factory, 1).await;
        let mut first = projector(factory, 1).await;
        let mut second = projector(factory, 2).await;
        let notifications = all_after(factory, 0).await;
        // Both have read the state of the versions.
        process(&mut first, &notifications, 0).await.unwrap();
        process(&mut second, &notifications, 0).await.unwrap();
        factory.projections().switch("sales", 2, 0).await.unwrap();
        append(factory, 1).await;
        let notifications = all_after(factory, 1).await;
        let refused = process(&mut first, &notifications, 1).await.unwrap_err();
        let ConsumerError::Recording(error) = refused else { panic!("{refused}") };
        assert!(error.is_transient() && error.to_string().contains("was replaced"), "{error}");
        process(&mut second, &notifications, 1).await.unwrap();
        assert_eq!(mails(factory).await, [1, 2]);
        let rows: Vec<i64> = factory.query(Sql::new("SELECT order_number FROM sales_v1")).await.unwrap();
        assert_eq!(rows, [1]);
        let positions = factory.tracking_recorder().await.unwrap();
        assert_eq!(positions.max_tracking_id("sales").await.unwrap(), Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_paused_version_continues_without_a_restart() {
    on_each_database(async |factory| {
        let projections = factory.projections();
        append(factory, 1).await;
        let running = start(factory, 1).await;
        wait(factory, "sales", 1).await;
        projections.pause("sales", 1).await.unwrap();
        projections.pause("sales", 1).await.unwrap();
        assert!(projections.active("sales").await.unwrap().is_paused);
        append(factory, 1).await;
        stays_behind(factory, "sales", 2).await;
        projections.resume("sales", 1).await.unwrap();
        wait(factory, "sales", 2).await;
        assert_eq!(mails(factory).await, [1, 2]);
        stop(running).await;
    })
    .await;
}

#[tokio::test]
async fn a_reset_repeats_everything_but_the_side_effects() {
    on_each_database(async |factory| {
        append(factory, 3).await;
        let mut running = start(factory, 1).await;
        wait(factory, "sales", 3).await;
        factory.projections().reset("sales", 1).await.unwrap();
        assert!(read(factory).await.is_empty());
        append(factory, 1).await;
        let ProcessorError::Persistence { source, .. } = running.join().await.unwrap_err() else { panic!() };
        assert!(source.is_rolled_back(), "{source}");
        let running = start(factory, 1).await;
        wait(factory, "sales", 4).await;
        assert_eq!(read(factory).await, [(1, 4, 4)]);
        assert_eq!(mails(factory).await, [1, 2, 3, 4]);
        stop(running).await;
    })
    .await;
}

#[tokio::test]
async fn a_failure_is_parked_in_the_tables_of_the_version() {
    on_each_database(async |factory| {
        let store = factory.event_store().await.unwrap();
        store.append(Uuid::from_u128(2), Expected::New, [OrderEvent::Cancelled]).await.unwrap();
        let running = start(factory, 1).await;
        wait(factory, "sales", 1).await;
        let rows: Vec<(i64, i64)> =
            factory.query(Sql::new("SELECT order_number, version FROM sales")).await.unwrap();
        assert_eq!(rows, [(-1, -1)]);
        stop(running).await;
    })
    .await;
}

#[tokio::test]
async fn a_row_that_the_projection_itself_requires_is_its_own_failure() {
    struct Strict;

    impl VersionedProjection for Strict {
        type Event = OrderEvent;
        const TABLES: &[&str] = &[];

        fn set_up(&self, _: &ProjectionContext) -> Vec<Sql> {
            Vec::new()
        }

        fn project(
            &self,
            _: EventNotification<OrderEvent>,
            _: &ProjectionContext,
        ) -> Result<Vec<Sql>, HandlerError> {
            Ok(vec![Sql::new("SELECT 1 WHERE 1 = 2").require_row()])
        }
    }

    on_each_database(async |factory| {
        append(factory, 1).await;
        let projector = factory.versioned_projector("strict", 1, Strict).await.unwrap();
        let upstream = factory.application_recorder().await.unwrap();
        let failed = Processor::with_consumer("strict", upstream, projector).run().await.unwrap_err();
        let ProcessorError::Handler { source, .. } = &failed else { panic!("{failed}") };
        assert!(source.to_string().contains("SELECT 1 WHERE 1 = 2"), "{source}");
    })
    .await;
}

#[tokio::test]
async fn changes_that_make_no_sense_are_refused() {
    async fn refused(change: impl Future<Output = Result<(), PersistenceError>>, reason: &str) {
        let error = change.await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }

    on_each_database(async |factory| {
        let projections = factory.projections();
        append(factory, 1).await;
        let mut first = projector(factory, 1).await;
        process(&mut first, &all_after(factory, 0).await, 0).await.unwrap();
        let mut second = projector(factory, 2).await;
        refused(projections.switch("stock", 2, 0), "no projection \"stock\"").await;
        refused(projections.switch("sales", 3, 0), "no version 3").await;
        refused(projections.switch("sales", 2, 0), "1 notification ids behind").await;
        refused(projections.catch_up_and_switch("sales", 2, SHORT), "did not catch up").await;
        assert!(!projections.active("sales").await.unwrap().is_paused);
        refused(projections.rollback("sales"), "replaced no other").await;
        refused(projections.drop("sales", 1), "is active, and version 2 exists").await;
        projections.switch("sales", 1, 0).await.unwrap();

        projections.switch("sales", 2, 1).await.unwrap();
        projections.drop("sales", 1).await.unwrap();
        refused(projections.rollback("sales"), "is dropped").await;
        refused(projections.switch("sales", 1, 0), "is dropped").await;
        refused(projections.reset("sales", 1), "is dropped").await;
        refused(projections.pause("sales", 1), "is dropped").await;
        let again = factory.versioned_projector("sales", 1, Sales).await.map(drop);
        assert!(again.unwrap_err().to_string().contains("is dropped"));

        let notifications = all_after(factory, 0).await;
        let batch = NotificationBatch {
            application_name: "sales",
            notifications: &notifications,
            position: 1,
            expected_position: Some(0),
        };
        let error = second.process(batch).await.unwrap_err();
        assert!(matches!(error, ConsumerError::Recording(error) if error.kind() == ErrorKind::Programming));

        // The last one can be dropped; a later one does not repeat its side effects.
        process(&mut second, &notifications, 0).await.unwrap();
        projections.drop("sales", 2).await.unwrap();
        assert!(factory.query::<i64>(Sql::new("SELECT version FROM sales")).await.is_err());
        assert!(projections.active("sales").await.is_err());
        let error = process(&mut second, &notifications, 0).await.unwrap_err();
        assert!(matches!(error, ConsumerError::Recording(error) if error.kind() == ErrorKind::Programming));
        let mut third = projector(factory, 3).await;
        process(&mut third, &notifications, 0).await.unwrap();
        assert_eq!(read(factory).await, [(3, 1, 1)]);
        assert_eq!(mails(factory).await, [1]);
    })
    .await;
}

#[tokio::test]
async fn a_version_that_was_replaced_is_rebuilt_beside_the_active_one() {
    on_each_database(async |factory| {
        let projections = factory.projections();
        append(factory, 2).await;
        let mut first = projector(factory, 1).await;
        let mut second = projector(factory, 2).await;
        let notifications = all_after(factory, 0).await;
        process(&mut first, &notifications, 0).await.unwrap();
        process(&mut second, &notifications, 0).await.unwrap();
        projections.switch("sales", 2, 0).await.unwrap();

        let active = projections.rebuild("sales", 2).await.unwrap_err();
        assert!(active.to_string().contains("version 2 of projection \"sales\" is active"), "{active}");
        assert_eq!(read(factory).await, [(2, 2, 2)]);

        for rebuild in [true, false] {
            match rebuild {
                true => projections.rebuild("sales", 1).await.unwrap(),
                false => projections.reset("sales", 1).await.unwrap(),
            }
            assert_eq!(states(factory).await, [VersionState::Building, VersionState::Active]);
            // Readers would see an empty version.
            let back = projections.rollback("sales").await.unwrap_err();
            assert!(back.to_string().contains("is building"), "{back}");
            assert!(projections.switch("sales", 1, 0).await.unwrap_err().is_transient());
            assert_eq!(read(factory).await, [(2, 2, 2)]);

            process(&mut first, &notifications, 0).await.unwrap();
            projections.switch("sales", 1, 0).await.unwrap();
            assert_eq!(read(factory).await, [(1, 2, 2)]);
            assert_eq!(mails(factory).await, [1, 2]);
            projections.switch("sales", 2, 0).await.unwrap();
        }
    })
    .await;
}

#[tokio::test]
async fn a_paused_version_is_not_waited_for() {
    on_each_database(async |factory| {
        let projections = factory.projections();
        append(factory, 1).await;
        let mut first = projector(factory, 1).await;
        let notifications = all_after(factory, 0).await;
        process(&mut first, &notifications, 0).await.unwrap();
        let mut second = projector(factory, 2).await;
        projections.pause("sales", 2).await.unwrap();
        let paused = projections.catch_up_and_switch("sales", 2, TOO_LONG).await.unwrap_err();
        assert!(paused.to_string().contains("version 2 of projection \"sales\" is paused"), "{paused}");
        assert!(!projections.active("sales").await.unwrap().is_paused);
        projections.resume("sales", 2).await.unwrap();
        process(&mut second, &notifications, 0).await.unwrap();
        // One that has caught up need not run.
        projections.pause("sales", 2).await.unwrap();
        projections.catch_up_and_switch("sales", 2, TOO_LONG).await.unwrap();
        assert_eq!(read(factory).await, [(2, 1, 1)]);
        assert!(!projections.active("sales").await.unwrap().is_paused);
    })
    .await;
}

#[tokio::test]
async fn tools_that_switch_at_the_same_time_make_one_version_active() {
    on_each_database(async |factory| {
        let projections = factory.projections();
        append(factory, 1).await;
        let notifications = all_after(factory, 0).await;
        for version in [1, 2, 3] {
            process(&mut projector(factory, version).await, &notifications, 0).await.unwrap();
        }
        for _ in 0..3 {
            let (first, second) = tokio::join!(
                projections.catch_up_and_switch("sales", 2, TOO_LONG),
                projections.switch("sales", 3, 0)
            );
            first.unwrap();
            second.unwrap();
            let active = projections.active("sales").await.unwrap();
            assert_eq!(read(factory).await, [(active.version.into(), 1, 1)]);
            let (back, again) = tokio::join!(projections.rollback("sales"), projections.rollback("sales"));
            back.unwrap();
            again.unwrap();
            projections.switch("sales", 1, 0).await.unwrap();
        }
        assert_eq!(mails(factory).await, [1]);
    })
    .await;
}

#[tokio::test]
async fn the_last_version_is_not_dropped_while_another_is_registered() {
    on_each_database(async |factory| {
        let projections = factory.projections();
        for version in (1..9).step_by(2) {
            projector(factory, version).await;
            let (dropped, _) = tokio::join!(
                projections.drop("sales", version),
                factory.versioned_projector("sales", version + 1, Sales)
            );
            // One that was registered first has prevented the drop.
            if dropped.is_err() {
                projections.switch("sales", version + 1, 0).await.unwrap();
                projections.drop("sales", version).await.unwrap();
            }
            let active = projections.active("sales").await.unwrap();
            assert_eq!(active.version, version + 1);
            projections.drop("sales", active.version).await.unwrap();
        }
    })
    .await;
}
