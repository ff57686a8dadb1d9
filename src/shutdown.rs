//! The end of the process: asked for once, heard everywhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

/// Asks for the end.
#[derive(Debug, Clone)]
pub struct Trigger {
    wakes: watch::Sender<bool>,
    asked: Arc<AtomicBool>,
}

/// Hears of it.
#[derive(Debug, Clone)]
pub struct Shutdown {
    wakes: watch::Receiver<bool>,
    /// The same, for those who look at every request: to look into the channel takes a lock that all cores share.
    asked: Arc<AtomicBool>,
}

/// A trigger and what hears it.
pub fn channel() -> (Trigger, Shutdown) {
    let (sender, receiver) = watch::channel(false);
    let asked = Arc::new(AtomicBool::new(false));
    let trigger = Trigger {
        wakes: sender,
        asked: Arc::clone(&asked),
    };
    let shutdown = Shutdown {
        wakes: receiver,
        asked,
    };
    (trigger, shutdown)
}

impl Trigger {
    /// Asks for the end; the second time nothing happens.
    pub fn fire(&self) {
        self.asked.store(true, Ordering::Release);
        self.wakes.send_replace(true);
    }

    /// Fires at the first SIGINT (Ctrl-C) or SIGTERM (what service managers send). At the second the
    /// process leaves, after `parting`: nothing that is left to destructors happens then.
    pub fn on_signals(&self, parting: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let trigger = self.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupt.recv() => tracing::info!("interrupted: finishing open requests"),
                _ = terminate.recv() => tracing::info!("asked to end: finishing open requests"),
            }
            trigger.fire();
            // Who asks twice does not want to wait.
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            tracing::warn!("asked a second time: leaving at once");
            parting();
            std::process::exit(1);
        });
        Ok(())
    }
}

impl Shutdown {
    /// Ends when the end has been asked for.
    pub async fn asked(&mut self) {
        // A trigger that is gone can no longer ask: the process is ending anyway.
        let _ = self.wakes.wait_for(|asked| *asked).await;
    }

    /// Whether it has been asked for.
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Acquire)
    }
}
