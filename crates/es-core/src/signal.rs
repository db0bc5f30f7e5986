//! The signal of a recorder: notifies the tasks that wait for a commit.

use std::{
    collections::HashMap,
    fmt,
    future::poll_fn,
    pin::pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_timer::Delay;
use futures_util::{
    future::{Either, select},
    task::AtomicWaker,
};

/// The longest wait of a timer, which does not accept every [`Duration`].
const LONGEST_WAIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Notifies listeners after something was recorded.
///
/// Listeners wait for some keys (the topics of events, the names of tracked applications) or for any. The
/// cost of a notification is proportional to the number of listeners of its keys: one atomic load without
/// listeners, nothing for listeners of other keys.
///
/// Cloning returns another handle on the same signal. Such handles, and their [children](Self::child), are
/// equal, and no others. A notification is a hint: the listener reads, and may find nothing. It is never
/// lost: a notification between two waits ends the second one at once.
///
/// ```
/// use es_core::Signal;
///
/// # futures_util::FutureExt::now_or_never(async {
/// let commits = Signal::new();
/// let mut listener = commits.listen(["bank:Account.Opened"]);
/// commits.wake(["bank:Account.Opened"]);
/// assert!(listener.notified().await);
/// # }).unwrap();
/// ```
#[derive(Clone, Default)]
pub struct Signal {
    shared: Arc<Shared>,
    /// True if the child is closed; the parent and its clones have none.
    is_child_closed: Option<Arc<AtomicBool>>,
}

#[derive(Default)]
struct Shared {
    /// The number of listeners; read without the lock.
    listeners: AtomicUsize,
    waiting: Mutex<Waiting>,
    is_closed: AtomicBool,
    on_first_listener: Option<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Waiting {
    for_any: Vec<Arc<Waiter>>,
    by_key: HashMap<Box<str>, Vec<Arc<Waiter>>>,
}

#[derive(Default)]
struct Waiter {
    is_notified: AtomicBool,
    waker: AtomicWaker,
}

/// Waits for a [`Signal`]; made by [`Signal::listen`].
pub struct Listener {
    signal: Signal,
    waiter: Arc<Waiter>,
    keys: Vec<Box<str>>,
}

impl PartialEq for Signal {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl Eq for Signal {}

impl Signal {
    /// A signal without listeners.
    pub fn new() -> Self {
        Self::default()
    }

    /// A signal that calls `on_first_listener` whenever the number of listeners rises from 0 to 1, for
    /// example to start polling for commits of other processes.
    ///
    /// It is called by the task that listens, and must not block.
    pub fn on_first_listener(on_first_listener: impl Fn() + Send + Sync + 'static) -> Self {
        let on_first_listener: Box<dyn Fn() + Send + Sync> = Box::new(on_first_listener);
        let shared = Shared { on_first_listener: Some(on_first_listener), ..Shared::default() };
        Self { shared: Arc::new(shared), is_child_closed: None }
    }

    /// Returns a signal that fires with this one, and can be closed by itself: that of a recorder whose
    /// datastore has other recorders.
    ///
    /// ```
    /// use es_core::Signal;
    ///
    /// let commits = Signal::new();
    /// let (one, other) = (commits.child(), commits.child());
    /// one.close();
    /// assert!(one.is_closed() && !other.is_closed() && !commits.is_closed());
    /// commits.close();
    /// assert!(other.is_closed());
    /// ```
    #[must_use]
    pub fn child(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), is_child_closed: Some(Arc::default()) }
    }

    /// Listens for these keys, or for all keys if the list is empty. Listen first, then read, then wait:
    /// nothing is missed in between.
    pub fn listen<K: AsRef<str>>(&self, keys: impl IntoIterator<Item = K>) -> Listener {
        let keys: Vec<Box<str>> = keys.into_iter().map(|key| key.as_ref().into()).collect();
        let waiter = Arc::new(Waiter::default());
        {
            let mut waiting = self.waiting();
            if keys.is_empty() {
                waiting.for_any.push(Arc::clone(&waiter));
            }
            for key in &keys {
                waiting.by_key.entry(key.clone()).or_default().push(Arc::clone(&waiter));
            }
        }
        // Sequentially consistent, as the load in `wake` is: either `wake` sees this listener, or the
        // listener's first read, which comes after this, sees the commit.
        let before = self.shared.listeners.fetch_add(1, Ordering::SeqCst);
        if before == 0
            && let Some(on_first_listener) = &self.shared.on_first_listener
        {
            on_first_listener();
        }
        Listener { signal: self.clone(), waiter, keys }
    }

    /// Notifies the listeners of these keys, and the listeners of all keys.
    ///
    /// Call it after the commit, and before the result is returned.
    pub fn wake<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        self.wake_with(|waiting, wakers| {
            if waiting.by_key.is_empty() {
                return;
            }
            let mut previous = None;
            for key in keys {
                // Events of one topic are often adjacent.
                if previous != Some(key) {
                    previous = Some(key);
                    notify(waiting.by_key.get(key).map_or(&[], Vec::as_slice), wakers);
                }
            }
        });
    }

    /// Notifies all listeners.
    pub fn wake_all(&self) {
        self.wake_with(|waiting, wakers| waiting.by_key.values().for_each(|waiters| notify(waiters, wakers)));
    }

    /// Returns whether there are listeners. Call it after the commit, if determining the keys costs
    /// something.
    pub fn has_listeners(&self) -> bool {
        self.shared.listeners.load(Ordering::SeqCst) > 0
    }

    /// Closes the signal and its children: ends all waits, also later ones. A child closes only itself.
    pub fn close(&self) {
        self.is_child_closed.as_deref().unwrap_or(&self.shared.is_closed).store(true, Ordering::SeqCst);
        self.wake_all();
    }

    /// Returns whether the signal is closed.
    pub fn is_closed(&self) -> bool {
        let is_child_closed =
            self.is_child_closed.as_ref().is_some_and(|closed| closed.load(Ordering::SeqCst));
        is_child_closed || self.shared.is_closed.load(Ordering::SeqCst)
    }

    /// Waits until the signal is closed, at most for `timeout`. Returns whether it is closed.
    ///
    /// For pauses that end when the recorder is closed.
    ///
    /// # Cancel safety
    /// Cancel safe.
    pub async fn closed_timeout(&self, timeout: Duration) -> bool {
        let mut listener = self.listen::<&str>([]);
        let mut pause = timer(timeout);
        while let Either::Left((true, _)) = select(pin!(listener.notified()), &mut pause).await {}
        self.is_closed()
    }

    /// Notifies the listeners of all keys, and those that `notify_others` notifies. Their wakers are called
    /// after the lock is released: a waker may run code that drops a listener.
    fn wake_with(&self, notify_others: impl FnOnce(&Waiting, &mut Vec<Waker>)) {
        if !self.has_listeners() {
            return;
        }
        let mut wakers = Vec::new();
        {
            let waiting = self.waiting();
            notify(&waiting.for_any, &mut wakers);
            notify_others(&waiting, &mut wakers);
        }
        wakers.into_iter().for_each(Waker::wake);
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // No code that can panic leaves the lists inconsistent.
        self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// Waits for a notification; returns at once if there was one since the last wait.
    ///
    /// Returns false if the signal is closed.
    ///
    /// # Cancel safety
    /// Cancel safe: a notification that was not returned is kept for the next wait.
    pub async fn notified(&mut self) -> bool {
        poll_fn(|context| self.poll_notified(context)).await
    }

    /// Waits for a notification, at most for `timeout`. Returns false if the signal is closed.
    ///
    /// # Cancel safety
    /// As [`notified`](Self::notified).
    pub async fn notified_timeout(&mut self, timeout: Duration) -> bool {
        !matches!(select(pin!(self.notified()), timer(timeout)).await, Either::Left((false, _)))
    }

    /// As [`notified`](Self::notified), for a hand-written future or stream.
    pub fn poll_notified(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        self.waiter.waker.register(context.waker());
        if self.signal.is_closed() {
            return Poll::Ready(false);
        }
        if self.waiter.is_notified.swap(false, Ordering::SeqCst) { Poll::Ready(true) } else { Poll::Pending }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.signal.shared.listeners.fetch_sub(1, Ordering::SeqCst);
        let mut waiting = self.signal.waiting();
        let is_other = |waiter: &Arc<Waiter>| !Arc::ptr_eq(waiter, &self.waiter);
        if self.keys.is_empty() {
            waiting.for_any.retain(is_other);
        }
        for key in &self.keys {
            let Some(waiters) = waiting.by_key.get_mut(key) else { continue };
            waiters.retain(is_other);
            if waiters.is_empty() {
                waiting.by_key.remove(key);
            }
        }
    }
}

/// Notifies these listeners, and adds their wakers.
fn notify(waiters: &[Arc<Waiter>], wakers: &mut Vec<Waker>) {
    for waiter in waiters {
        // A listener that is notified already and has not read yet costs only this.
        if !waiter.is_notified.swap(true, Ordering::SeqCst) {
            wakers.extend(waiter.waker.take());
        }
    }
}

fn timer(timeout: Duration) -> Delay {
    Delay::new(timeout.min(LONGEST_WAIT))
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal")
            .field("listeners", &self.shared.listeners)
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("keys", &self.keys).finish_non_exhaustive()
    }
}
