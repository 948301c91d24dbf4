//! The pool's background work, as one future that the embedder runs.

use crate::shared::Shared;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::fmt;
use std::sync::Arc;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Does everything that no caller waits for: heartbeats, the maintainer's work, recovery, and each box's own steps.
///
/// Without it no connect makes progress. Run it in a task of its own, on any runtime flavour:
///
/// ```no_run
/// # async fn example(worker: boxpool::Worker) {
/// tokio::spawn(worker.run());
/// # }
/// ```
///
/// On a runtime of several threads each box that is up, and each piece of background work, is a task of its own, so that they use all
/// cores and none waits for another one's arithmetic. On a runtime of one thread all of it is part of this one future, in an order that
/// follows from the calls alone: that is what makes a simulation repeatable.
///
/// Dropping it is like killing the process: what was under way stays half done, and another node, or this one at its next
/// start, finishes it. On several threads a task that is in the middle of a step
/// when it is dropped takes that step to its end, up to where it would wait next.
///
/// # Panics
///
/// When a provider, a store or a policy panics in a call from here.
#[must_use = "without the worker nothing moves"]
pub struct Worker {
    shared: Arc<Shared>,
    tasks: mpsc::UnboundedReceiver<Task>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, tasks: mpsc::UnboundedReceiver<Task>) -> Self {
        Self { shared, tasks }
    }

    /// Runs until the pool was drained or its last handle was dropped, and takes the node's record along.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut stopped = std::pin::pin!(shared.stop.wait_for(|stop| stop));
        let mut running = Running::new();
        running.start(Box::pin(Arc::clone(&shared).keep_alive()));
        running.start(Box::pin(Arc::clone(&shared).reconcile()));
        running.start(Box::pin(Arc::clone(&shared).maintain_instances()));
        running.start(Box::pin(Arc::clone(&shared).maintain_volumes()));
        running.start(Box::pin(Arc::clone(&shared).keep_golden()));
        running.start(Box::pin(Arc::clone(&shared).probe_store()));
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                Some(task) = self.tasks.recv() => running.start(task),
                // The six tasks above never end, so there is always something running.
                () = running.one_ended() => {}
            }
        }
        running.end().await;
        if let Err(error) = shared.unregister().await {
            tracing::warn!(error = %crate::Report(&error), "the node's record was left behind; others will see it stand still");
        }
    }
}

type Task = BoxFuture<'static, ()>;

/// What the worker has begun and not ended. Dropping it ends it.
enum Running {
    Here(FuturesUnordered<Task>),
    OnAllThreads(JoinSet<()>),
}

impl Running {
    fn new() -> Self {
        match Handle::current().runtime_flavor() {
            RuntimeFlavor::CurrentThread => Self::Here(FuturesUnordered::new()),
            _ => Self::OnAllThreads(JoinSet::new()),
        }
    }

    fn start(&mut self, task: Task) {
        match self {
            Self::Here(tasks) => tasks.push(task),
            Self::OnAllThreads(tasks) => drop(tasks.spawn(task)),
        }
    }

    /// Waits until one has ended, if there is one. A panic goes on here.
    async fn one_ended(&mut self) {
        match self {
            Self::Here(tasks) => drop(tasks.next().await),
            Self::OnAllThreads(tasks) => {
                let ended = tasks.join_next().await;
                if let Some(Err(error)) = ended
                    && let Ok(panic) = error.try_into_panic()
                {
                    std::panic::resume_unwind(panic);
                }
            }
        }
    }

    /// Ends all, and waits until none of them is in the middle of a step.
    async fn end(self) {
        if let Self::OnAllThreads(mut tasks) = self {
            tasks.shutdown().await;
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("node", &self.shared.node).finish_non_exhaustive()
    }
}
