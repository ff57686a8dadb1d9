//! The heads of tile answers, prepared: what is the same for all tiles of a kind stands there already.
//!
//! Invariant: a template's first fields are the ones that each answer fills, in the order of its slots. So an
//! answer costs one copy of a small table and no look-up of a field's place by name.

use std::sync::LazyLock;

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::cache_status::CACHE_STATUS;
use super::encoding;
use crate::origin::ContentEncoding;
use crate::tile::{Access, TileFormat};

/// `Cross-Origin-Resource-Policy` (Fetch standard): who may embed a tile without CORS.
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");
const NOSNIFF: HeaderValue = HeaderValue::from_static("nosniff");
const SAME_SITE: HeaderValue = HeaderValue::from_static("same-site");
const CROSS_ORIGIN: HeaderValue = HeaderValue::from_static("cross-origin");
const BY_ENCODING: HeaderValue = HeaderValue::from_static("Accept-Encoding");
/// Until it is filled.
const EMPTY: HeaderValue = HeaderValue::from_static("");

/// In which form a tile is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is stored.
    Stored(ContentEncoding),
    /// Decoded, for a client that does not take its coding.
    Decoded,
}

impl Form {
    const ALL: [Self; 5] = [
        Self::Stored(ContentEncoding::Identity),
        Self::Stored(ContentEncoding::Gzip),
        Self::Stored(ContentEncoding::Brotli),
        Self::Stored(ContentEncoding::Zstd),
        Self::Decoded,
    ];

    /// The form for a client with these headers.
    pub(super) fn of(request: &HeaderMap, stored: ContentEncoding) -> Self {
        match encoding::name(stored) {
            Some(coding) if !encoding::accepts(request, coding) => Self::Decoded,
            _ => Self::Stored(stored),
        }
    }

    fn place(self) -> usize {
        match self {
            Self::Stored(ContentEncoding::Identity) => 0,
            Self::Stored(ContentEncoding::Gzip) => 1,
            Self::Stored(ContentEncoding::Brotli) => 2,
            Self::Stored(ContentEncoding::Zstd) => 3,
            Self::Decoded => 4,
        }
    }

    /// Whether another client would get another form.
    fn varies(self) -> bool {
        self != Self::Stored(ContentEncoding::Identity)
    }
}

const FORMATS: usize = 5;
const ACCESSES: [Access; 2] = [Access::Session, Access::Public];

/// All templates.
struct Heads {
    /// By format, access and form.
    tiles: Vec<HeaderMap>,
    not_modified: [HeaderMap; 2],
}

static HEADS: LazyLock<Heads> = LazyLock::new(Heads::new);

impl Heads {
    fn new() -> Self {
        let formats: [TileFormat; FORMATS] = [
            TileFormat::Png,
            TileFormat::Jpg,
            TileFormat::Webp,
            TileFormat::Avif,
            TileFormat::Mvt,
        ];
        let kinds = formats.into_iter().flat_map(|format| {
            ACCESSES.into_iter().flat_map(move |access| {
                Form::ALL
                    .into_iter()
                    .map(move |form| tile_template(format, access, form))
            })
        });
        Self {
            tiles: kinds.collect(),
            not_modified: [false, true].map(not_modified_template),
        }
    }
}

