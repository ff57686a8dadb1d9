//! Other people's archives and servers, and an admin side that only listens.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::{Arc, Mutex};

use aws_sdk_s3::types::{CompletedMultipartUpload, CompletedPart};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::{BUCKET, Desk, keys, text};
use crate::peers::{Seaweed, program, python_says};

/// An admin side that says yes, and what it heard: path, authorization, body.
pub(super) async fn admin_side() -> (String, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let heard = Arc::new(Mutex::new(Vec::new()));
    let log = heard.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut text = String::new();
            let body = loop {
                let mut bytes = [0; 4096];
                let read = stream.read(&mut bytes).await.unwrap();
                text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
                let Some((fields, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let header = |name: &str| {
                    let mut lines = fields.lines().filter_map(|line| line.split_once(": "));
                    let found = lines.find(|(n, _)| n.eq_ignore_ascii_case(name));
                    found.map_or("", |(_, value)| value)
                };
                if body.len() >= header("content-length").parse().unwrap() {
                    let path = fields.split(' ').nth(1).unwrap();
                    break format!("{path} {} {body}", header("authorization"));
                }
            };
            log.lock().unwrap().push(body);
            let answer = r#"{"memory":0,"disk":0,"tileset":"world","version":"x","previous":"y"}"#;
            let first = format!(
                "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n",
                answer.len()
            );
            let _ = stream.write_all((first + answer).as_bytes()).await;
        }
    });
    (url, heard)
}

/// Archives that mb-util and the pmtiles library wrote, to a bucket of SeaweedFS.
#[tokio::test]
async fn archives_that_others_wrote_are_published_to_seaweedfs() {
    let weed = Seaweed::start().await;
    weed.bucket(BUCKET, &[]).await;
    let key = "key = 'world/{z}/{x}/{y}.png'";
    let desk = Desk::new(&weed.endpoint(), &weed.keys(), key, "");
    let names = ["0/0/0.png", "1/0/0.png", "1/0/1.png", "1/1/0.png"];
    for name in names {
        desk.tile(name, format!("\u{89}PNG {name}").as_bytes());
    }
    let metadata = r#"{"name": "w", "format": "png", "minzoom": "0", "maxzoom": "1", "bounds": "-180,-85,180,85"}"#;
    std::fs::write(desk.path("tiles/metadata.json"), metadata).unwrap();
    let (folder, mbtiles, pmtiles) = (
        desk.path("tiles"),
        desk.path("w.mbtiles"),
        desk.path("w.pmtiles"),
    );
    let made = Command::new(program("mb-util"))
        .args([
            "--scheme=xyz",
            "--image_format=png",
            "--silent",
            text(&folder),
            text(&mbtiles),
        ])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    python_says(
        "import sys; from pmtiles.convert import mbtiles_to_pmtiles; mbtiles_to_pmtiles(sys.argv[1], sys.argv[2], 1)",
        &[text(&mbtiles), text(&pmtiles)],
    );
    let s3 = weed.s3();
    let expected: Vec<String> = names.iter().map(|name| format!("world/{name}")).collect();
    desk.publish(&["w.mbtiles"]).await.says("4 uploaded");
    assert_eq!(keys(&s3).await, expected);
    let tile = s3.get_object().bucket(BUCKET).key("world/1/0/1.png");
    let tile = tile.send().await.unwrap();
    assert_eq!(tile.content_type(), Some("image/png"));
    let body = tile.body.collect().await.unwrap().into_bytes();
    assert_eq!(body, "\u{89}PNG 1/0/1.png");
    // The same tiles, whatever they come in.
    desk.publish(&["w.pmtiles"])
        .await
        .says("0 uploaded (0 B), 4 unchanged");
    desk.publish(&["tiles", "--prune"])
        .await
        .says("0 uploaded (0 B), 4 unchanged, 0 removed");

    // An ETag that is no MD5: what was noted with the object decides.
    let body = "\u{89}PNG 0/0/0.png".as_bytes();
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body);
    let hash = hash.as_ref().iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    });
    for (noted, says) in [(hash.as_str(), "0 uploaded"), ("another", "1 uploaded")] {
        let place = |key: &str| (BUCKET.to_owned(), key.to_owned());
        let (bucket, key) = place("world/0/0/0.png");
        let begun = s3.create_multipart_upload().bucket(&bucket).key(&key);
        let begun = begun
            .metadata("tilekeep-sha256", noted)
            .send()
            .await
            .unwrap();
        let id = begun.upload_id().unwrap();
        let part = s3.upload_part().bucket(&bucket).key(&key).upload_id(id);
        let part = part.part_number(1).body(body.to_vec().into()).send().await;
        let part = CompletedPart::builder()
            .part_number(1)
            .set_e_tag(part.unwrap().e_tag)
            .build();
        let all = CompletedMultipartUpload::builder().parts(part).build();
        let done = s3.complete_multipart_upload().bucket(&bucket).key(&key);
        done.upload_id(id)
            .multipart_upload(all)
            .send()
            .await
            .unwrap();
        let head = s3
            .head_object()
            .bucket(&bucket)
            .key(&key)
            .send()
            .await
            .unwrap();
        assert!(head.e_tag().unwrap().contains("-1"), "{:?}", head.e_tag());
        desk.publish(&["tiles"]).await.says(says);
    }
}
