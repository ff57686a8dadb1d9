//! The web pages, as pure functions of plain values: no request, no session type, no I/O.
//!
//! Each page is an `askama` template in `web/templates`, which escapes every value, and has a
//! content security policy that allows no inline script or style: what a page needs to know, its
//! scripts read from `data-` attributes. Whoever answers with a page sends the policy beside it.
//!
//! Left out on purpose: the dashboard, which belongs to the admin side.

use askama::Template;

use super::assets;

/// What every page's policy starts from: nothing but what comes from here, and no framing.
const POLICY_BASE: &str = "default-src 'none'; base-uri 'none'; form-action 'self'; \
     frame-ancestors 'none'; font-src 'self'; connect-src 'self'";

/// The log-in page, `/login`; also the answer, with 401 or 429, to a form that did not get in.
#[derive(Debug, Template)]
#[template(path = "login.html")]
pub struct LoginPage<'a> {
    /// Where to go afterwards, as a path on this origin; sent back with the form.
    pub next: &'a str,
    /// The name to fill in, when somebody tries again.
    pub username: &'a str,
    /// Why the last attempt failed, as a sentence for the person.
    pub error: Option<&'a str>,
    /// Whether there are users with passwords, and so a form to fill in.
    pub password: bool,
    /// The identity provider's log-in, when there is one.
    pub oidc: Option<OidcLink<'a>>,
    /// Whether this is `tilekeep demo`, whose log-in is no secret.
    pub demo: bool,
}

/// The way to an identity provider's log-in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OidcLink<'a> {
    /// Where it starts: a path with its query.
    pub url: String,
    /// What the button calls it.
    pub name: &'a str,
}

impl LoginPage<'_> {
    /// The page.
    pub fn to_html(&self) -> Result<String, askama::Error> {
        self.render()
    }

    /// The value for `Content-Security-Policy`.
    pub fn content_security_policy() -> String {
        format!("{POLICY_BASE}; script-src 'self'; style-src 'self'; img-src 'self' data:")
    }
}

/// The front page, `/`: the tilesets that a session may see.
#[derive(Debug, Template)]
#[template(path = "index.html")]
pub struct IndexPage<'a> {
    /// Who is logged in; `None` for a visitor who sees public tilesets only.
    pub user: Option<&'a str>,
    /// The tilesets, in the order to show them.
    pub tilesets: Vec<IndexTileset>,
    /// This server's public origin, such as `https://tiles.example.com`, for the words around the snippets.
    pub origin: &'a str,
}

impl IndexPage<'_> {
    /// The page.
    pub fn to_html(&self) -> Result<String, askama::Error> {
        self.render()
    }

    /// The value for `Content-Security-Policy`.
    pub fn content_security_policy() -> String {
        format!("{POLICY_BASE}; script-src 'self'; style-src 'self'; img-src 'self' data: blob:")
    }
}

/// The map page, `/map`. It reads everything else from the tilesets' `TileJSON`.
#[derive(Debug, Template)]
#[template(path = "map.html")]
pub struct MapPage<'a> {
    /// Who is logged in; `None` for a visitor who sees public tilesets only.
    pub user: Option<&'a str>,
    /// The tilesets to choose from; the first is shown when the address names none.
    pub tilesets: Vec<MapTileset>,
}

impl MapPage<'_> {
    /// The page.
    pub fn to_html(&self) -> Result<String, askama::Error> {
        self.render()
    }

    /// The value for `Content-Security-Policy`.
    ///
    /// Embedded libraries need no foreign origin and no `blob:` worker. In CDN mode the CDN may serve
    /// scripts and styles (each under an integrity hash), and `MapLibre` starts its worker from a `blob:`.
    pub fn content_security_policy() -> String {
        let images = "img-src 'self' data: blob:";
        match assets::cdn_origin() {
            None => format!(
                "{POLICY_BASE}; script-src 'self'; style-src 'self'; {images}; worker-src 'self'"
            ),
            Some(cdn) => format!(
                "{POLICY_BASE}; script-src 'self' {cdn}; style-src 'self' {cdn}; {images}; worker-src blob:"
            ),
        }
    }
}