fn tile_template(format: TileFormat, access: Access, form: Form) -> HeaderMap {
    let mut head = not_modified_template(false);
    head.insert(LAST_MODIFIED, EMPTY);
    head.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    protect(&mut head, access);
    if form.varies() {
        head.insert(VARY, BY_ENCODING);
    }
    if let Form::Stored(coding) = form
        && let Some(coding) = encoding::name(coding)
    {
        head.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    head
}

fn not_modified_template(varies: bool) -> HeaderMap {
    let mut head = HeaderMap::new();
    for slot in [ETAG, CACHE_CONTROL, CACHE_STATUS] {
        head.insert(slot, EMPTY);
    }
    if varies {
        head.insert(VARY, BY_ENCODING);
    }
    head
}

fn format_place(format: TileFormat) -> usize {
    match format {
        TileFormat::Png => 0,
        TileFormat::Jpg => 1,
        TileFormat::Webp => 2,
        TileFormat::Avif => 3,
        TileFormat::Mvt => 4,
    }
}

/// What of a tile's head is its own.
pub(super) struct Slots {
    pub(super) etag: HeaderValue,
    pub(super) cache_control: HeaderValue,
    pub(super) cache_status: HeaderValue,
}

/// The head of a 200.
pub(super) fn for_tile(
    format: TileFormat,
    access: Access,
    form: Form,
    slots: Slots,
    last_modified: Option<HeaderValue>,
) -> HeaderMap {
    let access = usize::from(access == ACCESSES[1]);
    let kind = (format_place(format) * ACCESSES.len() + access) * Form::ALL.len() + form.place();
    let mut head = HEADS.tiles[kind].clone();
    let undated = last_modified.is_none();
    let filled = slots.into_iter().chain([last_modified.unwrap_or(EMPTY)]);
    fill(&mut head, filled);
    if undated {
        head.remove(LAST_MODIFIED);
    }
    head
}

/// The head of a 304: what of a 200's a cache may have to replace (RFC 9110 §15.4.5).
pub(super) fn for_not_modified(form: Form, slots: Slots) -> HeaderMap {
    let mut head = HEADS.not_modified[usize::from(form.varies())].clone();
    fill(&mut head, slots.into_iter());
    head
}

fn fill(head: &mut HeaderMap, slots: impl Iterator<Item = HeaderValue>) {
    for (place, value) in head.values_mut().zip(slots) {
        *place = value;
        // Over HTTP/2: not into the connection's table of fields (RFC 7541 §6.2.3). No other tile has this value
        // again, and each would push out one of those that all tiles have.
        place.set_sensitive(true);
    }
}

impl IntoIterator for Slots {
    type Item = HeaderValue;
    type IntoIter = std::array::IntoIter<HeaderValue, 3>;

    /// In the order of the templates.
    fn into_iter(self) -> Self::IntoIter {
        [self.etag, self.cache_control, self.cache_status].into_iter()
    }
}

/// What keeps a tileset's answers from being taken for something else, or embedded by strangers.
pub(super) fn protect(head: &mut HeaderMap, access: Access) {
    head.insert(X_CONTENT_TYPE_OPTIONS, NOSNIFF);
    let embedders = match access {
        Access::Session => SAME_SITE,
        Access::Public => CROSS_ORIGIN,
    };
    head.insert(CROSS_ORIGIN_RESOURCE_POLICY, embedders);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots() -> Slots {
        Slots {
            etag: HeaderValue::from_static("\"e\""),
            cache_control: HeaderValue::from_static("private, max-age=1"),
            cache_status: HeaderValue::from_static("tilekeep; hit"),
        }
    }

    #[test]
    fn each_value_stands_under_its_own_name() {
        let date = HeaderValue::from_static("Sun, 06 Nov 1994 08:49:37 GMT");
        let gzip = Form::Stored(ContentEncoding::Gzip);
        let head = for_tile(
            TileFormat::Mvt,
            Access::Public,
            gzip,
            slots(),
            Some(date.clone()),
        );
        assert_eq!(head[ETAG], "\"e\"");
        assert_eq!(head[CACHE_CONTROL], "private, max-age=1");
        assert_eq!(head[CACHE_STATUS], "tilekeep; hit");
        assert_eq!(head[LAST_MODIFIED], date);
        assert_eq!(head[CONTENT_TYPE], TileFormat::Mvt.content_type());
        assert_eq!(head[CONTENT_ENCODING], "gzip");
        assert_eq!(head[VARY], "Accept-Encoding");
        assert_eq!(head[CROSS_ORIGIN_RESOURCE_POLICY], "cross-origin");
        assert_eq!(head[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }

    #[test]
    fn every_kind_has_its_own_template() {
        for format in [
            TileFormat::Png,
            TileFormat::Jpg,
            TileFormat::Webp,
            TileFormat::Avif,
            TileFormat::Mvt,
        ] {
            for access in ACCESSES {
                for form in Form::ALL {
                    let head = for_tile(format, access, form, slots(), None);
                    assert_eq!(head[CONTENT_TYPE], format.content_type());
                    assert!(!head.contains_key(LAST_MODIFIED));
                    assert_eq!(head.contains_key(VARY), form.varies());
                    let coding = head.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
                    let stored = match form {
                        Form::Stored(stored) => encoding::name(stored),
                        Form::Decoded => None,
                    };
                    assert_eq!(coding, stored.map(str::as_bytes));
                    let embedders = &head[CROSS_ORIGIN_RESOURCE_POLICY];
                    assert_eq!(embedders == "same-site", access == Access::Session);
                }
            }
        }
    }

    #[test]
    fn a_304_has_what_a_cache_may_have_to_replace_and_no_more() {
        let plain = Form::Stored(ContentEncoding::Identity);
        assert_eq!(for_not_modified(plain, slots()).len(), 3);
        let head = for_not_modified(Form::Decoded, slots());
        assert_eq!(head[VARY], "Accept-Encoding");
        assert_eq!(head[ETAG], "\"e\"");
    }
}
