//! The dashboard's page on the admin side, and the files that it loads.
//!
//! Invariant: nothing here says anything of this server: page and files are the same for every one of a version, so
//! they are answered without the admin token, which the page itself asks for. What it shows, its scripts ask
//! `/metrics`, `/version` and `/cached` for. Left out on purpose: figures; the page has them from those.

use askama::Template;
use axum::extract::OriginalUri;
use axum::response::Response;
use http::{HeaderMap, StatusCode};

use super::assets;
use super::problem::HttpError;
use super::site::{asset_answer, html, problem};

/// The only files that this side serves.
const FILES: [&str; 6] = [
    "dashboard.css",
    "dashboard-cached.js",
    "dashboard-figures.js",
    "dashboard.js",
    "logo.svg",
    "tilekeep.css",
];

/// Nothing but its own files, and questions to this side.
const POLICY: &str = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     connect-src 'self'; img-src 'self'; script-src 'self'; style-src 'self'";

#[derive(Debug, Template)]
#[template(path = "dashboard.html")]
struct DashboardPage;

/// Whether what is at this path is the same on every server.
pub(super) fn says_nothing(path: &str) -> bool {
    path == "/" || file(path).is_some()
}

fn file(path: &str) -> Option<&'static assets::Asset> {
    assets::find(path).filter(|asset| FILES.contains(&asset.name()))
}

/// `GET /`.
pub(super) async fn page() -> Response {
    html(StatusCode::OK, DashboardPage.render(), POLICY)
}

/// `GET /assets/{file}`.
pub(super) async fn asset(OriginalUri(uri): OriginalUri, headers: HeaderMap) -> Response {
    match file(uri.path()) {
        Some(asset) => asset_answer(asset, &headers, assets::CACHE_CONTROL),
        None => problem(&HttpError::UnknownPage),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_has_nothing_inline_and_all_of_its_files() {
        let page = DashboardPage.render().unwrap();
        assert!(!page.contains(" style=\"") && !page.contains("<style"));
        assert!(!page.contains(" onclick=") && !page.contains("javascript:"));
        for script in page.split("<script").skip(1) {
            assert!(
                script.trim_start().starts_with("src=\"/assets/"),
                "{script}"
            );
        }
        for name in FILES {
            let path = assets::url(name);
            assert!(says_nothing(path) && page.contains(path), "{name}: {path}");
        }
    }

    #[test]
    fn other_files_and_paths_are_none_of_it() {
        for path in [
            "",
            "//",
            "/assets/",
            "/assets/dashboard.js",
            "/metrics",
            assets::url("map.js"),
        ] {
            assert!(!says_nothing(path), "{path}");
        }
        assert!(!POLICY.contains("unsafe"));
    }
}
