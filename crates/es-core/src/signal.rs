//! Wakes those who wait for something to be recorded, and nobody else.

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

/// Waiting longer than this is waiting for ever: a timer cannot be set to any [`Duration`].
const LONGEST_WAIT: Duration = Duration::from_hours(365 * 24);

/// How a recorder tells that something was recorded.
///
/// Listeners wait for some keys (the topics of events, the names of tracked applications) or for
/// any. Waking costs in proportion to the listeners that have something to read: one atomic load
/// when nobody listens, nothing for those who wait for other keys.
///
/// Cloning gives another handle on the same signal. A wake-up is a hint: the listener reads, and may
/// find nothing. It is never lost: what is woken between two waits ends the second at once.
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
pub struct Signal(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Read without the lock by those who wake.
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
    is_woken: AtomicBool,
    waker: AtomicWaker,
}

/// Waits for a [`Signal`]; made by [`Signal::listen`].
pub struct Listener {
    signal: Signal,
    waiter: Arc<Waiter>,
    keys: Vec<Box<str>>,
}

impl Signal {
    /// A signal without listeners.
    pub fn new() -> Self {
        Self::default()
    }

    /// A signal that calls `on_first_listener` whenever there is a listener and there was none
    /// before: to start looking for what others have recorded, which nobody needs while nobody
    /// listens.
    ///
    /// It is called by the task that listens, and must not block.
    pub fn on_first_listener(on_first_listener: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Arc::new(Shared { on_first_listener: Some(Box::new(on_first_listener)), ..Shared::default() }))
    }

    /// Listens for these keys; for anything when there are none. Listen first, then read, then wait:
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
        // Sequentially consistent, as the load in `wake` is: either the one who wakes sees this
        // listener, or the listener's first read, which comes after this, sees what was recorded.
        let before = self.0.listeners.fetch_add(1, Ordering::SeqCst);
        if before == 0
            && let Some(on_first_listener) = &self.0.on_first_listener
        {
            on_first_listener();
        }
        Listener { signal: self.clone(), waiter, keys }
    }

    /// Wakes those who wait for one of these keys, and those who wait for anything.
    ///
    /// Call it after the commit, and before telling the caller.
    pub fn wake<'k>(&self, keys: impl IntoIterator<Item = &'k str>) {
        if !self.has_listeners() {
            return;
        }
        let mut woken = Woken::default();
        {
            let waiting = self.waiting();
            woken.add(&waiting.for_any);
            if !waiting.by_key.is_empty() {
                let mut previous = None;
                for key in keys {
                    // Events of one topic tend to stand together.
                    if previous != Some(key) {
                        previous = Some(key);
                        woken.add(waiting.by_key.get(key).map_or(&[], Vec::as_slice));
                    }
                }
            }
        }
        woken.wake();
    }

    /// Wakes everybody: something was recorded, and it is not known what.
    pub fn wake_all(&self) {
        if !self.has_listeners() {
            return;
        }
        let mut woken = Woken::default();
        {
            let waiting = self.waiting();
            woken.add(&waiting.for_any);
            waiting.by_key.values().for_each(|waiters| woken.add(waiters));
        }
        woken.wake();
    }

    /// Whether anybody listens. Ask after the commit, when finding out what to wake is not for free.
    pub fn has_listeners(&self) -> bool {
        self.0.listeners.load(Ordering::SeqCst) > 0
    }

    /// Ends the waiting of everybody, for good.
    pub fn close(&self) {
        self.0.is_closed.store(true, Ordering::SeqCst);
        self.wake_all();
    }

    /// Whether the signal is closed.
    pub fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::SeqCst)
    }

    /// Waits for so long, or until the signal is closed. Returns whether it is closed.
    ///
    /// For pauses that must not hold up those who wait for the end.
    ///
    /// # Cancel safety
    /// Dropping the future does no harm.
    pub async fn closed_timeout(&self, at_most: Duration) -> bool {
        let mut listener = self.listen::<&str>([]);
        let mut pause = timer(at_most);
        while let Either::Left((is_open, _)) = select(pin!(listener.notified()), &mut pause).await {
            if !is_open {
                break;
            }
        }
        self.is_closed()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing that can panic leaves the lists half changed.
        self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget(&self, listener: &Listener) {
        self.0.listeners.fetch_sub(1, Ordering::SeqCst);
        let mut waiting = self.waiting();
        let is_other = |waiter: &Arc<Waiter>| !Arc::ptr_eq(waiter, &listener.waiter);
        if listener.keys.is_empty() {
            waiting.for_any.retain(is_other);
        }
        for key in &listener.keys {
            let Some(waiters) = waiting.by_key.get_mut(key) else { continue };
            waiters.retain(is_other);
            if waiters.is_empty() {
                waiting.by_key.remove(key);
            }
        }
    }
}

impl Listener {
    /// Waits until the signal wakes this listener, at once if it did since the last wait.
    ///
    /// Returns whether the signal is still open: nothing will wake a listener of a closed one.
    ///
    /// # Cancel safety
    /// A wake-up that was not returned is kept for the next wait.
    pub async fn notified(&mut self) -> bool {
        poll_fn(|context| self.poll_woken(context)).await
    }

    /// Waits for a wake-up, or for so long. Returns whether the signal is still open.
    ///
    /// # Cancel safety
    /// As [`woken`](Self::woken).
    pub async fn notified_timeout(&mut self, at_most: Duration) -> bool {
        let woken = pin!(self.notified());
        match select(woken, timer(at_most)).await {
            Either::Left((is_open, _)) => is_open,
            Either::Right(_) => true,
        }
    }

    /// As [`woken`](Self::woken), for a future or stream written by hand.
    pub fn poll_woken(&mut self, context: &mut Context<'_>) -> Poll<bool> {
        self.waiter.waker.register(context.waker());
        if self.signal.is_closed() {
            return Poll::Ready(false);
        }
        if self.waiter.is_woken.swap(false, Ordering::SeqCst) { Poll::Ready(true) } else { Poll::Pending }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.signal.forget(self);
    }
}

/// Those to wake when the lock is released: a waker may run code of the program's, which may drop a
/// listener.
#[derive(Default)]
struct Woken(Vec<Waker>);

impl Woken {
    fn add(&mut self, waiters: &[Arc<Waiter>]) {
        for waiter in waiters {
            // One that is woken and has not read yet, because it lags, costs no more than this.
            if !waiter.is_woken.swap(true, Ordering::SeqCst) {
                self.0.extend(waiter.waker.take());
            }
        }
    }

    fn wake(self) {
        self.0.into_iter().for_each(Waker::wake);
    }
}

fn timer(at_most: Duration) -> Delay {
    Delay::new(at_most.min(LONGEST_WAIT))
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signal")
            .field("listeners", &self.0.listeners)
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("keys", &self.keys).finish_non_exhaustive()
    }
}
