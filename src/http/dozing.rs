//! A future that is polled when it was woken itself, not whenever its task is.
//!
//! A connection's task wakes for every request, and would each time ask a timer and the shutdown whether
//! they have come: locks and clock readings for what happens once in a connection's life.
//! Invariant: what wakes the future wakes the task, and the next poll polls it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// The future. It must not be polled again once it is done.
#[derive(Debug)]
pub(super) struct Dozing<F> {
    future: Pin<Box<F>>,
    bell: Arc<Bell>,
    /// Rings the bell.
    rope: Waker,
    /// Whom the bell wakes, as far as is known here.
    sleeper: Option<Waker>,
}

#[derive(Debug)]
struct Bell {
    rung: AtomicBool,
    sleeper: Mutex<Option<Waker>>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        let sleeper = self.sleeper.lock().unwrap_or_else(PoisonError::into_inner);
        let sleeper = sleeper.clone();
        if let Some(sleeper) = sleeper {
            sleeper.wake();
        }
    }
}

impl<F: Future> Dozing<F> {
    /// Lets it doze. It is polled once at the first poll.
    pub(super) fn new(future: F) -> Self {
        let bell = Arc::new(Bell {
            rung: AtomicBool::new(true),
            sleeper: Mutex::new(None),
        });
        Self {
            future: Box::pin(future),
            rope: Waker::from(bell.clone()),
            bell,
            sleeper: None,
        }
    }

    /// The future inside. What is done to it may have to be followed by [`Dozing::ring`].
    pub(super) fn inner(&mut self) -> Pin<&mut F> {
        self.future.as_mut()
    }

    /// Has it polled at the next poll.
    pub(super) fn ring(&self) {
        self.bell.rung.store(true, Ordering::Release);
    }
}

impl<F: Future> Future for Dozing<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let this = &mut *self;
        let known = this
            .sleeper
            .as_ref()
            .is_some_and(|sleeper| sleeper.will_wake(context.waker()));
        if !known {
            // The task has moved: told before the bell is looked at, so that no ring is lost.
            let waker = context.waker().clone();
            this.sleeper = Some(waker.clone());
            let mut sleeper = this
                .bell
                .sleeper
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            *sleeper = Some(waker);
        }
        if !this.bell.rung.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        this.bell.rung.store(false, Ordering::Release);
        let mut own = Context::from_waker(&this.rope);
        this.future.as_mut().poll(&mut own)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::time::{Instant, sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_is_polled_when_it_was_woken_and_not_with_its_task() {
        let polls = Arc::new(AtomicUsize::new(0));
        let counted = polls.clone();
        let mut nap = Box::pin(sleep(Duration::from_secs(5)));
        let counting = poll_fn(move |context| {
            counted.fetch_add(1, Ordering::Relaxed);
            nap.as_mut().poll(context)
        });
        let mut dozing = Dozing::new(counting);
        let begun = Instant::now();
        for _ in 0..100 {
            poll_fn(|context| {
                assert!(Pin::new(&mut dozing).poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
        }
        assert_eq!(polls.load(Ordering::Relaxed), 1);
        // From another task than the one that polled it first.
        tokio::spawn(dozing).await.unwrap();
        assert_eq!(begun.elapsed().as_secs(), 5);
        assert_eq!(polls.load(Ordering::Relaxed), 2);
    }
}
