//! The pages of an upstream that a processor reads, alone or together with others.

use std::{
    collections::VecDeque,
    sync::{Arc, Weak},
};

use es_core::{ApplicationRecorder, NotificationPage, PersistenceError, Subscription, Topic};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;

/// The number of pages that a reader keeps, for processors that are slower than the one that has read them.
const KEPT_PAGES: usize = 4;

/// The pages that a processor reads.
pub(crate) enum Pages<'p, R> {
    /// By a subscription of its own.
    Own(Subscription<R>),
    /// Together with other processors.
    Shared(SharedPages<'p, R>),
}

impl<R: ApplicationRecorder> Pages<'_, R> {
    /// Waits for a page that has the notifications after a position, which may also have some before it;
    /// returns `None` when the upstream is closed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub(crate) async fn after(
        &mut self,
        position: i64,
    ) -> Result<Option<Arc<NotificationPage>>, PersistenceError> {
        match self {
            Self::Own(subscription) => {
                if position > subscription.position() {
                    subscription.seek(position);
                }
                Ok(subscription.next_page().await?.map(Arc::new))
            }
            Self::Shared(shared) => shared.after(position).await,
        }
    }
}

/// The readers of processors that share their reads of one upstream, as the segments of a worker do.
///
/// A reader follows the log from a position, and keeps its last pages. A processor takes a page that a reader
/// has kept. At the position of a reader, it has that one read the next page, or waits while another
/// processor does. Elsewhere it begins a reader, and joins one ahead of it when it reaches the pages that are
/// kept there. Processors at the end of the log therefore have one reader, and read each page once.
///
/// No processor waits for a slower one: what is kept is bounded, and a processor that has fallen behind it
/// reads for itself.
#[derive(Clone, Debug)]
pub(crate) struct SharedReads<R>(Arc<Mutex<Vec<Weak<Reader<R>>>>>);

impl<R: ApplicationRecorder> SharedReads<R> {
    pub(crate) fn new() -> Self {
        Self(Arc::default())
    }

    /// Returns the reader that is furthest ahead of those that have a page after a position, or are at it.
    fn reader(
        &self,
        position: i64,
        topics: &[Topic],
        subscribe: impl FnOnce() -> Subscription<R>,
    ) -> Arc<Reader<R>> {
        let mut readers = self.0.lock();
        readers.retain(|reader| reader.strong_count() > 0);
        let suitable = readers.iter().filter_map(Weak::upgrade).filter(|reader| {
            let kept = reader.kept.lock();
            reader.topics == topics && (kept.position == position || kept.after(position).is_some())
        });
        suitable.max_by_key(|reader| reader.kept.lock().position).unwrap_or_else(|| {
            let reader = Arc::new(Reader {
                topics: topics.to_vec(),
                subscription: AsyncMutex::new(subscribe()),
                kept: Mutex::new(Kept { position, pages: VecDeque::new() }),
            });
            readers.push(Arc::downgrade(&reader));
            reader
        })
    }
}

/// The pages of a processor that shares its reads.
pub(crate) struct SharedPages<'p, R> {
    reads: &'p SharedReads<R>,
    topics: &'p [Topic],
    /// Subscribes to the topics after a position.
    subscribe: Box<dyn Fn(i64) -> Subscription<R> + Send + Sync + 'p>,
    /// The current reader, which exists as long as it has processors.
    reader: Option<Arc<Reader<R>>>,
}

impl<'p, R: ApplicationRecorder> SharedPages<'p, R> {
    pub(crate) fn new(
        reads: &'p SharedReads<R>,
        topics: &'p [Topic],
        subscribe: impl Fn(i64) -> Subscription<R> + Send + Sync + 'p,
    ) -> Self {
        Self { reads, topics, subscribe: Box::new(subscribe), reader: None }
    }

    async fn after(&mut self, position: i64) -> Result<Option<Arc<NotificationPage>>, PersistenceError> {
        loop {
            let reader = self.reads.reader(position, self.topics, || (self.subscribe)(position));
            match self.reader.insert(reader).after(position).await? {
                NextPage::Page(page) => return Ok(Some(page)),
                NextPage::Closed => return Ok(None),
                NextPage::Passed => {}
            }
        }
    }
}

/// A subscription that several processors read, with the pages that it has read last.
#[derive(Debug)]
struct Reader<R> {
    topics: Vec<Topic>,
    /// Locked by the processor that reads, while the others wait for the page.
    subscription: AsyncMutex<Subscription<R>>,
    kept: Mutex<Kept>,
}

/// The last pages of a reader, without a gap.
#[derive(Debug)]
struct Kept {
    /// That of the subscription, and of the last page.
    position: i64,
    pages: VecDeque<KeptPage>,
}

#[derive(Debug)]
struct KeptPage {
    /// The position after which it was read.
    after: i64,
    page: Arc<NotificationPage>,
}

enum NextPage {
    Page(Arc<NotificationPage>),
    /// The upstream is closed.
    Closed,
    /// The reader does not have the page any more.
    Passed,
}

impl<R: ApplicationRecorder> Reader<R> {
    async fn after(&self, position: i64) -> Result<NextPage, PersistenceError> {
        if let Some(page) = self.kept.lock().after(position) {
            return Ok(NextPage::Page(page));
        }
        let mut subscription = self.subscription.lock().await;
        {
            // Another processor may have read meanwhile.
            let kept = self.kept.lock();
            if let Some(page) = kept.after(position) {
                return Ok(NextPage::Page(page));
            }
            if kept.position != position {
                return Ok(NextPage::Passed);
            }
        }
        let Some(page) = subscription.next_page().await? else { return Ok(NextPage::Closed) };
        Ok(NextPage::Page(self.kept.lock().push(page)))
    }
}

impl Kept {
    /// Returns the page that has the notifications after a position.
    fn after(&self, position: i64) -> Option<Arc<NotificationPage>> {
        let mut pages = self.pages.iter();
        let found = pages.find(|kept| (kept.after..kept.page.position).contains(&position))?;
        Some(Arc::clone(&found.page))
    }

    fn push(&mut self, page: NotificationPage) -> Arc<NotificationPage> {
        let after = std::mem::replace(&mut self.position, page.position);
        let page = Arc::new(page);
        self.pages.truncate(KEPT_PAGES - 1);
        self.pages.push_front(KeptPage { after, page: Arc::clone(&page) });
        page
    }
}
