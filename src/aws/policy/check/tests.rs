use super::super::least::{Hints, Queue, Reader, TilesetNeed, least};
use super::*;

const ROLE: &str = "arn:aws:iam::2:role/tiles";

fn needs() -> Needs {
    let need = |name: &str, prefix: &str| TilesetNeed {
        name: name.into(),
        bucket: "acme".into(),
        pattern: format!("{prefix}*"),
        keys: vec![format!("{prefix}0/0/0.png"), format!("{prefix}5/9/9.png")],
    };
    Needs {
        partition: "aws".into(),
        readers: vec![Reader {
            role: None,
            tilesets: vec![need("world", "world/"), need("sea", "sea/")],
        }],
        queue: None,
        tls: true,
    }
}

const READ: &str = r#"{"Effect":"Allow","Action":"s3:GetObject",
    "Resource":["arn:aws:s3:::acme/world/*","arn:aws:s3:::acme/sea/*"]}"#;
const LIST: &str = r#"{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::acme"}"#;

fn said(statements: &str) -> Vec<String> {
    let text = format!(r#"{{"Version":"2012-10-17","Statement":[{statements}]}}"#);
    lines(&text, &needs())
}

fn lines(text: &str, needs: &Needs) -> Vec<String> {
    let findings = check(text, needs, needs.identities()[0]).unwrap();
    findings.iter().map(ToString::to_string).collect()
}

/// That exactly one thing is wrong with these statements, and that it is said so.
fn only(statements: &str, words: &[&str]) {
    let said = said(statements);
    assert_eq!(said.len(), 1, "{statements}: {said:#?}");
    for word in words {
        assert!(said[0].contains(word), "{word}: {}", said[0]);
    }
}

#[test]
fn what_is_printed_passes() {
    let mut needs = needs();
    needs.queue = Some(Queue {
        arn: "arn:aws:sqs:eu-west-1:1:q".into(),
        role: None,
    });
    needs.readers.push(Reader {
        role: Some((ROLE.into(), Some("id".into()))),
        tilesets: needs.readers[0].tilesets.clone(),
    });
    let hints = Hints {
        kms_keys: vec!["arn:aws:kms:eu-west-1:1:key/k".into()],
        ..Hints::default()
    };
    let printed = least(&needs, &hints);
    for identity in std::iter::once(&printed.main).chain(&printed.roles) {
        let json = identity.policy.to_json();
        assert_eq!(check(&json, &needs, &identity.whose), Ok(vec![]), "{json}");
    }
    // All that the command prints can be handed back too.
    let whole = serde_json::to_string(&printed).unwrap();
    assert_eq!(check(&whole, &needs, Identity::SERVER), Ok(vec![]));
}

#[test]
fn an_archive_is_one_object() {
    let mut needs = needs();
    needs.readers[0].tilesets = vec![TilesetNeed {
        name: "w".into(),
        bucket: "acme".into(),
        pattern: "w.pmtiles".into(),
        keys: vec!["w.pmtiles".into()],
    }];
    let with = |resource: &str| {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":[{LIST},
               {{"Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::acme/{resource}"}}]}}"#
        );
        lines(&text, &needs)
    };
    assert!(with("w.pmtiles").is_empty());
    assert!(with("*")[0].contains("wider than the tilesets' own"));
    assert!(with("w")[1].contains("nothing allows `s3:GetObject` on tileset `w`"));
}

