//! stub until merge
#![allow(missing_docs, clippy::all, clippy::pedantic)]
use super::Stored;
use crate::clock::Timestamp;
use crate::tile::TileKey;
#[derive(Debug, Clone)]
pub struct DiskTier;
#[derive(Debug, Clone)]
pub struct DiskMeta {
    pub validated_at: Timestamp,
    pub record_bytes: u64,
}
pub struct DiskSettings {
    pub path: std::path::PathBuf,
    pub capacity: u64,
}
#[derive(Debug, thiserror::Error)]
#[error("x")]
pub struct DiskOpenError;
pub enum TryGet {
    Hit(Stored),
    Miss,
    WouldBlock(()),
}
impl DiskTier {
    pub fn open(_: DiskSettings) -> Result<Self, DiskOpenError> {
        Ok(Self)
    }
    pub fn try_get(&self, _: &TileKey) -> TryGet {
        TryGet::Miss
    }
    pub async fn get(&self, _: &TileKey) -> Option<Stored> {
        None
    }
    pub fn put(&self, _: TileKey, _: Stored) {}
    pub fn touch(&self, _: TileKey, _: Timestamp) {}
    pub fn invalidate(&self, _: &TileKey) -> bool {
        false
    }
    pub fn invalidate_matching(&self, _: &dyn Fn(&TileKey) -> bool) -> u64 {
        0
    }
    pub fn expire_matching(&self, _: &dyn Fn(&TileKey) -> bool, _: Timestamp) -> u64 {
        0
    }
    pub fn lookup_meta(&self, _: &TileKey) -> Option<DiskMeta> {
        None
    }
    pub async fn close(&self, _: std::time::Duration) {}
}
