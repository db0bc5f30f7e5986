//! Ends the process with SIGKILL at a point that recorders and processors pass.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    thread,
    time::Duration,
};

use es_postgres::HookFuture;
use es_sqlite::{Fault, FaultHooks};
use rustix::process::{Signal, getpid, kill_process};
use serde::{Deserialize, Serialize};
use signal_hook::{consts::SIGSTOP, low_level::raise};

/// The point of a handler, or a projection, that is called.
pub const HANDLER: &str = "Handler";

/// The point at which a process is killed: the name of a `FaultPoint` of es-sqlite, a `FaultPoint` of
/// es-postgres, or [`HANDLER`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// The point.
    pub point: String,
    /// The number of the passing, from 1.
    pub passing: i64,
    /// Microseconds after it, to interrupt the next steps.
    pub delay: u64,
    /// Pauses the process instead, until its parent resumes it.
    #[serde(default)]
    pub pauses: bool,
}

/// Fault hooks that kill the process at the planned point.
#[derive(Clone, Debug)]
pub struct KillPoint(Arc<State>);

#[derive(Debug)]
struct State {
    plan: Option<Plan>,
    left: AtomicI64,
}

impl KillPoint {
    /// Kills as planned; never without a plan.
    pub fn new(plan: Option<Plan>) -> Self {
        let left = AtomicI64::new(plan.as_ref().map_or(0, |plan| plan.passing));
        Self(Arc::new(State { plan, left }))
    }

    /// Counts one passing of a point, and kills the process at the planned one.
    pub fn pass(&self, point: &str) {
        let Some(plan) = self.0.plan.as_ref().filter(|plan| plan.point == point) else { return };
        if self.0.left.fetch_sub(1, Ordering::SeqCst) != 1 {
            return;
        }
        if plan.pauses {
            // To this thread: another one may take a signal to the process, while this one goes on.
            // The next line runs when the process is resumed.
            let _ = raise(SIGSTOP);
            return;
        }
        if plan.delay == 0 {
            end();
        }
        let delay = Duration::from_micros(plan.delay);
        thread::spawn(move || {
            thread::sleep(delay);
            end();
        });
    }
}

/// Kills the process: no destructor runs, and no answer is sent.
fn end() {
    // It can only fail for a process or a signal that does not exist.
    let _ = kill_process(getpid(), Signal::KILL);
    loop {
        thread::park();
    }
}

impl FaultHooks for KillPoint {
    fn before(&self, step: es_sqlite::FaultPoint) -> Result<(), Fault> {
        self.pass(&name(step));
        Ok(())
    }
}

impl es_postgres::FaultHooks for KillPoint {
    fn reached(&self, point: es_postgres::FaultPoint) -> HookFuture<'_> {
        self.pass(&name(point));
        Box::pin(async {})
    }
}

fn name(point: impl fmt::Debug) -> String {
    format!("{point:?}")
}