/// A tileset to choose on the map page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapTileset {
    /// Its name.
    pub name: String,
    /// The path of its `TileJSON`, such as `/world.json`.
    pub tilejson_path: String,
}

/// What the front page shows of a tileset.
#[derive(Debug, Clone, PartialEq)]
pub struct IndexTileset {
    /// Its name.
    pub name: String,
    /// Its format as configured: `png`, `jpg`, `webp`, `avif`, `mvt`.
    pub format: String,
    /// The absolute address of its `TileJSON`.
    pub tilejson_url: String,
    /// The absolute address of a tile with `{z}`, `{x}` and `{y}`, as in its `TileJSON`.
    pub tile_url_template: String,
    /// The lowest zoom that has tiles.
    pub minzoom: u8,
    /// The highest zoom that has tiles.
    pub maxzoom: u8,
    /// West, south, east, north in degrees.
    pub bounds: [f64; 4],
    /// To be shown on a map; may hold HTML, as in `TileJSON`.
    pub attribution: String,
    /// How pixels encode data, in `MapLibre`'s words (`mapbox`, `terrarium`); `None` for pictures.
    pub encoding: Option<String>,
    /// What a data-encoded tileset measures, such as `Elevation`; may be empty.
    pub value_label: String,
    /// The unit of that, such as `m`; may be empty.
    pub value_unit: String,
    /// The names of the layers of a vector tileset.
    pub vector_layers: Vec<String>,
}

/// A snippet: the tab's words and the text to copy.
#[derive(Debug)]
struct Snippet {
    id: &'static str,
    title: &'static str,
    text: String,
}

/// Snippets are plain text; `index.html` escapes them when it shows them.
macro_rules! snippet_template {
    ($name:ident, $path:literal) => {
        #[derive(Template)]
        #[template(path = $path, escape = "none")]
        struct $name<'a> {
            t: &'a IndexTileset,
        }
    };
}
snippet_template!(LeafletSnippet, "snippet-leaflet.txt");
snippet_template!(MapLibreSnippet, "snippet-maplibre.txt");
snippet_template!(OpenLayersSnippet, "snippet-openlayers.txt");
snippet_template!(QgisSnippet, "snippet-qgis.txt");

impl IndexTileset {
    fn is_vector(&self) -> bool {
        self.format == "mvt"
    }

