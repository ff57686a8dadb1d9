//! `PMTiles` headers and directories: entries in order, each inside its section, in bounded memory.

use crate::tile::pmtiles::{Directory, Header, MAX_DIRECTORY_BYTES, tile_id, tile_of};

pub(super) fn run(data: &[u8]) {
    if let Ok(header) = Header::read(data)
        && let Ok(root) = header.root_directory(data)
    {
        for entry in root.entries() {
            if let Ok(place) = header.place(entry) {
                let section = if entry.is_leaf() {
                    &header.leaves
                } else {
                    &header.data
                };
                assert!(section.start <= place.start && place.end <= section.end);
                assert!(!place.is_empty());
            }
        }
        check(&root);
    }
    for gzipped in [false, true] {
        if let Ok(directory) = Directory::read(data, gzipped) {
            check(&directory);
        }
    }
}

fn check(directory: &Directory) {
    assert!(directory.weight() <= 6 * MAX_DIRECTORY_BYTES + 64);
    let mut behind = 0;
    for entry in directory.entries() {
        assert!(entry.id >= behind, "{entry:?} begins before {behind}");
        assert_eq!(directory.find(entry.id), Some(entry));
        if !entry.is_leaf() {
            assert_eq!(directory.find(entry.end() - 1), Some(entry));
            behind = entry.end();
        }
        if let Some(tile) = tile_of(entry.id) {
            assert_eq!(tile_id(tile), entry.id);
        }
    }
    if let Some(first) = directory.entries().first()
        && first.id > 0
    {
        assert_eq!(directory.find(first.id - 1), None);
    }
}
