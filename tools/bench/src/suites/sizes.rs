//! Sizes of appends that the suites of all datastores share.

use crate::{
    bench::Bench,
    data::{LARGE_STATE_SIZE, STATE_SIZE},
    plan::Plan,
    workload::Work,
};

/// Commits of so many events each, by so many tasks at the same time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Appends {
    pub(crate) tasks: usize,
    pub(crate) commits: usize,
    pub(crate) events: usize,
    pub(crate) size: usize,
}

impl Appends {
    /// One task, commits of 1, 10 and 1000 events, small and large.
    pub(crate) const ALONE: [Self; 6] = [
        Self { tasks: 1, commits: 300, events: 1, size: STATE_SIZE },
        Self { tasks: 1, commits: 200, events: 10, size: STATE_SIZE },
        Self { tasks: 1, commits: 10, events: 1_000, size: STATE_SIZE },
        Self { tasks: 1, commits: 300, events: 1, size: LARGE_STATE_SIZE },
        Self { tasks: 1, commits: 100, events: 10, size: LARGE_STATE_SIZE },
        Self { tasks: 1, commits: 5, events: 1_000, size: LARGE_STATE_SIZE },
    ];

    /// Several tasks, one event per commit.
    pub(crate) const TOGETHER: [Self; 4] = [
        Self { tasks: 8, commits: 50, events: 1, size: STATE_SIZE },
        Self { tasks: 64, commits: 20, events: 1, size: STATE_SIZE },
        Self { tasks: 256, commits: 5, events: 1, size: STATE_SIZE },
        Self { tasks: 64, commits: 20, events: 1, size: LARGE_STATE_SIZE },
    ];

    pub(crate) fn work(self, bench: &Bench) -> Work {
        let commits = bench.scale.pick(self.commits, 2);
        Work::Append { tasks: self.tasks, commits, events: self.events, size: self.size }
    }

    /// Creates a plan without comparisons.
    pub(crate) fn plan(self, datastore: &str, rounds: usize) -> Plan {
        let Self { tasks, events, .. } = self;
        let size = self.size_name();
        let plural = if tasks == 1 { "" } else { "s" };
        let name = format!("{datastore} insert, {tasks} task{plural}, {events} × {size} per commit");
        let plan = Plan::new(name, rounds);
        if events > 1 {
            return plan;
        }
        plan.at(&format!("{datastore} insert, 1 × {size} per commit"), "tasks", tasks as f64)
    }

    fn size_name(self) -> &'static str {
        if self.size == LARGE_STATE_SIZE { "2 KB" } else { "200 B" }
    }
}
