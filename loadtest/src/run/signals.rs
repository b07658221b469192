//! `Signals`: Ctrl-C and SIGTERM, heard from before the first job until after the last.

use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// How often goose's own switch is looked at.
const SWITCH_EVERY: Duration = Duration::from_millis(100);

/// Listens from when it is made. goose takes Ctrl-C over when it starts users, and a second one then ends the process at once.
#[derive(Debug)]
pub struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
}

impl Signals {
    /// Starts to listen.
    #[must_use]
    pub fn listen() -> Self {
        // Without a handler the signal ends the process, as it does before and after.
        let heard = |kind| signal(kind).ok();
        Self { interrupt: heard(SignalKind::interrupt()), terminate: heard(SignalKind::terminate()) }
    }

    /// Returns when one has come; at once if it had come already. Then nothing new is begun in this process.
    pub async fn received(&mut self) {
        let switched = async {
            while !goose::is_killswitch_triggered() {
                tokio::time::sleep(SWITCH_EVERY).await;
            }
        };
        tokio::select! {
            () = switched => {}
            () = next(&mut self.interrupt) => goose::trigger_killswitch("Ctrl-C"),
            () = next(&mut self.terminate) => goose::trigger_killswitch("SIGTERM"),
        }
    }
}

async fn next(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => {
            signal.recv().await;
        }
        None => std::future::pending().await,
    }
}
