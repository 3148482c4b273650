//! SIGTERM and SIGINT, once, for a clean end; a second one ends the process at once.

use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT. The second ends the process with exit code 130.
///
/// Must be called inside a tokio runtime.
#[must_use]
pub fn on_signal() -> CancellationToken {
    let token = CancellationToken::new();
    let cancel = token.clone();
    tokio::spawn(async move {
        if !next().await {
            return;
        }
        tracing::info!("shutting down; a second signal ends at once");
        cancel.cancel();
        if next().await {
            std::process::exit(130);
        }
    });
    token
}

/// Waits for one signal; false when signals cannot be watched.
async fn next() -> bool {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        tracing::error!("signals cannot be watched; end the process with kill -9");
        return false;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    true
}
