//! The heads of tile answers: what is the same for all tiles of a kind is prepared, and the rest are facts, which
//! become text where the head is written: in place for HTTP/1.1, as fields for hyper. (The `ETag` is text before: the
//! request's is compared with it.)
//!
//! Invariant: a template's first fields are the ones that each answer fills, in the order of [`FIELDS`]; a 304 has no
//! date, and so not the last of them. So the fields of an answer cost one copy of a small table and no look-up of a
//! place by name.

use std::sync::LazyLock;

use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG, LAST_MODIFIED, VARY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::cache_control::CacheControl;
use super::cache_status::{CACHE_STATUS, cache_status, put_cache_status};
use super::encoding;
use super::header_text::{HeaderText, Text, http_date};
use super::request_head::Fields;
use crate::cache::{CacheStatus, ContentHash, ETAG_LEN};
use crate::clock::Timestamp;
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
    pub(super) fn of(request: Fields<'_>, stored: ContentEncoding) -> Self {
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

/// The fields whose values are an answer's own, in the order of the templates.
const FIELDS: [HeaderName; 4] = [ETAG, CACHE_CONTROL, CACHE_STATUS, LAST_MODIFIED];

const FORMATS: usize = 5;
const ACCESSES: [Access; 2] = [Access::Session, Access::Public];

/// What the heads of a kind have in common.
#[derive(Debug)]
struct Template {
    status: StatusCode,
    /// All fields; first, and empty, those of [`FIELDS`] that such an answer has.
    fields: HeaderMap,
    /// The status line and the other fields, as HTTP/1.1 writes them, each line without its own end.
    status_line: Vec<u8>,
    lines: Vec<u8>,
}

impl Template {
    fn new(status: StatusCode, fields: HeaderMap) -> Self {
        let (mut status_line, mut lines) = (Vec::new(), Vec::new());
        put_status(&mut status_line, status);
        for (name, value) in fields.iter().filter(|(name, _)| !FIELDS.contains(name)) {
            put_field(&mut lines, name, value);
        }
        Self {
            status,
            fields,
            status_line,
            lines,
        }
    }
}

/// All templates.
struct Templates {
    /// By format, access and form.
    tiles: Vec<Template>,
    not_modified: [Template; 2],
}

static TEMPLATES: LazyLock<Templates> = LazyLock::new(Templates::new);

impl Templates {
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
                    .map(move |form| tile_fields(format, access, form))
            })
        });
        let not_modified = [false, true].map(not_modified_fields);
        Self {
            tiles: kinds
                .map(|fields| Template::new(StatusCode::OK, fields))
                .collect(),
            not_modified: not_modified
                .map(|fields| Template::new(StatusCode::NOT_MODIFIED, fields)),
        }
    }
}

