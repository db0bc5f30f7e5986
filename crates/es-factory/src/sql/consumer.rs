//! A consumer of any type.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use es_core::{
    ConsumerError, DynTrackingRecorder, HandlerError, NotificationBatch, NotificationConsumer,
    TrackingRecorder,
};

type Processing<'a, T> = Pin<Box<dyn Future<Output = Result<T, ConsumerError>> + Send + 'a>>;

/// A [`NotificationConsumer`] of any type, such as the projector of a backend that is chosen at run time.
pub struct BoxConsumer {
    recorder: Arc<dyn DynTrackingRecorder>,
    consumer: Box<dyn DynConsumer>,
}

impl BoxConsumer {
    /// Boxes a consumer.
    pub fn new<C>(consumer: C) -> Self
    where
        C: NotificationConsumer + 'static,
        C::Recorder: TrackingRecorder + Clone + 'static,
    {
        Self { recorder: Arc::new(consumer.recorder().clone()), consumer: Box::new(consumer) }
    }
}

impl NotificationConsumer for BoxConsumer {
    type Recorder = Arc<dyn DynTrackingRecorder>;

    fn recorder(&self) -> &Self::Recorder {
        &self.recorder
    }

    async fn process(&mut self, batch: NotificationBatch<'_>) -> Result<usize, ConsumerError> {
        self.consumer.process_dyn(batch).await
    }

    async fn park(
        &mut self,
        batch: NotificationBatch<'_>,
        failure: HandlerError,
    ) -> Result<(), ConsumerError> {
        self.consumer.park_dyn(batch, failure).await
    }
}

impl fmt::Debug for BoxConsumer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxConsumer").field("recorder", &self.recorder).finish_non_exhaustive()
    }
}

/// The object-safe version of [`NotificationConsumer`], without its recorder.
trait DynConsumer: Send {
    fn process_dyn<'a>(&'a mut self, batch: NotificationBatch<'a>) -> Processing<'a, usize>;

    fn park_dyn<'a>(&'a mut self, batch: NotificationBatch<'a>, failure: HandlerError) -> Processing<'a, ()>;
}

impl<C: NotificationConsumer> DynConsumer for C {
    fn process_dyn<'a>(&'a mut self, batch: NotificationBatch<'a>) -> Processing<'a, usize> {
        Box::pin(self.process(batch))
    }

    fn park_dyn<'a>(&'a mut self, batch: NotificationBatch<'a>, failure: HandlerError) -> Processing<'a, ()> {
        Box::pin(self.park(batch, failure))
    }
}
