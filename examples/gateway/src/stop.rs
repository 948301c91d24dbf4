//! How the program stops: what tells it to, and that it ends then.

use boxpool::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Completes at the first SIGTERM or SIGINT. At the second the process ends at once; nothing is lost by that, but boxes
/// that were being suspended are taken up by the next start.
///
/// # Errors
/// When the signals cannot be caught.
pub fn stop_signal() -> Result<impl Future<Output = ()>> {
    let catch = |kind| {
        signal(kind).map_err(|error| {
            Error::new(ErrorKind::Permanent, "start", "signals")
                .with_detail(format!("signals cannot be caught: {error}"))
        })
    };
    let (mut term, mut int) = (catch(SignalKind::terminate())?, catch(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        tracing::info!("told to stop");
        tokio::spawn(async move {
            tokio::select! {
                _ = term.recv() => {}
                _ = int.recv() => {}
            }
            eprintln!("boxpool-gateway: told to stop twice; ending at once");
            std::process::exit(1);
        });
    })
}

/// Runs the program's work, and does not wait for what hangs on a disk when that is done.
///
/// # Errors
/// Those of the work; when no threads can be started.
pub fn block_on<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Error::new(ErrorKind::Permanent, "start", "runtime").with_detail(format!("no threads can be started: {error}"))
    })?;
    let done = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    done
}