    /// What kind of tiles these are, for people.
    fn kind(&self) -> &'static str {
        match (self.is_vector(), &self.encoding) {
            (true, _) => "Vector",
            (false, Some(_)) => "Data raster",
            (false, None) => "Raster",
        }
    }

    /// The formula that turns a pixel into a value, in JavaScript, of `r`, `g` and `b`.
    fn formula(&self) -> &'static str {
        match self.encoding.as_deref() {
            Some("terrarium") => "r * 256 + g + b / 256 - 32768",
            _ => "-10000 + (r * 65536 + g * 256 + b) * 0.1",
        }
    }

    /// The same for `OpenLayers`, whose bands go from 0 to 1.
    fn openlayers_expression(&self) -> &'static str {
        match self.encoding.as_deref() {
            Some("terrarium") => {
                "['+', -32768, ['*', 65280, ['band', 1]], ['*', 255, ['band', 2]], ['*', 255 / 256, ['band', 3]]]"
            }
            _ => {
                "['+', -10000, ['*', 1671168, ['band', 1]], ['*', 6528, ['band', 2]], ['*', 25.5, ['band', 3]]]"
            }
        }
    }

    /// The name that QGIS has for the encoding.
    fn qgis_interpretation(&self) -> &'static str {
        match self.encoding.as_deref() {
            Some("terrarium") => "Terrarium Terrain RGB",
            _ => "MapTiler Terrain RGB",
        }
    }

    fn west(&self) -> f64 {
        self.bounds[0]
    }

    fn south(&self) -> f64 {
        self.bounds[1]
    }

    fn east(&self) -> f64 {
        self.bounds[2]
    }

    fn north(&self) -> f64 {
        self.bounds[3]
    }

    fn is_worldwide(&self) -> bool {
        self.east() - self.west() >= 359.9
    }

    fn bounds_in_words(&self) -> String {
        if self.is_worldwide() && self.south() <= -85.0 && self.north() >= 85.0 {
            return "the whole world".to_owned();
        }
        let degrees = |value: f64, plus: char, minus: char| {
            let side = if value < 0.0 { minus } else { plus };
            format!("{:.2}° {side}", value.abs())
        };
        format!(
            "{} – {}, {} – {}",
            degrees(self.west(), 'E', 'W'),
            degrees(self.east(), 'E', 'W'),
            degrees(self.south(), 'N', 'S'),
            degrees(self.north(), 'N', 'S'),
        )
    }

    /// A text as a JavaScript literal, in which `</script>` ends nothing and `<!--` starts nothing.
    fn js(text: &str) -> String {
        serde_json::Value::from(text)
            .to_string()
            .replace("</", "<\\/")
            .replace("<!", "\\u003c!")
    }

    fn attribution_js(&self) -> String {
        Self::js(&self.attribution)
    }

    /// The attribution without its markup.
    fn attribution_text(&self) -> String {
        let mut text = String::new();
        let mut in_tag = false;
        for character in self.attribution.chars() {
            match character {
                '<' => in_tag = true,
                '>' if in_tag => in_tag = false,
                _ if in_tag => {}
                other => text.push(other),
            }
        }
        text.replace("&copy;", "©").replace("&amp;", "&")
    }

    /// The path of a tile to show on the card: at the lowest zoom, the one in the middle.
    fn preview_path(&self) -> String {
        let (x, y) = tile_at(
            self.minzoom,
            f64::midpoint(self.west(), self.east()),
            f64::midpoint(self.south(), self.north()),
        );
        let path = self
            .tile_url_template
            .split_once("://")
            .and_then(|(_, rest)| rest.find('/').map(|slash| &rest[slash..]))
            .unwrap_or(&self.tile_url_template);
        path.replace("{z}", &self.minzoom.to_string())
            .replace("{x}", &x.to_string())
            .replace("{y}", &y.to_string())
    }

    fn snippets(&self) -> Result<Vec<Snippet>, askama::Error> {
        Ok(vec![
            Snippet {
                id: "leaflet",
                title: "Leaflet",
                text: LeafletSnippet { t: self }.render()?,
            },
            Snippet {
                id: "maplibre",
                title: "MapLibre",
                text: MapLibreSnippet { t: self }.render()?,
            },
            Snippet {
                id: "openlayers",
                title: "OpenLayers",
                text: OpenLayersSnippet { t: self }.render()?,
            },
            Snippet {
                id: "qgis",
                title: "QGIS",
                text: QgisSnippet { t: self }.render()?,
            },
        ])
    }
}

