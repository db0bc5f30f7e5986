//! Permits for background tasks of which at most one runs at a time.

use std::sync::Arc;

use parking_lot::Mutex;

/// The place of a task: free, or taken by the task that runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct TaskSlot(Arc<Mutex<bool>>);

/// The permit of the task that runs. Dropping it, as on the shutdown of the task's runtime, frees the slot.
#[derive(Debug)]
pub(crate) struct TaskPermit {
    slot: TaskSlot,
    is_released: bool,
}

impl TaskSlot {
    /// Takes the slot; none if it is taken.
    pub(crate) fn acquire(&self) -> Option<TaskPermit> {
        let was_taken = std::mem::replace(&mut *self.0.lock(), true);
        (!was_taken).then(|| TaskPermit { slot: self.clone(), is_released: false })
    }

    pub(crate) fn is_taken(&self) -> bool {
        *self.0.lock()
    }
}

impl TaskPermit {
    /// Frees the slot if the task has nothing left to do. Returns whether the permit is released.
    ///
    /// The condition is checked under the lock: work that arrives later finds the slot free.
    pub(crate) fn release_if(&mut self, is_done: impl FnOnce() -> bool) -> bool {
        if !self.is_released {
            let mut is_taken = self.slot.0.lock();
            self.is_released = is_done();
            *is_taken = !self.is_released;
        }
        self.is_released
    }
}

impl Drop for TaskPermit {
    fn drop(&mut self) {
        self.release_if(|| true);
    }
}