#[test]
fn a_version_that_iam_does_not_know() {
    let text = |version: &str| format!(r#"{{"Version":"{version}","Statement":[{READ},{LIST}]}}"#);
    let said = lines(&text("2026-11-22"), &needs());
    assert_eq!(said.len(), 1);
    assert!(said[0].contains("2026-11-22") && said[0].contains("only 2012-10-17 and 2008-10-17"));
    assert!(lines(&text("2008-10-17"), &needs()).is_empty());
    let none = format!(r#"{{"Statement":[{READ},{LIST}]}}"#);
    assert!(lines(&none, &needs())[0].starts_with("note: `Version` is missing"));
}

#[test]
fn the_bucket_where_objects_are_needed_and_the_reverse() {
    let said = said(&format!(
        r#"{{"Sid":"Tutorial","Effect":"Allow","Action":"s3:GetObject","Resource":"arn:aws:s3:::acme"}},{LIST}"#
    ));
    assert!(
        said[0].starts_with("statement 1 (`Tutorial`): `s3:GetObject` is on the bucket's ARN")
            && said[0].ends_with("write \"arn:aws:s3:::acme/world/*\""),
        "{said:#?}"
    );
    assert_eq!(said.len(), 3, "and each tileset lacks it: {said:#?}");
    let said = self::said(&format!(
        r#"{READ},{{"Effect":"Allow","Action":"s3:ListBucket","Resource":"arn:aws:s3:::acme/world/*"}}"#
    ));
    assert!(
        said[0].contains("statement 2: `s3:ListBucket` is on objects' ARNs")
            && said[0].contains("\"Resource\": \"arn:aws:s3:::acme\""),
        "{said:#?}"
    );
    assert!(said[1].contains("403 instead of 404"), "{said:#?}");
    let both = r#"{"Effect":"Allow","Action":["s3:GetObject","s3:ListBucket"],
        "Resource":["arn:aws:s3:::acme","arn:aws:s3:::acme/world/*","arn:aws:s3:::acme/sea/*"]}"#;
    assert!(self::said(both).is_empty(), "that is a usual form");
}

#[test]
fn more_than_reading_takes() {
    let read = |actions: &str| {
        READ.replace("\"s3:GetObject\"", &format!("[\"s3:GetObject\",{actions}]")) + "," + LIST
    };
    only(
        &read(r#""s3:PutObject""#),
        &["`s3:PutObject` changes", "remove it"],
    );
    only(
        &read(r#""s3:deleteobject""#),
        &["`s3:deleteobject` changes"],
    );
    only(
        &read(r#""s3:GetObjectVersion""#),
        &["more than reading tiles takes"],
    );
    only(
        &read(r#""s3:*""#),
        &[
            "`s3:*` allows",
            "actions more",
            "allow s3:GetObject and s3:ListBucket alone",
        ],
    );
    only(&read(r#""*""#), &["every action of every service"]);
    only(
        &read(r#""dynamodb:PutItem""#),
        &["nothing that reading tiles takes"],
    );
    assert!(said(&read(r#""s3:GetBucketLocation""#)).is_empty());
    let not = r#"{"Effect":"Allow","NotAction":"iam:*","Resource":["arn:aws:s3:::acme","arn:aws:s3:::acme/world/*","arn:aws:s3:::acme/sea/*"]}"#;
    only(not, &["`NotAction` allows every action but these"]);
}

#[test]
fn what_was_misspelt_is_named_with_what_was_meant() {
    for (written, meant) in [
        ("s3:GetObjet", "`s3:GetObject`"),
        ("s3:HeadObject", "`s3:GetObject`"),
        ("s3:ListObjectsV2", "`s3:ListBucket`"),
        ("GetObject", "`s3:GetObject`"),
    ] {
        let more = READ.replace("s3:GetObject", written);
        let said = said(&format!("{READ},{LIST},{more}"));
        assert_eq!(said.len(), 1, "{said:#?}");
        assert!(
            said[0].contains(&format!("did you mean {meant}?")),
            "{said:#?}"
        );
    }
}

#[test]
fn resources_that_are_too_wide_or_elsewhere() {
    let at = |resource: &str| {
        format!(
            r#"{READ},{LIST},{{"Effect":"Allow","Action":"s3:GetObject","Resource":"{resource}"}}"#
        )
    };
    only(&at("*"), &["every bucket there is"]);
    only(&at("arn:aws:s3:::*"), &["wider than the tilesets' own"]);
    only(
        &at("arn:aws:s3:::acme/*"),
        &["wider", "acme/world/*\", \"arn"],
    );
    only(&at("arn:aws:s3:::acme/wor?d/*"), &["wider"]);
    only(
        &at("arn:aws:s3:::acem/world/*"),
        &["did you mean the bucket `acme`?"],
    );
    only(
        &at("arn:aws:s3:::acme/world"),
        &["one object, not all below it"],
    );
    only(
        &at("arn:aws:s3:::acme/other/*"),
        &["nowhere that this configuration reads"],
    );
    only(
        &at("arn:aws-cn:s3:::acme/world/*"),
        &["partition `aws-cn`", "`aws`"],
    );
    only(
        &at("arn:aws:s3:eu-west-1:123456789012:acme/world/*"),
        &["neither", "s3:::acme/world/*"],
    );
    only(&at("s3://acme/world/*"), &["no ARN"]);
    assert!(
        said(&at("arn:aws:s3:::acme/world/2026/*")).is_empty(),
        "narrower"
    );
    let not = format!(
        r#"{LIST},{{"Effect":"Allow","Action":"s3:GetObject","NotResource":"arn:aws:s3:::acme/x"}}"#
    );
    only(&not, &["`NotResource` allows everything but these"]);
}

#[test]
fn what_is_missing_is_named_with_its_arn() {
    only(
        &format!(
            "{},{LIST}",
            READ.replace(",\"arn:aws:s3:::acme/sea/*\"", "")
        ),
        &[
            "nothing allows `s3:GetObject` on tileset `sea`",
            "\"arn:aws:s3:::acme/sea/*\"",
        ],
    );
    only(
        READ,
        &[
            "nothing allows `s3:ListBucket` on bucket `acme`",
            "403 instead of 404",
        ],
    );
    only(
        &format!("{},{LIST}", READ.replace("world/*", "world/5/*")),
        &["on a part of tileset `world` alone", "world/0/0/0.png"],
    );
}

#[test]
fn denials_and_conditions() {
    let and = |more: &str| format!("{READ},{LIST},{more}");
    only(
        &and(r#"{"Effect":"Deny","Action":"s3:Get*","Resource":"arn:aws:s3:::acme/sea/*"}"#),
        &["statement 3: denies `s3:GetObject` on tileset `sea`"],
    );
    let not = said(&and(
        r#"{"Effect":"Deny","NotAction":["s3:GetObject","s3:ListBucket"],"Resource":"*"}"#,
    ));
    assert!(not.is_empty(), "{not:#?}");
    let plain_http = r#"{"Effect":"Deny","Action":"s3:*","Resource":"*","Condition":{"Bool":{"aws:SecureTransport":"false"}}}"#;
    assert!(said(&and(plain_http)).is_empty(), "we come over TLS");
    let vpc = r#"{"Effect":"Deny","Action":"s3:ListBucket","Resource":"*","Condition":{"StringNotEquals":{"aws:SourceVpce":"vpce-1"}}}"#;
    only(
        &and(vpc),
        &[
            "note: statement 3: denies",
            "`aws:SourceVpce`, which is not judged",
        ],
    );
    let list = LIST.replace(
        '}',
        r#","Condition":{"StringLike":{"s3:prefix":"world/*"}}}"#,
    );
    only(
        &format!("{READ},{list}"),
        &[
            "statement 2: allows `s3:ListBucket`",
            "`s3:prefix` that does not hold",
            "take the condition out",
        ],
    );
    let from = READ.replace(
        "]}",
        r#"],"Condition":{"IpAddress":{"aws:SourceIp":"10.0.0.0/8"}}}"#,
    );
    let said = said(&format!("{from},{LIST}"));
    assert!(
        said.iter()
            .all(|s| s.starts_with("note: statement 1: allows")),
        "{said:#?}"
    );
    assert_eq!(said.len(), 2);
}

#[test]
fn what_iam_would_refuse() {
    let and = |more: &str| format!("{READ},{LIST},{more}");
    only(
        &READ
            .replace("{\"Effect\"", "{\"Principal\":\"*\",\"Effect\"")
            .add_list(),
        &["has a `Principal`, which IAM refuses", "remove it"],
    );
    only(
        &and(r#"{"Effect":"allow","Action":"s3:GetObject","Resource":"*"}"#),
        &["no valid `Effect`"],
    );
    only(
        &and(r#"{"Effect":"Deny","Resource":"x"}"#),
        &["has no `Action`"],
    );
    only(
        &READ
            .replace("\"Effect\"", "\"sid\":\"a\",\"Effect\"")
            .add_list(),
        &["refuses `sid`", "write `Sid`"],
    );
    only(
        &READ
            .replace("\"Effect\"", "\"Sid\":\"read tiles\",\"Effect\"")
            .add_list(),
        &["letters and digits alone"],
    );
    let trust = r#"{"Version":"2012-10-17","Statement":{"Effect":"Allow","Principal":{"AWS":"x"},"Action":"sts:AssumeRole"}}"#;
    assert!(lines(trust, &needs())[0].contains("this is a trust policy"));
    let Err(Unusable::NotJson { line, .. }) = check("{\n\"a\": 1,\n}", &needs(), "server") else {
        panic!("not JSON");
    };
    assert_eq!(line, 3);
    for text in ["[]", "{}", r#"{"Statement":"x"}"#] {
        assert!(matches!(
            check(text, &needs(), "server"),
            Err(Unusable::NoPolicy(_))
        ));
    }
}

trait AddList {
    fn add_list(&self) -> String;
}

impl AddList for String {
    fn add_list(&self) -> String {
        format!("{self},{LIST}")
    }
}

#[test]
fn a_callers_policy_is_about_its_roles() {
    let mut needs = needs();
    needs.readers[0].role = Some((ROLE.into(), None));
    let with = |resource: &str| {
        let text = format!(
            r#"{{"Version":"2012-10-17","Statement":{{"Effect":"Allow","Action":"sts:AssumeRole","Resource":"{resource}"}}}}"#
        );
        let findings = check(&text, &needs, Identity::SERVER).unwrap();
        findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(with(ROLE).is_empty());
    assert!(with("*")[0].contains("wider than this configuration needs"));
    let other = with("arn:aws:iam::2:role/other");
    assert!(
        other[0].contains("nothing that this configuration uses"),
        "{other:?}"
    );
    assert!(other[1].contains("the role cannot be assumed"));
}

proptest::proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC*", action in "\\PC{0,12}", resource in "(arn:)?[a-z:*?${}/]{0,20}") {
        let _ = check(&text, &needs(), "server");
        let policy = serde_json::json!({"Statement": {"Effect": "Allow", "Action": action, "Resource": resource}});
        let findings = check(&policy.to_string(), &needs(), "server").unwrap();
        proptest::prop_assert!(!findings.is_empty());
    }
}
