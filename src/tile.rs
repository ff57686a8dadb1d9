//! What a tile is: coordinates, formats, key templates, tilesets and the areas they cover.
//!
//! Invariant: past [`TileAddress::locate`] a tile exists in its pyramid; no bare integer means a tile.
//! Left out on purpose: any I/O. Nothing here knows where tiles come from or who may see them.

mod bounds;
mod coord;
mod coverage;
mod format;
mod key;
pub mod pmtiles;
mod template;
mod tilejson;
mod tileset;
mod tilesets;
mod versions;

pub use bounds::{Bounds, BoundsError};
pub use coord::{MAX_ZOOM, Scale, TileAddress, TileCoord};
pub use coverage::{AreaError, Cover, Coverage, MAX_AREA_BYTES, MAX_LISTED, MAX_VERTICES, Walk};
pub use format::TileFormat;
pub use key::{KeySpace, TileKey};
pub use template::{KeyTemplate, KeyedTile, TemplateError, is_archive};
pub use tilejson::{Reach, tilejson};
pub use tileset::{
    Access, BrowserCaching, Delivery, MissingAnswer, Outside, Place, Tileset, TilesetError,
    TilesetSpec,
};
pub use tilesets::{
    ChangedObject, Current, Followed, SwitchRefusal, Switched, TilesetChange, Tilesets,
};
pub use versions::VersionSwitch;
