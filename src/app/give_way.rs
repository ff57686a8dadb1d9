//! Fills give way to hits: the threads that wait for the outside are a little nice to the cores' own.
//!
//! Invariant: where both want the processor, who answers from memory has it first, and fills keep their share.
//! Left out on purpose: real-time classes and pinning, which an operator decides (systemd has keys for both).

/// Against 0: a quarter of the processor where somebody else wants all of it, and no wait where nobody does. Nicer
/// than that, misses would starve beside hits.
#[cfg(target_os = "linux")]
const NICE: i32 = 5;

/// Makes the calling thread give way. What it starts gives way too.
pub fn give_way() {
    // On Linux it is the thread's own; elsewhere it would be the process's, hits and all.
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!(%error, "a thread for fills does not give way to hits");
    }
}
