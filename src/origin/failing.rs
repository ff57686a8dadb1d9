//! The failing twin: an origin in memory, and a wrapper that makes any origin fail on purpose.
//!
//! For tests of what lies above. Both keep the contract of [`Origin`], but for [`Fault::Hang`].

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use twox_hash::XxHash3_64;

use super::{
    Origin, OriginError, OriginErrorKind, OriginFuture, OriginReply, OriginRequest, OriginTile,
    OriginValidator, encoding,
};
use crate::tile::{Scale, TileCoord, TileKey, Tileset};

/// An origin that holds its tiles in memory.
#[derive(Debug, Default)]
pub struct MemoryOrigin {
    tiles: Mutex<HashMap<TileKey, OriginTile>>,
}

impl MemoryOrigin {
    /// Without a tile.
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a tile there, or another in its place. The validator comes from the bytes.
    pub fn put(
        &self,
        tileset: &Tileset,
        coord: TileCoord,
        scale: Scale,
        body: impl Into<Bytes>,
        last_modified: Option<u64>,
    ) {
        let body = body.into();
        let tile = OriginTile {
            encoding: encoding::detect(None, &body).unwrap_or(super::ContentEncoding::Identity),
            validator: OriginValidator::new(&format!("\"{:016x}\"", XxHash3_64::oneshot(&body))),
            body,
            last_modified,
        };
        lock(&self.tiles).insert(tileset.tile_key(coord, scale), tile);
    }

    /// Takes a tile away.
    pub fn remove(&self, tileset: &Tileset, coord: TileCoord, scale: Scale) {
        lock(&self.tiles).remove(&tileset.tile_key(coord, scale));
    }
}

impl Origin for MemoryOrigin {
    fn fetch(&self, request: OriginRequest) -> OriginFuture<'_> {
        let key = request.tileset.tile_key(request.coord, request.scale);
        let tile = lock(&self.tiles).get(&key).cloned();
        let reply = match tile {
            None => OriginReply::NotFound,
            Some(tile) if request.validator.is_some() && tile.validator == request.validator => {
                OriginReply::NotModified
            }
            Some(tile) => OriginReply::Found(tile),
        };
        Box::pin(std::future::ready(Ok(reply)))
    }
}

/// Something that goes wrong with one request.
#[derive(Debug, Clone)]
pub enum Fault {
    /// It fails at once.
    Error(OriginError),
    /// It takes this long, then goes on as it would have.
    Delay(Duration),
    /// It waits until the gate is opened, then goes on as it would have.
    Hold(Gate),
    /// It takes all of its deadline and fails with it.
    TimeOut,
    /// It never ends, whatever its deadline: only dropping it does.
    Hang,
}

impl Fault {
    /// It fails at once, in this way.
    pub fn error(kind: OriginErrorKind) -> Self {
        Self::Error(OriginError::new(kind, "on purpose"))
    }
}

/// Something that requests wait for, closed until it is opened.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Default for Gate {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }
}

impl Gate {
    /// Lets everybody through, for ever.
    pub fn open(&self) {
        self.0.close();
    }

    async fn pass(&self) {
        // A closed semaphore answers at once: that is the open gate.
        let _ = self.0.acquire().await;
    }
}

/// A request as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Of which tileset.
    pub tileset: String,
    /// Where.
    pub coord: TileCoord,
    /// In which density.
    pub scale: Scale,
    /// What was held already.
    pub validator: Option<OriginValidator>,
    /// How long it might take.
    pub deadline: Duration,
}

#[derive(Debug, Default)]
struct Script {
    /// Faults to come, each with how often.
    faults: VecDeque<(Fault, usize)>,
    seen: Vec<Seen>,
    finished: usize,
}

/// An origin that fails as told, and counts.
#[derive(Debug, Default)]
pub struct FailingOrigin<O> {
    inner: O,
    script: Mutex<Script>,
}

impl<O: Origin> FailingOrigin<O> {
    /// Around this origin; well until told otherwise.
    pub fn new(inner: O) -> Self {
        Self {
            inner,
            script: Mutex::default(),
        }
    }

    /// The origin inside.
    pub fn inner(&self) -> &O {
        &self.inner
    }

    /// The next `times` requests meet this fault, after those that were announced before.
    pub fn fail_next(&self, times: usize, fault: Fault) {
        lock(&self.script).faults.push_back((fault, times));
    }

    /// From now on every request meets this fault, until [`FailingOrigin::heal`].
    pub fn fail_always(&self, fault: Fault) {
        let mut script = lock(&self.script);
        script.faults = VecDeque::from([(fault, usize::MAX)]);
    }

    /// No more faults.
    pub fn heal(&self) {
        lock(&self.script).faults.clear();
    }

    /// How many requests came.
    pub fn calls(&self) -> usize {
        lock(&self.script).seen.len()
    }

    /// How many of them ended with an answer or an error; the others are under way or were dropped.
    pub fn finished(&self) -> usize {
        lock(&self.script).finished
    }

    /// The requests that came, in order.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.script).seen.clone()
    }

    /// Notes a request, and takes the fault that it meets.
    fn arrive(&self, request: &OriginRequest) -> Option<Fault> {
        let mut script = lock(&self.script);
        script.seen.push(Seen {
            tileset: request.tileset.name().to_owned(),
            coord: request.coord,
            scale: request.scale,
            validator: request.validator.clone(),
            deadline: request.deadline,
        });
        while let Some((fault, times)) = script.faults.front_mut() {
            if *times == 0 {
                script.faults.pop_front();
                continue;
            }
            if *times != usize::MAX {
                *times -= 1;
            }
            return Some(fault.clone());
        }
        None
    }

    async fn answer(
        &self,
        fault: Option<Fault>,
        request: OriginRequest,
    ) -> Result<OriginReply, OriginError> {
        let late = || OriginError::new(OriginErrorKind::Deadline, "on purpose");
        match fault {
            None => {}
            Some(Fault::Error(error)) => return Err(error),
            Some(Fault::Delay(delay)) => {
                let end = delay.min(request.deadline);
                tokio::time::sleep(end).await;
                if delay >= request.deadline {
                    return Err(late());
                }
            }
            Some(Fault::Hold(gate)) => tokio::time::timeout(request.deadline, gate.pass())
                .await
                .map_err(|_| late())?,
            Some(Fault::TimeOut) => {
                tokio::time::sleep(request.deadline).await;
                return Err(late());
            }
            Some(Fault::Hang) => std::future::pending().await,
        }
        self.inner.fetch(request).await
    }
}

impl<O: Origin> Origin for FailingOrigin<O> {
    fn fetch(&self, request: OriginRequest) -> OriginFuture<'_> {
        let fault = self.arrive(&request);
        Box::pin(async move {
            let result = self.answer(fault, request).await;
            lock(&self.script).finished += 1;
            result
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
