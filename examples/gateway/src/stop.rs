//! What tells the program to stop.

use boxpool::{Error, ErrorKind, Result};
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
