//! Every tileset of a server, by name, each at the version that it is at now.
//!
//! Invariant: whoever takes a tileset has one version of it, also if it is switched meanwhile. Taking one counts no
//! reference and waits for nobody: a tile hit does it. Left out on purpose: how other nodes hear of a switch.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};

use super::{KeySpace, KeyedTile, TileCoord, Tileset, TilesetError, VersionSwitch};
use crate::clock::Timestamp;

/// A tileset at the version that it was at when it was taken. For the length of an answer from memory: who waits, or
/// keeps it, takes the [`Arc`] out (`Guard::into_inner`).
pub type Current = Guard<Arc<Tileset>>;

/// The tilesets, in the order of the configuration. Cloning gives another handle on the same ones.
#[derive(Debug, Clone, Default)]
pub struct Tilesets {
    table: Arc<Table>,
}

#[derive(Debug, Default)]
struct Table {
    all: Vec<Entry>,
    by_name: HashMap<Box<str>, usize, foldhash::fast::RandomState>,
    default: Option<usize>,
}

#[derive(Debug)]
struct Entry {
    configured: Arc<Tileset>,
    current: ArcSwap<Tileset>,
    /// The newest switch that is known; held while one is carried out.
    switch: Mutex<Option<VersionSwitch>>,
}

/// What a switch changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switched {
    /// What other nodes have to know.
    pub switch: VersionSwitch,
    /// The version before.
    pub previous: String,
}

/// Why a tileset was not switched.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SwitchRefusal {
    /// There is none of this name.
    #[error("there is no such tileset")]
    UnknownTileset,
    /// All its versions have the same objects.
    #[error(
        "its `key` has no {{version}}, so another version would have the same objects: purge it instead"
    )]
    NoVersions,
    /// The version cannot be one.
    #[error("{0}")]
    Version(TilesetError),
    /// One of 2⁶⁴ pairs.
    #[error("version: its cache keys would be another tileset's; give it another name")]
    Clash,
}

/// What became of a switch that another node made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Followed {
    /// The tileset is at another version now.
    Switched {
        /// The version before.
        previous: String,
        /// And now.
        version: String,
    },
    /// It is noted, and this node's version stays: it has that one, or is configured with one of its own.
    Stays {
        /// Which.
        version: String,
    },
    /// Known already.
    Known,
    /// This node knows a later one.
    Outdated(VersionSwitch),
    /// No such tileset here, or none that has versions.
    NotHere,
}

/// An object that was changed or removed, as a store calls it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChangedObject {
    /// The bucket.
    pub bucket: String,
    /// The key.
    pub key: String,
}

/// What a changed object means to a tileset.
#[derive(Debug, Clone)]
pub struct TilesetChange {
    /// Which tileset.
    pub tileset: Arc<Tileset>,
    /// Of which version; `None` where it has none.
    pub version: Option<String>,
    /// Which tile; `None`: any of them.
    pub tile: Option<TileCoord>,
}

impl Entry {
    /// The version of the configuration, where there is something to switch.
    fn configured_version(&self) -> Option<&str> {
        let version = self.configured.version();
        version.filter(|_| self.configured.has_versions())
    }