fn tile_fields(format: TileFormat, access: Access, form: Form) -> HeaderMap {
    let mut fields = not_modified_fields(false);
    fields.insert(LAST_MODIFIED, EMPTY);
    fields.insert(
        CONTENT_TYPE,
        HeaderValue::from_static(format.content_type()),
    );
    protect(&mut fields, access);
    if form.varies() {
        fields.insert(VARY, BY_ENCODING);
    }
    if let Form::Stored(coding) = form
        && let Some(coding) = encoding::name(coding)
    {
        fields.insert(CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    fields
}

/// What of a 200's head a cache may have to replace (RFC 9110 §15.4.5).
fn not_modified_fields(varies: bool) -> HeaderMap {
    let mut fields = HeaderMap::new();
    for slot in [ETAG, CACHE_CONTROL, CACHE_STATUS] {
        fields.insert(slot, EMPTY);
    }
    if varies {
        fields.insert(VARY, BY_ENCODING);
    }
    fields
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

/// The strong tag of what is sent: the decoded form has other bytes, so it has another (RFC 9110 §8.8.3.3).
#[derive(Debug, Clone, Copy)]
pub(super) struct ETag(HeaderText<{ ETAG_LEN + 2 }>);

impl ETag {
    pub(super) fn of(form: Form, content: ContentHash) -> Self {
        let tag = content.etag();
        let mut text = HeaderText::new();
        match form {
            Form::Stored(_) => text.put(&tag),
            Form::Decoded => {
                text.put(&tag[..ETAG_LEN - 1]);
                text.put(b"-d\"");
            }
        }
        Self(text)
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// What of a tile's head is its own.
#[derive(Debug)]
pub(super) struct Facts {
    pub(super) etag: ETag,
    pub(super) cache_control: CacheControl,
    pub(super) cache_status: CacheStatus,
    /// In seconds since the epoch; a 304 does not say it.
    pub(super) last_modified: Option<u64>,
    /// When it was answered: its `Date`.
    pub(super) now: Timestamp,
}

/// The head of a tile's answer.
#[derive(Debug)]
pub struct TileHead {
    template: &'static Template,
    facts: Facts,
}

impl TileHead {
    /// Of a 200.
    pub(super) fn of_tile(format: TileFormat, access: Access, form: Form, facts: Facts) -> Self {
        let access = usize::from(access == ACCESSES[1]);
        let kind =
            (format_place(format) * ACCESSES.len() + access) * Form::ALL.len() + form.place();
        Self {
            template: &TEMPLATES.tiles[kind],
            facts,
        }
    }

    /// Of a 304.
    pub(super) fn of_not_modified(form: Form, mut facts: Facts) -> Self {
        facts.last_modified = None;
        Self {
            template: &TEMPLATES.not_modified[usize::from(form.varies())],
            facts,
        }
    }

    /// When it was answered.
    pub fn answered_at(&self) -> Timestamp {
        self.facts.now
    }

    /// The status.
    pub fn status(&self) -> StatusCode {
        self.template.status
    }

    /// Writes it as HTTP/1.1 does, without the last line's end.
    pub fn put_lines(&self, head: &mut Vec<u8>) {
        let facts = &self.facts;
        head.put(&self.template.status_line);
        head.put(b"\r\netag: ");
        head.put(facts.etag.as_bytes());
        head.put(b"\r\ncache-control: ");
        facts.cache_control.put(head);
        head.put(b"\r\ncache-status: ");
        put_cache_status(facts.cache_status, head);
        if let Some(date) = facts.last_modified.and_then(http_date) {
            head.put(b"\r\nlast-modified: ");
            head.put(&date);
        }
        head.put(&self.template.lines);
    }

    /// The same fields.
    pub fn fields(&self) -> HeaderMap {
        let mut fields = self.template.fields.clone();
        let facts = &self.facts;
        let date = facts.last_modified.and_then(http_date);
        let dated = date.and_then(|date| HeaderValue::from_bytes(&date).ok());
        let undated = dated.is_none();
        let values = [
            facts.etag.0.value_or(""),
            facts.cache_control.value(),
            cache_status(facts.cache_status),
        ];
        let values = values.into_iter().chain(dated);
        for (place, value) in fields.values_mut().zip(values) {
            *place = value;
            // Over HTTP/2: not into the connection's table of fields (RFC 7541 §6.2.3). No other tile has this value
            // again, and each would push out one of those that all tiles have.
            place.set_sensitive(true);
        }
        if undated {
            fields.remove(LAST_MODIFIED);
        }
        fields
    }
}

/// Writes a status line (RFC 9112 §4), without its end. A reason is written, as some readers expect one.
pub(super) fn put_status(head: &mut Vec<u8>, status: StatusCode) {
    head.put(b"HTTP/1.1 ");
    head.put(status.as_str().as_bytes());
    head.put(b" ");
    head.put(status.canonical_reason().unwrap_or("-").as_bytes());
}

/// Writes a field's line behind the end of the one before, without its own end.
pub(super) fn put_field(head: &mut Vec<u8>, name: &HeaderName, value: &HeaderValue) {
    head.put(b"\r\n");
    head.put(name.as_str().as_bytes());
    head.put(b": ");
    head.put(value.as_bytes());
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
    use crate::http::cache_control::{Audience, for_version};
    use crate::metrics::TierLabel;

    fn facts(last_modified: Option<u64>) -> Facts {
        Facts {
            etag: ETag::of(Form::Decoded, ContentHash::of(b"a tile")),
            cache_control: for_version(Audience::Public, Timestamp::from_secs(1)),
            cache_status: CacheStatus::Hit {
                tier: TierLabel::Memory,
                ttl: 7,
            },
            last_modified,
            now: Timestamp::from_secs(1),
        }
    }

    fn every_kind(
        last_modified: Option<u64>,
    ) -> impl Iterator<Item = (TileFormat, Access, Form, TileHead)> {
        let formats = [
            TileFormat::Png,
            TileFormat::Jpg,
            TileFormat::Webp,
            TileFormat::Avif,
            TileFormat::Mvt,
        ];
        formats.into_iter().flat_map(move |format| {
            ACCESSES.into_iter().flat_map(move |access| {
                Form::ALL.into_iter().map(move |form| {
                    let head = TileHead::of_tile(format, access, form, facts(last_modified));
                    (format, access, form, head)
                })
            })
        })
    }

    #[test]
    fn each_value_stands_under_its_own_name() {
        let gzip = Form::Stored(ContentEncoding::Gzip);
        let date = Some(784_111_777);
        let head = TileHead::of_tile(TileFormat::Mvt, Access::Public, gzip, facts(date));
        let fields = head.fields();
        assert_eq!(fields[ETAG], facts(None).etag.as_bytes());
        assert!(fields[ETAG].as_bytes().ends_with(b"-d\""));
        assert_eq!(fields[CACHE_CONTROL], "public, max-age=31536000, immutable");
        assert_eq!(fields[CACHE_STATUS], "tilekeep; hit; ttl=7; detail=memory");
        assert_eq!(fields[LAST_MODIFIED], "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(fields[CONTENT_TYPE], TileFormat::Mvt.content_type());
        assert_eq!(fields[CONTENT_ENCODING], "gzip");
        assert_eq!(fields[VARY], "Accept-Encoding");
        assert_eq!(fields[CROSS_ORIGIN_RESOURCE_POLICY], "cross-origin");
        assert_eq!(fields[X_CONTENT_TYPE_OPTIONS], "nosniff");
    }

    #[test]
    fn every_kind_has_its_own_template() {
        for (format, access, form, head) in every_kind(None) {
            let fields = head.fields();
            assert_eq!(fields[CONTENT_TYPE], format.content_type());
            assert!(!fields.contains_key(LAST_MODIFIED));
            assert_eq!(fields.contains_key(VARY), form.varies());
            let coding = fields.get(CONTENT_ENCODING).map(HeaderValue::as_bytes);
            let stored = match form {
                Form::Stored(stored) => encoding::name(stored),
                Form::Decoded => None,
            };
            assert_eq!(coding, stored.map(str::as_bytes));
            let embedders = &fields[CROSS_ORIGIN_RESOURCE_POLICY];
            assert_eq!(embedders == "same-site", access == Access::Session);
        }
    }

    #[test]
    fn http_1_is_told_the_same_fields() {
        let kinds = [None, Some(784_111_777)].into_iter().flat_map(every_kind);
        let unchanged = Form::ALL.map(|form| TileHead::of_not_modified(form, facts(None)));
        for head in kinds.map(|(.., head)| head).chain(unchanged) {
            let mut lines = Vec::new();
            head.put_lines(&mut lines);
            let lines = String::from_utf8(lines).unwrap();
            let status = head.status();
            assert!(
                lines.starts_with(&format!("HTTP/1.1 {status}\r\n")),
                "{lines}"
            );
            let mut told: Vec<_> = lines.split("\r\n").skip(1).map(str::to_owned).collect();
            let fields = head.fields();
            let fields = fields.iter();
            let mut meant: Vec<_> = fields
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            told.sort();
            meant.sort();
            assert_eq!(told, meant);
        }
    }

    #[test]
    fn a_304_has_what_a_cache_may_have_to_replace_and_no_more() {
        let plain = Form::Stored(ContentEncoding::Identity);
        let head = TileHead::of_not_modified(plain, facts(Some(1)));
        assert_eq!(head.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(head.fields().len(), 3);
        let fields = TileHead::of_not_modified(Form::Decoded, facts(Some(1))).fields();
        assert_eq!(fields[VARY], "Accept-Encoding");
        assert_eq!(fields[ETAG], facts(None).etag.as_bytes());
    }
}
