//! Every tileset of a server, by name.

use std::collections::HashMap;
use std::sync::Arc;

use super::{KeySpace, Tileset};

/// The tilesets, in the order of the configuration.
#[derive(Debug, Clone, Default)]
pub struct Tilesets {
    all: Vec<Arc<Tileset>>,
    by_name: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    default: Option<usize>,
}

impl Tilesets {
    /// Takes checked tilesets; `default` also answers under `/{z}/{x}/{y}`.
    pub fn new(all: Vec<Arc<Tileset>>, default: Option<&str>) -> Self {
        let by_name: HashMap<Box<str>, usize, _> = all
            .iter()
            .enumerate()
            .map(|(place, tileset)| (tileset.name().into(), place))
            .collect();
        let default = default.and_then(|name| by_name.get(name).copied());
        Self {
            all,
            by_name,
            default,
        }
    }

    /// The tileset of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<Tileset>> {
        self.by_name.get(name).map(|place| &self.all[*place])
    }

    /// The default tileset.
    pub fn default_tileset(&self) -> Option<&Arc<Tileset>> {
        self.default.map(|place| &self.all[place])
    }

    /// The tileset whose tiles' keys are in this space.
    pub fn by_space(&self, space: KeySpace) -> Option<&Arc<Tileset>> {
        self.all.iter().find(|tileset| tileset.space() == space)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Tileset>> {
        self.all.iter()
    }
}