    fn switch(&self) -> MutexGuard<'_, Option<VersionSwitch>> {
        // Whole at every step.
        self.switch.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        let entry = |configured: Arc<Tileset>| Entry {
            current: ArcSwap::new(configured.clone()),
            configured,
            switch: Mutex::new(None),
        };
        let table = Table {
            all: all.into_iter().map(entry).collect(),
            by_name,
            default,
        };
        Self {
            table: Arc::new(table),
        }
    }

    fn entry(&self, name: &str) -> Option<&Entry> {
        let place = self.table.by_name.get(name)?;
        Some(&self.table.all[*place])
    }

    /// The tileset of this name.
    pub fn get(&self, name: &str) -> Option<Current> {
        self.entry(name).map(|entry| entry.current.load())
    }

    /// The default tileset.
    pub fn default_tileset(&self) -> Option<Current> {
        let place = self.table.default?;
        Some(self.table.all[place].current.load())
    }

    /// The tileset whose tiles' keys are in this space now.
    pub fn by_space(&self, space: KeySpace) -> Option<Arc<Tileset>> {
        self.iter().find(|tileset| tileset.space() == space)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Arc<Tileset>> {
        let all = self.table.all.iter();
        all.map(|entry| entry.current.load_full())
    }

    /// Puts a tileset at another version, for all that take it from now on.
    pub fn switch(&self, name: &str, to: &str, now: Timestamp) -> Result<Switched, SwitchRefusal> {
        let entry = self.entry(name).ok_or(SwitchRefusal::UnknownTileset)?;
        let configured = entry.configured_version();
        let configured = configured.ok_or(SwitchRefusal::NoVersions)?;
        let next = self.at_version(entry, to)?;
        let mut switch = entry.switch();
        let current = entry.current.load();
        let previous = current.version().unwrap_or(configured).to_owned();
        let made = VersionSwitch::after(switch.as_ref(), (configured, &previous), to, now);
        *switch = Some(made.clone());
        entry.current.store(next);
        Ok(Switched {
            switch: made,
            previous,
        })
    }

    fn at_version(&self, entry: &Entry, version: &str) -> Result<Arc<Tileset>, SwitchRefusal> {
        let next = entry.configured.at_version(version);
        let next = next.map_err(|mut all| SwitchRefusal::Version(all.swap_remove(0)))?;
        let clash =
            |other: Arc<Tileset>| other.space() == next.space() && other.name() != next.name();
        if self.iter().any(clash) {
            return Err(SwitchRefusal::Clash);
        }
        Ok(Arc::new(next))
    }

    /// Takes a switch that another node made.
    pub fn follow(&self, name: &str, told: VersionSwitch) -> Followed {
        let Some(entry) = self.entry(name) else {
            return Followed::NotHere;
        };
        let Some(configured) = entry.configured_version() else {
            return Followed::NotHere;
        };
        let mut switch = entry.switch();
        match &*switch {
            Some(known) if *known == told => return Followed::Known,
            Some(known) if !told.is_later_than(known) => return Followed::Outdated(known.clone()),
            _ => {}
        }
        let version = told.effective(configured).to_owned();
        let current = entry.current.load();
        let previous = current.version().unwrap_or(configured).to_owned();
        if version == previous {
            *switch = Some(told);
            return Followed::Stays { version };
        }
        let Ok(next) = self.at_version(entry, &version) else {
            return Followed::NotHere;
        };
        *switch = Some(told);
        entry.current.store(next);
        Followed::Switched { previous, version }
    }

    /// The newest switch of each tileset that was switched.
    pub fn switches(&self) -> Vec<(String, VersionSwitch)> {
        let switch = |entry: &Entry| {
            let switch = entry.switch().clone()?;
            Some((entry.configured.name().to_owned(), switch))
        };
        self.table.all.iter().filter_map(switch).collect()
    }

    /// What a changed object is to these tilesets. Several may have the same objects, and each has those of its other
    /// versions too: somebody may switch back to them.
    pub fn changed(&self, object: &ChangedObject) -> Vec<TilesetChange> {
        let mut changes = Vec::new();
        for tileset in self.iter().filter(|t| t.may_lie_in(&object.bucket)) {
            let change = |tile: KeyedTile| TilesetChange {
                version: tile.version.or(tileset.version().map(str::to_owned)),
                tileset: tileset.clone(),
                tile: Some(tile.coord),
            };
            let key = &tileset.place().key;
            if let Some(version) = key.archive_at(&object.key) {
                changes.push(TilesetChange {
                    version: version.or(tileset.version().map(str::to_owned)),
                    tileset: tileset.clone(),
                    tile: None,
                });
            } else {
                changes.extend(key.tiles_at(&object.key).into_iter().map(change));
            }
        }
        changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tile::tileset::tests::spec;
    use crate::tile::{Scale, TilesetSpec};

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn tileset(name: &str, key: &str, version: Option<&str>) -> Arc<Tileset> {
        let tileset = Tileset::new(TilesetSpec {
            name: name.into(),
            key: key.into(),
            version: version.map(str::to_owned),
            ..spec()
        });
        Arc::new(tileset.unwrap())
    }

    fn world() -> Tilesets {
        let world = tileset("world", "w/{version}/{z}/{x}/{y}.png", Some("1"));
        let plain = tileset("plain", "p/{z}/{x}/{y}.png", Some("1"));
        Tilesets::new(vec![world, plain], Some("world"))
    }

    #[test]
    fn who_has_taken_a_tileset_keeps_its_version_and_who_comes_next_has_the_new_one() {
        let tilesets = world();
        let before = tilesets.get("world").unwrap();
        let switched = tilesets.switch("world", "2", NOW).unwrap();
        assert_eq!(switched.previous, "1");
        let after = tilesets.default_tileset().unwrap();
        assert_eq!((before.version(), after.version()), (Some("1"), Some("2")));
        assert_ne!(before.space(), after.space());
        let tile = TileCoord::new(1, 0, 1).unwrap();
        assert_eq!(after.place().key.key(tile, Scale::One), "w/2/1/0/1.png");
        assert_eq!(tilesets.clone().iter().next().unwrap().version(), Some("2"));
        assert!(tilesets.by_space(before.space()).is_none());
    }

    #[test]
    fn what_cannot_be_switched_is_refused_with_its_name() {
        let tilesets = world();
        let said = |name, to| tilesets.switch(name, to, NOW).unwrap_err();
        assert_eq!(said("moon", "2"), SwitchRefusal::UnknownTileset);
        assert!(said("plain", "2").to_string().contains("{version}"));
        assert!(said("world", "a/b").to_string().starts_with("version: "));
        assert!(tilesets.switches().is_empty());
        assert_eq!(tilesets.get("world").unwrap().version(), Some("1"));
    }

    #[test]
    fn switches_of_others_are_followed_in_whatever_order_they_come() {
        let there = world();
        let first = there.switch("world", "2", NOW).unwrap().switch;
        let second = there.switch("world", "3", NOW).unwrap().switch;
        let here = world();
        let switched = Followed::Switched {
            previous: "1".into(),
            version: "3".into(),
        };
        assert_eq!(here.follow("world", second.clone()), switched);
        let outdated = Followed::Outdated(second.clone());
        assert_eq!(here.follow("world", first), outdated);
        assert_eq!(here.follow("world", second.clone()), Followed::Known);
        assert_eq!(here.get("world").unwrap().version(), Some("3"));
        assert_eq!(here.switches(), [("world".to_owned(), second.clone())]);
        assert_eq!(here.follow("moon", second.clone()), Followed::NotHere);
        assert_eq!(here.follow("plain", second.clone()), Followed::NotHere);
        let newer = tileset("world", "w/{version}/{z}/{x}/{y}.png", Some("9"));
        let newer = Tilesets::new(vec![newer], None);
        let stays = Followed::Stays {
            version: "9".into(),
        };
        assert_eq!(newer.follow("world", second), stays);
    }

    #[test]
    fn an_object_is_every_tilesets_that_has_it_in_its_own_version() {
        let arn = TilesetSpec {
            bucket: "arn:aws:s3:eu-west-1:1:accesspoint/x".into(),
            key: "d/{z}/{x}/{y}.png".into(),
            name: "d".into(),
            ..spec()
        };
        let tilesets = Tilesets::new(
            vec![
                tileset("a", "w/{version}/{z}/{x}/{y}.png", Some("1")),
                tileset("b", "w/1/{z}/{x}/{y}.png", None),
                tileset("c", "c/{z}/{x}/{y}.png", Some("7")),
                Arc::new(Tileset::new(arn).unwrap()),
            ],
            None,
        );
        let changed = |bucket: &str, key: &str| -> Vec<String> {
            let object = ChangedObject {
                bucket: bucket.into(),
                key: key.into(),
            };
            let said = |change: TilesetChange| {
                let (name, tile) = (change.tileset.name().to_owned(), change.tile.unwrap());
                format!("{name} {} {tile}", change.version.as_deref().unwrap_or("-"))
            };
            tilesets.changed(&object).into_iter().map(said).collect()
        };
        assert_eq!(changed("acme", "w/1/3/3/5.png"), ["a 1 3/3/5", "b - 3/3/5"]);
        assert_eq!(changed("acme", "w/2/3/3/5.png"), ["a 2 3/3/5"]);
        assert_eq!(changed("acme", "c/3/3/5.png"), ["c 7 3/3/5"]);
        assert!(changed("other", "c/3/3/5.png").is_empty());
        assert!(changed("acme", "c/README").is_empty());
        assert_eq!(changed("behind-it", "d/3/3/5.png"), ["d - 3/3/5"]);
    }

    #[test]
    fn a_changed_archive_is_all_of_its_tileset_in_that_version() {
        let tilesets = Tilesets::new(
            vec![
                tileset("a", "a/{version}.pmtiles", Some("1")),
                tileset("b", "b.pmtiles", None),
            ],
            None,
        );
        let changed = |key: &str| -> Vec<String> {
            let object = ChangedObject {
                bucket: spec().bucket,
                key: key.into(),
            };
            let said = |change: TilesetChange| {
                assert_eq!(change.tile, None);
                let version = change.version.unwrap_or("-".into());
                format!("{} {version}", change.tileset.name())
            };
            tilesets.changed(&object).into_iter().map(said).collect()
        };
        assert_eq!(changed("a/1.pmtiles"), ["a 1"]);
        assert_eq!(changed("a/2.pmtiles"), ["a 2"]);
        assert_eq!(changed("b.pmtiles"), ["b -"]);
        for other in [
            "a/.pmtiles",
            "a/...pmtiles",
            "a/x/1.pmtiles",
            "b.pmtiles.bak",
        ] {
            assert!(changed(other).is_empty(), "{other}");
        }
    }
}
