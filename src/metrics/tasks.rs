//! What the program's own bugs cost: panics, by the task that they ended.

use prometheus::{IntCounterVec, Opts};
use tracing::error;

/// What a panic ends, as the value of the label `task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Looking at what is due; it begins again.
    Sweep,
    /// A look at the config; it is looked at again.
    Reload,
    /// Accepting the connections of an address; it goes on.
    Listener,
    /// One connection.
    Connection,
    /// One request, or one scrape.
    Request,
    /// Dealing with one instance, or observing it.
    Instance,
}

impl Task {
    /// All of them.
    pub const ALL: [Task; 6] =
        [Task::Sweep, Task::Reload, Task::Listener, Task::Connection, Task::Request, Task::Instance];

    /// The value of the label `task`.
    pub fn as_str(self) -> &'static str {
        match self {
            Task::Sweep => "sweep",
            Task::Reload => "reload",
            Task::Listener => "listener",
            Task::Connection => "connection",
            Task::Request => "request",
            Task::Instance => "instance",
        }
    }

    /// What becomes of it.
    fn consequence(self) -> &'static str {
        match self {
            Task::Sweep => "it begins again",
            Task::Reload => "the config before stays in force, and is compared with its files again",
            Task::Listener => "it goes on accepting connections",
            Task::Connection => "the connection is closed",
            Task::Request => "it was answered with an internal error",
            Task::Instance => "it was given up",
        }
    }
}

/// Counts panics.
#[derive(Debug, Clone)]
pub struct Panics(IntCounterVec);

impl Panics {
    /// Counts in `counters`, which have the label `task`.
    pub(super) fn new(counters: IntCounterVec) -> Self {
        for task in Task::ALL {
            counters.with_label_values(&[task.as_str()]).inc_by(0);
        }
        Panics(counters)
    }

    /// Counts one. What it said, and where, has been written to standard error.
    pub fn count(&self, task: Task) {
        self.count_several(task, 1);
    }

    /// How many have been counted.
    pub fn of(&self, task: Task) -> u64 {
        self.0.with_label_values(&[task.as_str()]).get()
    }

    /// Counts several at once, or none.
    pub(super) fn count_several(&self, task: Task, count: u64) {
        if count > 0 {
            self.0.with_label_values(&[task.as_str()]).inc_by(count);
            error!(task = task.as_str(), count, "a bug, please report it: {}", task.consequence());
        }
    }
}

impl Default for Panics {
    /// Counts where nobody sees it.
    fn default() -> Self {
        Panics::new(IntCounterVec::new(Opts::new("unseen", "Unseen."), &["task"]).expect("a valid name"))
    }
}
