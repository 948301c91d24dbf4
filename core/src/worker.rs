//! The pool's background work, as one future that the embedder runs.

use crate::shared::Shared;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use std::fmt;
use std::sync::Arc;
use tokio::sync::mpsc;

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
/// Dropping it is like killing the process: what was under way stays half done, and another node, or this one at its next
/// start, finishes it.
#[must_use = "without the worker nothing moves"]
pub struct Worker {
    shared: Arc<Shared>,
    tasks: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>,
}

impl Worker {
    pub(crate) fn new(shared: Arc<Shared>, tasks: mpsc::UnboundedReceiver<BoxFuture<'static, ()>>) -> Self {
        Self { shared, tasks }
    }

    /// Runs until the pool was drained or its last handle was dropped, and takes the node's record along.
    pub async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut stopped = std::pin::pin!(shared.stop.wait_for(|stop| stop));
        let mut running: FuturesUnordered<BoxFuture<'static, ()>> = FuturesUnordered::new();
        running.push(Box::pin(Arc::clone(&shared).keep_alive()));
        running.push(Box::pin(Arc::clone(&shared).reconcile()));
        running.push(Box::pin(Arc::clone(&shared).maintain_instances()));
        running.push(Box::pin(Arc::clone(&shared).maintain_volumes()));
        running.push(Box::pin(Arc::clone(&shared).keep_golden()));
        running.push(Box::pin(Arc::clone(&shared).probe_store()));
        loop {
            tokio::select! {
                biased;
                _ = &mut stopped => break,
                Some(task) = self.tasks.recv() => running.push(task),
                // The six tasks above never end, so there is always something running.
                _ = running.next() => {}
            }
        }
        drop(running);
        if let Err(error) = shared.unregister().await {
            tracing::warn!(error = %crate::Report(&error), "the node's record was left behind; others will see it stand still");
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("node", &self.shared.node).finish_non_exhaustive()
    }
}
