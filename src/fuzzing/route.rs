//! A request's path: one path for one meaning, and none with tricks in it.

use crate::http::route::{Route, TileRoute};
use crate::tile::TileCoord;

pub(super) fn run(data: &[u8]) {
    let Ok(path) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(route) = Route::parse(path) else {
        return;
    };
    // What is understood is plain: nothing in it could be read in a second way by anybody behind.
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-_.@".contains(&b);
    assert!(path.bytes().all(plain), "{path:?}");
    assert!(!path.contains("//") && !path.contains("/."), "{path:?}");
    // Printed, it is the very path that was read: no two paths mean one route, so none is an alias that a cache in
    // front, a quota or a log would count as another.
    let printed = match route {
        Route::Tile(tile) => print(&tile, "", ""),
        Route::Explain(tile) => print(&tile, "", "/explain"),
        Route::Sign(tile) => print(&tile, "/sign", ""),
        Route::TileJson(name) => format!("/{name}.json"),
        Route::Page => return,
    };
    assert_eq!(printed, path);
    assert_eq!(Route::parse(&printed), Ok(route));
    if let Route::Tile(tile) | Route::Explain(tile) | Route::Sign(tile) = route
        && let Some(there) = tile.address.locate()
    {
        let (z, x, y) = (tile.address.z, tile.address.x, tile.address.y);
        assert!(x < 1 << z && y < 1 << z);
        assert_eq!(TileCoord::from_number(there.number()), Some(there));
    }
}

fn print(tile: &TileRoute<'_>, before: &str, behind: &str) -> String {
    let TileRoute {
        tileset,
        address,
        extension,
    } = tile;
    let slash = |name: &str| format!("/{name}");
    let tileset = tileset.map(slash).unwrap_or_default();
    let dot = |extension: &str| format!(".{extension}");
    let extension = extension.map(dot).unwrap_or_default();
    let (z, x, y) = (address.z, address.x, address.y);
    let scale = address.scale.suffix();
    format!("{before}{tileset}/{z}/{x}/{y}{scale}{extension}{behind}")
}
