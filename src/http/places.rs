//! Places for connections: so many in all, and so many of one address, so that one client cannot take
//! the last place from everybody else.
//!
//! Invariant: a connection holds its place until it ends, and an address without connections takes no
//! room here. Left out on purpose: how fast an address may come back; what is refused costs an
//! `accept()` and a `close()`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use ipnet::IpNet;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How many connections there may be.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// In all; further ones wait in the kernel's queue.
    pub connections: usize,
    /// Of one address (of one /64 where it is IPv6); further ones are closed at once.
    pub per_address: usize,
    /// Proxies, whose one address stands for many people: not counted by address.
    pub exempt: Vec<IpNet>,
}

impl ConnectionLimits {
    /// The numbers for a node: 20,000, and a quarter of them for one address. A household or an office
    /// behind one address has a browser's six connections for each of 800 people.
    pub fn new(exempt: Vec<IpNet>) -> Self {
        Self {
            connections: 20_000,
            per_address: 5_000,
            exempt,
        }
    }
}

/// The places.
#[derive(Debug, Clone)]
pub struct Places {
    limits: Arc<ConnectionLimits>,
    all: Arc<Semaphore>,
    taken: Arc<Mutex<HashMap<Ipv6Addr, usize>>>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    of_address: Option<(Arc<Mutex<HashMap<Ipv6Addr, usize>>>, Ipv6Addr)>,
}

/// The address has as many connections as one may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crowded;

impl Places {
    /// All free.
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            all: Arc::new(Semaphore::new(limits.connections)),
            limits: Arc::new(limits),
            taken: Arc::default(),
        }
    }

    /// Waits for a place among all. `None` never comes: nobody closes the semaphore.
    pub async fn any(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.all).acquire_owned().await.ok()
    }

    /// Gives that place to a peer.
    pub fn take(&self, of_all: OwnedSemaphorePermit, peer: IpAddr) -> Result<Place, Crowded> {
        let address = peer.to_canonical();
        if self.limits.exempt.iter().any(|net| net.contains(&address)) {
            return Ok(Place {
                _of_all: of_all,
                of_address: None,
            });
        }
        let key = network(address);
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.entry(key).or_insert(0);
        if *count >= self.limits.per_address {
            return Err(Crowded);
        }
        *count += 1;
        drop(taken);
        Ok(Place {
            _of_all: of_all,
            of_address: Some((Arc::clone(&self.taken), key)),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((taken, key)) = &self.of_address else {
            return;
        };
        let mut taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = taken.entry(*key) {
            if *count.get() <= 1 {
                count.remove();
            } else {
                *count.get_mut() -= 1;
            }
        }
    }
}

/// An IPv6 host has a /64 of its own to draw addresses from.
fn network(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped(),
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(per_address: usize) -> Places {
        Places::new(ConnectionLimits {
            connections: 100,
            per_address,
            exempt: vec!["10.0.0.0/8".parse().unwrap()],
        })
    }

    async fn take(places: &Places, peer: &str) -> Result<Place, Crowded> {
        let of_all = places.any().await.unwrap();
        places.take(of_all, peer.parse().unwrap())
    }

    #[tokio::test]
    async fn one_address_takes_its_share_and_no_more() {
        let places = places(2);
        let first = take(&places, "192.0.2.1").await.unwrap();
        let _second = take(&places, "::ffff:192.0.2.1").await.unwrap();
        assert_eq!(take(&places, "192.0.2.1").await.unwrap_err(), Crowded);
        let _other = take(&places, "192.0.2.2").await.unwrap();
        drop(first);
        let _again = take(&places, "192.0.2.1").await.unwrap();
    }

    #[tokio::test]
    async fn one_ipv6_host_is_its_network_whatever_address_it_draws() {
        let places = places(1);
        let _one = take(&places, "2001:db8::1").await.unwrap();
        assert_eq!(take(&places, "2001:db8::2").await.unwrap_err(), Crowded);
        let _next_door = take(&places, "2001:db8:0:1::1").await.unwrap();
    }

    #[tokio::test]
    async fn a_proxy_stands_for_many() {
        let places = places(1);
        let mut held = Vec::new();
        for _ in 0..50 {
            held.push(take(&places, "10.1.2.3").await.unwrap());
        }
        assert!(places.taken.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_address_that_left_takes_no_room_and_what_was_refused_holds_no_place() {
        let places = places(1);
        for _ in 0..200 {
            let place = take(&places, "192.0.2.1").await.unwrap();
            assert!(take(&places, "192.0.2.1").await.is_err());
            drop(place);
        }
        assert!(places.taken.lock().unwrap().is_empty());
        assert_eq!(places.all.available_permits(), 100);
    }
}
