//! Paths that mean another path to somebody: a proxy in front, a file system, an old decoder.

use tokio::io::AsyncWriteExt as _;

use super::{server, statuses, unharmed};
use crate::wire;

/// Spellings of a way up, of an end of text and of a separator.
const PIECES: [&str; 28] = [
    "..",
    ".",
    "..%2f",
    "%2e%2e",
    "%2e%2e%2f",
    ".%2e",
    "%252e%252e%252f",
    "..%252f",
    "..%5c",
    "..\\",
    "%c0%ae%c0%ae",
    "%c0%af",
    "%e0%80%af",
    "%uff0e",
    "..;",
    ";",
    "%00",
    "%0000",
    "%0d%0a",
    "%09",
    "%20",
    "%ff",
    "%",
    "%zz",
    "~",
    "*",
    "%2f",
    "%5c",
];

#[tokio::test]
async fn no_spelling_of_a_path_is_anything_but_refused() {
    let (server, origin) = server().await;
    let mut paths = Vec::new();
    for piece in PIECES {
        paths.extend([
            format!("/{piece}/world/0/0/0.png"),
            format!("/world/{piece}/0/0/0.png"),
            format!("/world{piece}/0/0/0.png"),
            format!("/world/0/0/{piece}"),
            format!("/world/0/0/0{piece}.png"),
            format!("/world/0/0/0.png{piece}"),
            format!("/world/0/0/0.png/{piece}"),
            format!("/assets/{piece}/{piece}/etc/passwd"),
            format!("/assets/{piece}"),
            format!("/sign/world/0/0/{piece}0.png"),
            format!("/world/0/0/0/explain{piece}"),
            format!("/{piece}.json"),
        ]);
    }
    let digits = [
        "00",
        "000000000000000000000",
        "99999999999999999999999999999999",
        "4294967296",
        "-0",
        "+0",
        "0.0",
        "0e0",
        "0x0",
        "1_0",
        "०",
        "٠",
        "０",
        "𝟎",
        "²",
        "%30",
        "%d9%a0",
    ];
    for digit in digits {
        paths.extend([
            format!("/world/{digit}/0/0.png"),
            format!("/world/0/{digit}/0.png"),
            format!("/world/0/0/{digit}.png"),
            format!("/world/0/0/0@{digit}x.png"),
            format!("/{digit}/0/0"),
        ]);
    }
    paths.extend(
        [
            "//world/0/0/0.png",
            "/world//0/0/0.png",
            "/world/0/0/0.png/",
            "/world/0/0/0.png//",
        ]
        .map(str::to_owned),
    );
    paths.extend(
        [
            "/WORLD/0/0/0.png",
            "/world/0/0/0.PNG.",
            "/world/0/0/0..png",
            "/world/0/0/0.png.png",
        ]
        .map(str::to_owned),
    );
    let request = wire::tile_request("\r\n");
    for path in paths {
        let mut stream = wire::connect(&server).await;
        let request = request.replacen("/world/0/0/0.png", &path, 1);
        let request = request.replacen("\r\n", "\r\nConnection: close\r\n", 1);
        stream.write_all(request.as_bytes()).await.unwrap();
        let read = wire::read_until(&mut stream, "\u{0}never").await;
        let statuses = statuses(&read);
        assert!(matches!(statuses[..], [400 | 404]), "{path}: {read}");
    }
    unharmed(server, &origin).await;
}
