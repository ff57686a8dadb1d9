//! The public side on every core: a thread with a runtime and a listening socket of its own.
//!
//! The kernel spreads connections over the sockets (`SO_REUSEPORT`, socket(7)), and a connection stays
//! with its thread, so a hit meets no queue, no other thread and no lock that another core holds for
//! long. What has to wait for the outside (fills, revalidations, disk writes) runs on the process's
//! own runtime, which is the one that [`Cores::run`] is awaited on.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::thread;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::sync::oneshot;

use super::server::{Server, Service};
use crate::shutdown::Trigger;

/// Connections that the kernel keeps for a socket until they are accepted.
const BACKLOG: i32 = 1024;

/// What still runs on a core's runtime when its connections have ended: nothing that anybody waits for.
const RUNTIME_GRACE: Duration = Duration::from_millis(100);

/// Hashing passwords, decoding tiles and writing down log-outs, for one core.
const BLOCKING_THREADS: usize = 8;

/// Why serving ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CoresEnded {
    /// At the shutdown.
    AsAsked,
    /// A core did not start, or ended before.
    ByThemselves,
}

/// How many cores this process may use.
pub fn count() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// The listening sockets, one a core.
#[derive(Debug)]
pub struct Cores {
    listeners: Vec<TcpListener>,
    address: SocketAddr,
}

impl Cores {
    /// Listens on `address`, with port 0 on a free port, for as many cores as this process may use.
    /// An address that another process listens on is an error, although sockets could share it.
    pub fn listen(address: SocketAddr) -> io::Result<Self> {
        let cores = count();
        let alone = bind(address, Sharing::Nobody)?;
        let address = alone.local_addr()?;
        let listeners = if cores == 1 || !cfg!(target_os = "linux") {
            // Elsewhere the kernel does not spread connections over the sockets.
            vec![alone]
        } else {
            drop(alone);
            (0..cores)
                .map(|_| bind(address, Sharing::OurOwn))
                .collect::<io::Result<_>>()?
        };
        Ok(Self { listeners, address })
    }

    /// One socket, for a side that needs no more.
    pub fn listen_once(address: SocketAddr) -> io::Result<TcpListener> {
        bind(address, Sharing::Nobody)
    }

    /// Where they listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves on every core until `server` has ended on all, which it does at the shutdown alone: a core
    /// that ends by itself asks for the shutdown of the whole, since what it listened on is not served.
    ///
    /// `service` is called once a core: what a request counts references to is then that core's own.
    pub async fn run<M, S>(self, server: Server, shutdown: &Trigger, service: M) -> CoresEnded
    where
        M: Fn() -> S,
        S: Service,
    {
        let asked = server.shutdown.clone();
        let (mut ends, mut outcome) = (Vec::new(), CoresEnded::AsAsked);
        for (core, listener) in self.listeners.into_iter().enumerate() {
            let (server, service) = (server.clone(), service());
            let (ended, end) = oneshot::channel::<()>();
            let serve = move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .max_blocking_threads(BLOCKING_THREADS)
                    .build();
                match runtime {
                    Ok(runtime) => {
                        runtime.block_on(server.run(listener, service));
                        runtime.shutdown_timeout(RUNTIME_GRACE);
                    }
                    Err(error) => tracing::error!(%error, "a core's runtime did not start"),
                }
                drop(ended);
            };
            let thread = thread::Builder::new().name(format!("tilekeep-core-{core}"));
            match thread.spawn(serve) {
                Ok(_) => ends.push(end),
                Err(error) => {
                    tracing::error!(%error, "a core's thread did not start");
                    outcome = CoresEnded::ByThemselves;
                    shutdown.fire();
                }
            }
        }
        // Nothing is ever sent: the sender goes when the thread has ended, panicking or not.
        let ends = ends.into_iter().map(|end| {
            let (asked, shutdown) = (asked.clone(), shutdown.clone());
            tokio::spawn(async move {
                let _ = end.await;
                if asked.is_asked() {
                    return CoresEnded::AsAsked;
                }
                tracing::error!("a core has ended by itself; ending the whole");
                shutdown.fire();
                CoresEnded::ByThemselves
            })
        });
        for end in ends.collect::<Vec<_>>() {
            if !matches!(end.await, Ok(CoresEnded::AsAsked)) {
                outcome = CoresEnded::ByThemselves;
            }
        }
        outcome
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sharing {
    Nobody,
    OurOwn,
}

fn bind(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A server that is restarted finds its port free though old connections linger there.
    socket.set_reuse_address(true)?;
    #[cfg(target_os = "linux")]
    if sharing == Sharing::OurOwn {
        socket.set_reuse_port(true)?;
    }
    #[cfg(not(target_os = "linux"))]
    let _ = sharing;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_an_error_even_if_its_sockets_could_be_shared() {
        let first = Cores::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let second = Cores::listen(first.address()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn every_core_has_a_socket_of_its_own_on_the_same_port() {
        let cores = Cores::listen(([127, 0, 0, 1], 0).into()).unwrap();
        assert_ne!(cores.address().port(), 0);
        for listener in &cores.listeners {
            assert_eq!(listener.local_addr().unwrap(), cores.address());
        }
    }
}
