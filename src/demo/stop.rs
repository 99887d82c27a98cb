//! The wish to end: Ctrl-C, SIGTERM, or a terminal that went away.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::error::DemoError;

/// Hears the signals. The first one asks to stop, the second one not to wait for a clean stop.
pub(super) struct Stop {
    asked: CancellationToken,
    hurry: CancellationToken,
    _listener: AbortOnDropHandle<()>,
}

impl Stop {
    /// Takes over the three signals.
    pub(super) fn listen() -> Result<Self, DemoError> {
        let open = |kind| signal(kind).map_err(|error| DemoError::new("signals cannot be handled").because(error));
        let mut interrupt = open(SignalKind::interrupt())?;
        let mut terminate = open(SignalKind::terminate())?;
        let mut hang_up = open(SignalKind::hangup())?;
        let (asked, hurry) = (CancellationToken::new(), CancellationToken::new());
        let order = [asked.clone(), hurry.clone()];
        let listener = tokio::spawn(async move {
            for token in order {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                    _ = hang_up.recv() => {}
                }
                token.cancel();
            }
        });
        Ok(Self { asked, hurry, _listener: AbortOnDropHandle::new(listener) })
    }

    /// Somebody asked to stop.
    pub(super) async fn asked(&self) {
        self.asked.cancelled().await;
    }

    /// Somebody asked twice.
    pub(super) async fn hurried(&self) {
        self.hurry.cancelled().await;
    }

    /// Whether somebody asked twice.
    pub(super) fn is_hurried(&self) -> bool {
        self.hurry.is_cancelled()
    }
}
