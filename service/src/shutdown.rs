//! Turns SIGTERM and SIGINT into one cancellation token.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Returns a token that is cancelled at the first SIGTERM or SIGINT. A second one ends the process at once (exit 130):
/// whoever presses Ctrl-C twice does not want to wait for the drain.
///
/// # Errors
/// When the signal handlers cannot be installed.
pub fn on_signal() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    #[expect(clippy::disallowed_methods, reason = "lives as long as the process and holds no work")]
    tokio::spawn(async move {
        for count in 1_u32.. {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if count > 1 {
                tracing::warn!(signal = name, "second signal: exiting without a drain");
                std::process::exit(130);
            }
            tracing::info!(signal = name, "signal received: stopping");
            cancelled.cancel();
        }
    });
    Ok(token)
}
