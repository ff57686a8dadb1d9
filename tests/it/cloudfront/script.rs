//! `tilekeep.js` beside CloudFront: `script.mjs` is the page, with a clock of its own.

use std::process::Command;

#[test]
fn the_script_keeps_cloudfronts_cookies_good_and_loads_again_what_was_refused_meanwhile() {
    let root = env!("CARGO_MANIFEST_DIR");
    let done = Command::new("node")
        .arg(format!("{root}/tests/it/cloudfront/script.mjs"))
        .arg(format!("{root}/web/static/tilekeep.js"))
        .output()
        .expect("Node 20 is needed, as for the snippets");
    let said = String::from_utf8_lossy(&done.stdout);
    let errors = String::from_utf8_lossy(&done.stderr);
    assert_eq!(said.trim(), "as it should be", "{errors}");
}