/// The XYZ tile that holds a place, for the previews; tiles that are served are parsed elsewhere.
fn tile_at(zoom: u8, longitude: f64, latitude: f64) -> (u32, u32) {
    let side = 2f64.powi(i32::from(zoom.min(30)));
    let latitude = latitude.clamp(-85.0, 85.0).to_radians();
    let x = (longitude + 180.0) / 360.0 * side;
    let y = (1.0 - latitude.tan().asinh() / std::f64::consts::PI) / 2.0 * side;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to 0..2^30"
    )]
    let inside = |value: f64| value.floor().clamp(0.0, side - 1.0) as u32;
    (inside(x), inside(y))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn tileset(name: &str, format: &str) -> IndexTileset {
        IndexTileset {
            name: name.to_owned(),
            format: format.to_owned(),
            tilejson_url: format!("https://tiles.example.com/{name}.json"),
            tile_url_template: format!(
                "https://tiles.example.com/{name}/{{z}}/{{x}}/{{y}}.{format}"
            ),
            minzoom: 0,
            maxzoom: 5,
            bounds: [-180.0, -85.0511, 180.0, 85.0511],
            attribution: r#"&copy; <a href="https://example.com/">Example</a>"#.to_owned(),
            encoding: None,
            value_label: String::new(),
            value_unit: String::new(),
            vector_layers: Vec::new(),
        }
    }

    fn index(tilesets: Vec<IndexTileset>) -> String {
        IndexPage {
            user: Some("ada"),
            tilesets,
            origin: "https://tiles.example.com",
        }
        .to_html()
        .unwrap()
    }

    fn login() -> LoginPage<'static> {
        LoginPage {
            next: "/map",
            username: "",
            error: None,
            password: true,
            oidc: None,
            demo: false,
        }
    }

    fn map() -> String {
        MapPage {
            user: Some("ada"),
            tilesets: vec![MapTileset {
                name: "world".to_owned(),
                tilejson_path: "/world.json".to_owned(),
            }],
        }
        .to_html()
        .unwrap()
    }

    #[test]
    fn no_page_has_inline_script_style_or_a_missing_asset() {
        for page in [
            login().to_html().unwrap(),
            index(vec![tileset("world", "png")]),
            map(),
        ] {
            assert!(!page.contains("src=\"\"") && !page.contains("href=\"\""));
            assert!(!page.contains(" style=\"") && !page.contains("<style"));
            assert!(
                !page.contains(" onclick=") && !page.contains("javascript:"),
                "handlers live in files"
            );
            for script in page.split("<script").skip(1) {
                assert!(script.trim_start().starts_with("src=\""), "{script}");
            }
        }
    }

    #[test]
    fn what_a_person_typed_is_escaped() {
        let page = LoginPage {
            next: "/map\"><script>",
            username: "<b>\"x",
            error: Some("Wrong <name> or password."),
            ..login()
        }
        .to_html()
        .unwrap();
        assert!(!page.contains("<b>") && !page.contains("\"><script>"));
        assert!(page.contains("role=\"alert\""));
    }

    #[test]
    fn the_demo_says_its_log_in_and_no_other_server_does() {
        let said = "<kbd>demo</kbd>";
        assert!(!login().to_html().unwrap().contains(said));
        let demo = LoginPage {
            demo: true,
            ..login()
        };
        assert!(demo.to_html().unwrap().contains(said));
    }

    #[test]
    fn snippets_suit_the_kind_of_tileset() {
        let raster = tileset("world", "png").snippets().unwrap();
        assert!(raster[0].text.contains("crossOrigin: 'use-credentials'"));
        assert!(raster[1].text.contains("credentials: 'include'"));
        assert!(raster[3].text.contains("API Header"));
        assert!(
            raster[0]
                .text
                .contains(r#""&copy; <a href=\"https://example.com/\">Example<\/a>""#)
        );

        let vector = IndexTileset {
            vector_layers: vec!["countries".to_owned()],
            ..tileset("countries", "mvt")
        };
        let vector = vector.snippets().unwrap();
        assert!(vector[0].text.contains("maplibreGL"));
        assert!(vector[1].text.contains("'source-layer': 'countries'"));
        assert!(vector[2].text.contains("setWithCredentials(true)"));
        assert!(vector[3].text.contains("Vector Tiles"));

        let data = IndexTileset {
            encoding: Some("mapbox".to_owned()),
            ..tileset("values", "png")
        };
        let data = data.snippets().unwrap();
        assert!(data[1].text.contains("raster-dem"));
        assert!(data[3].text.contains("MapTiler Terrain RGB"));
    }

    #[test]
    fn the_preview_is_the_middle_tile_of_the_lowest_zoom() {
        assert_eq!(tileset("world", "png").preview_path(), "/world/0/0/0.png");
        let local = IndexTileset {
            minzoom: 10,
            bounds: [8.4, 47.3, 8.7, 47.5],
            tile_url_template: "https://t.example/zh/{z}/{x}/{y}.png?v=3".to_owned(),
            ..tileset("zh", "png")
        };
        assert_eq!(local.preview_path(), "/zh/10/536/358.png?v=3");
    }

    #[test]
    fn a_session_without_tilesets_is_told_so() {
        assert!(index(Vec::new()).contains("No tilesets"));
    }

    #[test]
    fn every_policy_refuses_inline_code_and_framing() {
        for policy in [
            LoginPage::content_security_policy(),
            IndexPage::content_security_policy(),
            MapPage::content_security_policy(),
        ] {
            assert!(policy.starts_with("default-src 'none'"));
            assert!(policy.contains("frame-ancestors 'none'"));
            assert!(!policy.contains("unsafe"));
        }
    }
}
