//! Tasks that survive the program's own bugs: what panics is logged and counted, and costs as little as it can.
//!
//! Knows no task in particular. Invariant: what is supervised runs until it returns or nobody polls it any more, whatever
//! panics in it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use crate::metrics::{Panics, Task};

/// How long a task that panicked rests before it begins again: one that always does must not keep a processor busy.
const RESTART_PAUSE: Duration = Duration::from_secs(1);

/// Begins a task, and begins it again whenever it panics. What it works on must be of use after a panic.
pub async fn supervise<F: Future>(task: Task, panics: &Panics, mut begin: impl FnMut() -> F) -> F::Output {
    loop {
        if let Some(done) = attempt(task, panics, begin()).await {
            return done;
        }
        tokio::time::sleep(RESTART_PAUSE).await;
    }
}

/// Runs a task once; nothing comes of it if it panics.
pub async fn attempt<F: Future>(task: Task, panics: &Panics, work: F) -> Option<F::Output> {
    let mut work = pin!(work);
    let guarded = std::future::poll_fn(|context| {
        match catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context))) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(done)) => Poll::Ready(Some(done)),
            Err(_) => Poll::Ready(None),
        }
    });
    let done = guarded.await;
    if done.is_none() {
        panics.count(task);
    }
    done
}

/// The same for work that does not wait.
pub fn attempt_now<T>(task: Task, panics: &Panics, work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work)).inspect_err(|_| panics.count(task)).ok()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_panics_begins_again_after_a_pause_and_is_counted() {
        let panics = Panics::default();
        let (began, begun) = (Cell::new(0), Instant::now());
        supervise(Task::Sweep, &panics, async || {
            began.set(began.get() + 1);
            tokio::task::yield_now().await;
            assert!(began.get() > 3, "a bug");
        })
        .await;
        assert_eq!((began.get(), begun.elapsed()), (4, 3 * RESTART_PAUSE));
        assert_eq!((panics.of(Task::Sweep), panics.of(Task::Reload)), (3, 0));
    }

    #[tokio::test]
    async fn what_is_attempted_gives_what_it_has_unless_it_panics() {
        let panics = Panics::default();
        assert_eq!(attempt(Task::Request, &panics, async { 1 }).await, Some(1));
        assert_eq!(attempt_now(Task::Request, &panics, || 2), Some(2));
        assert_eq!(panics.of(Task::Request), 0);
        assert_eq!(attempt(Task::Request, &panics, async { panic!("a bug") }).await, None::<()>);
        assert_eq!(attempt_now(Task::Request, &panics, || panic!("a bug")), None::<()>);
        assert_eq!(panics.of(Task::Request), 2);
    }
}
