//! The fixture of a backend: a new datastore for each test.

use std::{future::Future, sync::Arc, time::Duration};

use es_core::{
    AggregateRecorder, ApplicationRecorder, DynAggregateRecorder, DynApplicationRecorder, DynProcessRecorder,
    DynTrackingRecorder, ProcessRecorder, Recorder, TrackingRecorder,
};

/// An empty datastore for one test, and recorders on it.
///
/// Dropping the fixture removes the datastore. If that needs an async call, it belongs in
/// [`clean_up`](Self::clean_up).
pub trait Fixture: Send + Sync + 'static {
    /// The recorder under test.
    type Recorder: Recorder;

    /// Opens a recorder on the datastore. Each call returns a new one, as in another process.
    fn open(&self) -> impl Future<Output = Self::Recorder> + Send;

    /// Opens two recorders that share an open datastore, such as its connections. Override it if those of
    /// [`open`](Self::open) do not.
    fn open_two(&self) -> impl Future<Output = [Self::Recorder; 2]> + Send {
        async { [self.open().await, self.open().await] }
    }

    /// Returns true if a recorder detects the commits of other recorders of the datastore. Otherwise the
    /// rules about following other recorders are skipped.
    fn follows_others(&self) -> bool {
        true
    }

    /// Returns the timeout of a rule, after which it is broken. Rules take milliseconds to seconds.
    fn patience(&self) -> Duration {
        Duration::from_secs(120)
    }

    /// Removes the datastore. It is called after each test, passed or failed.
    fn clean_up(self) -> impl Future<Output = ()> + Send
    where
        Self: Sized,
    {
        async move { drop(self) }
    }
}

macro_rules! boxed {
    ($(#[$doc:meta])* $Boxed:ident, $Tier:ident, $DynTier:ident) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $Boxed<F>(pub F);

        impl<F: Fixture<Recorder: $Tier>> Fixture for $Boxed<F> {
            type Recorder = Arc<dyn $DynTier>;

            async fn open(&self) -> Self::Recorder {
                Arc::new(self.0.open().await)
            }

            async fn open_two(&self) -> [Self::Recorder; 2] {
                self.0.open_two().await.map(|recorder| Arc::new(recorder) as _)
            }

            fn follows_others(&self) -> bool {
                self.0.follows_others()
            }

            fn patience(&self) -> Duration {
                self.0.patience()
            }

            async fn clean_up(self) {
                self.0.clean_up().await;
            }
        }
    };
}

boxed! {
    /// A fixture whose aggregate recorders are boxed.
    BoxedAggregate, AggregateRecorder, DynAggregateRecorder
}
boxed! {
    /// A fixture whose application recorders are boxed.
    BoxedApplication, ApplicationRecorder, DynApplicationRecorder
}
boxed! {
    /// A fixture whose tracking recorders are boxed.
    BoxedTracking, TrackingRecorder, DynTrackingRecorder
}
boxed! {
    /// A fixture whose process recorders are boxed.
    BoxedProcess, ProcessRecorder, DynProcessRecorder
}
