//! `POST /credentials`: who gets them, for what, and for how long.

use std::sync::Arc;
use std::time::Duration;

use http::{Method, StatusCode};
use tilekeep::auth::Claims;
use tilekeep::aws::{AccessKeys, Aws, AwsSettings, CredentialSource};
use tilekeep::config::Config;
use tilekeep::embedded_s3::{Fault, Operation};
use tilekeep::tile::TileFormat;

use super::{BUCKET, ROLE, World, anna, class, is, role, seconds};
use crate::support::{self, spec};

const HOUR: u64 = 3600;

fn with_role(config: &mut Config) {
    config.aws.assume_role = Some(role());
}

fn wish(tileset: &str, seconds: u64) -> String {
    format!(r#"{{"tileset": "{tileset}", "duration_seconds": {seconds}}}"#)
}

async fn lent_for(world: &World, who: &Claims, duration: u64) -> u64 {
    let answer = world
        .post(who, "/credentials", &wish("world", duration))
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let end = seconds(answer.json()["Expiration"].as_str().unwrap());
    end - world.clock.now().secs()
}

#[tokio::test]
async fn they_are_in_the_shape_of_credential_process_and_asked_for_once() {
    let world = World::start(with_role).await;
    let own = world.s3.sts_calls();
    let answer = world
        .post(&anna(), "/credentials", r#"{"tileset": "world"}"#)
        .await;
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.header("cache-control"), "no-store");
    let first = answer.json();
    let names: Vec<_> = first.as_object().unwrap().keys().cloned().collect();
    let mut expected = [
        "Version",
        "AccessKeyId",
        "SecretAccessKey",
        "SessionToken",
        "Expiration",
    ];
    expected.sort_unstable();
    assert_eq!(names, expected);
    assert_eq!(first["Version"], 1);
    let end = world.clock.now().secs() + HOUR;
    assert_eq!(seconds(first["Expiration"].as_str().unwrap()), end);
    // The AWS CLI asks with every command. Another tileset's, another person's, and later ones are others.
    let again = world
        .post(&anna(), "/credentials", &wish("world", HOUR))
        .await;
    assert_eq!(again.json(), first);
    assert_eq!(world.s3.sts_calls(), own + 1);
    let bert = Claims {
        sub: "bert".into(),
        ..anna()
    };
    for (who, tileset) in [(&bert, "world"), (&anna(), "north")] {
        let other = world.post(who, "/credentials", &wish(tileset, HOUR)).await;
        assert_ne!(other.json()["AccessKeyId"], first["AccessKeyId"]);
    }
    world.clock.advance(Duration::from_secs(HOUR / 2 + 1));
    let later = world
        .post(&anna(), "/credentials", &wish("world", HOUR))
        .await;
    assert_ne!(later.json()["AccessKeyId"], first["AccessKeyId"]);
    for (outcome, count) in [("lent", 4), ("remembered", 1)] {
        let series = format!("tilekeep_lent_credentials_total{{outcome=\"{outcome}\"}}");
        assert_eq!(world.metric(&series).await, count, "{outcome}");
    }
}

#[tokio::test]
async fn they_last_as_long_as_asked_or_as_the_role_or_the_session_does() {
    let world = World::start_with(Duration::from_hours(5), None, with_role).await;
    assert_eq!(lent_for(&world, &anna(), 900).await, 900);
    assert_eq!(lent_for(&world, &anna(), 12 * HOUR).await, 5 * HOUR);
    // Found out once: the next person's are one question.
    let asked = world.s3.sts_calls();
    let bert = Claims {
        sub: "bert".into(),
        ..anna()
    };
    assert_eq!(lent_for(&world, &bert, 12 * HOUR).await, 5 * HOUR);
    assert_eq!(world.s3.sts_calls(), asked + 1);

    let short = |seconds: u64| Claims {
        sub: "carl".into(),
        exp: world.clock.now().secs() + seconds,
        ..anna()
    };
    assert_eq!(lent_for(&world, &short(1000), HOUR).await, 1000);
    assert_eq!(lent_for(&world, &short(900), HOUR).await, 900);
    let refused = world
        .post(&short(899), "/credentials", &wish("world", 900))
        .await;
    let why = is(&refused, StatusCode::FORBIDDEN);
    assert!(why.contains("ends in less than 15 minutes"), "{why}");
}

#[tokio::test]
async fn from_a_role_to_a_role_there_is_an_hour() {
    let world = World::start(with_role).await;
    // A server whose own keys are a role's, as on EC2.
    let settings = AwsSettings {
        endpoint_url: Some(world.s3.endpoint_url()),
        sts_endpoint_url: Some(world.s3.endpoint_url()),
        ..AwsSettings::default()
    };
    let owner = CredentialSource::Keys(world.s3.keys().clone());
    let sts = Aws::load(settings, owner).await.unwrap().sts_config();
    let sts = aws_sdk_sts::Client::new(&sts.unwrap());
    let assumed = sts.assume_role().role_arn(ROLE).role_session_name("ec2");
    let keys = assumed.send().await.unwrap().credentials.unwrap();
    let chained = CredentialSource::Keys(AccessKeys {
        access_key_id: keys.access_key_id,
        secret_access_key: keys.secret_access_key,
        session_token: Some(keys.session_token),
    });
    let World { s3, clock, .. } = world;
    let world = World::over(s3, clock, chained, with_role).await;
    let asked = world.s3.sts_calls();
    assert_eq!(lent_for(&world, &anna(), 12 * HOUR).await, HOUR);
    assert_eq!(world.s3.sts_calls(), asked + 2);
    let bert = Claims {
        sub: "bert".into(),
        ..anna()
    };
    assert_eq!(lent_for(&world, &bert, 2 * HOUR).await, HOUR);
    assert_eq!(world.s3.sts_calls(), asked + 3);
}

#[tokio::test]
async fn they_read_and_list_the_tilesets_prefix_alone() {
    let world = World::start(with_role).await;
    let lent = world
        .post(&anna(), "/credentials", &wish("world", HOUR))
        .await;
    let lent = lent.json();
    let text = |name: &str| lent[name].as_str().unwrap().to_owned();
    let keys = aws_credential_types::Credentials::new(
        text("AccessKeyId"),
        text("SecretAccessKey"),
        Some(text("SessionToken")),
        None,
        "lent",
    );
    let settings = aws_sdk_s3::Config::builder()
        .behavior_version(aws_sdk_s3::config::BehaviorVersion::latest())
        .region(aws_sdk_s3::config::Region::new("eu-west-1"))
        .endpoint_url(world.s3.endpoint_url())
        .force_path_style(true)
        .credentials_provider(keys);
    let s3 = aws_sdk_s3::Client::from_conf(settings.build());
    let get = async |key: &str| {
        let get = s3.get_object().bucket(BUCKET).key(key);
        get.send().await.is_ok()
    };
    assert!(get("world/0/0/0.png").await);
    assert!(!get("north/0/0/0.png").await);
    let list = async |prefix: &str| {
        let list = s3.list_objects_v2().bucket(BUCKET).prefix(prefix);
        list.send().await.map(|l| l.key_count().unwrap()).ok()
    };
    assert_eq!(list("world/").await, Some(4));
    assert_eq!(list("world/1/").await, Some(3));
    assert_eq!((list("").await, list("north/").await), (None, None));
    let put = s3.put_object().bucket(BUCKET).key("world/0/0/0.png");
    assert!(put.send().await.is_err());
}

#[tokio::test]
async fn who_is_limited_gets_none_and_hears_why() {
    let world = World::start(|config| {
        with_role(config);
        config.quotas = vec![class("free", 0), class("viewer", 9)];
    })
    .await;
    let all = anna();
    let body = wish("world", HOUR);
    let own = world.s3.sts_calls();
    for (who, words) in [
        (
            Claims {
                maxzoom: Some(22),
                ..all.clone()
            },
            "`maxzoom`",
        ),
        (
            Claims {
                bounds: Some([-180.0, -85.0, 180.0, 85.0]),
                ..all.clone()
            },
            "`bounds`",
        ),
        (
            Claims {
                quota: Some("viewer".into()),
                ..all.clone()
            },
            "`distinct_tiles_per_hour`",
        ),
        (
            Claims {
                scope: Some("tiles sign".into()),
                ..all.clone()
            },
            "scope `credentials`",
        ),
    ] {
        let refused = world.post(&who, "/credentials", &body).await;
        let why = is(&refused, StatusCode::FORBIDDEN);
        assert!(why.contains(words), "{why}");
    }
    let elsewhere = Claims {
        tilesets: vec!["north".into()],
        scope: Some("tiles".into()),
        ..all.clone()
    };
    for tileset in ["world", "nowhere"] {
        let refused = world
            .post(&elsewhere, "/credentials", &wish(tileset, HOUR))
            .await;
        is(&refused, StatusCode::NOT_FOUND);
    }
    for body in [
        "",
        "{}",
        r#"{"tileset": "world", "duration_seconds": 899}"#,
        r#"{"tileset": "world", "duration_seconds": 43201}"#,
        r#"{"tileset": "world", "seconds": 900}"#,
    ] {
        let refused = world.post(&all, "/credentials", body).await;
        is(&refused, StatusCode::BAD_REQUEST);
    }
    let nobody = world
        .server
        .send(Method::POST, "/credentials", &[], body.clone())
        .await;
    is(&nobody, StatusCode::UNAUTHORIZED);
    let get = world
        .server
        .send(Method::GET, "/credentials", &[], "")
        .await;
    is(&get, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(get.header("allow"), "POST, OPTIONS");
    assert_eq!(world.s3.sts_calls(), own, "STS was asked for nobody");
    let free = Claims {
        quota: Some("free".into()),
        ..all
    };
    let lent = world.post(&free, "/credentials", &body).await;
    assert_eq!(lent.status, StatusCode::OK, "{lent:?}");
}

#[tokio::test]
async fn a_prefix_that_holds_others_tiles_is_for_those_who_may_see_them() {
    let world = World::start(|config| {
        with_role(config);
        let mut inner = spec("inner", TileFormat::Png);
        inner.key = "world/inner/{z}/{x}/{y}.png".into();
        let mut root = spec("root", TileFormat::Png);
        root.bucket = "another".into();
        root.key = "{z}/{x}/{y}.png".into();
        let more = support::config([inner, root]);
        config.tilesets.extend(more.tilesets);
    })
    .await;
    let only = |names: &[&str]| Claims {
        tilesets: names.iter().map(|&name| name.to_owned()).collect(),
        ..anna()
    };
    let body = wish("world", HOUR);
    let refused = world.post(&only(&["world"]), "/credentials", &body).await;
    let why = is(&refused, StatusCode::FORBIDDEN);
    assert!(why.contains("same prefix"), "{why}");
    let both = world
        .post(&only(&["world", "inner"]), "/credentials", &body)
        .await;
    assert_eq!(both.status, StatusCode::OK);
    let root = world
        .post(&anna(), "/credentials", &wish("root", HOUR))
        .await;
    let why = is(&root, StatusCode::NOT_IMPLEMENTED);
    assert!(why.contains("does not begin with a folder"), "{why}");
}

#[tokio::test]
async fn without_a_role_it_is_said_what_to_configure() {
    let world = World::start(|_| {}).await;
    let refused = world
        .post(&anna(), "/credentials", &wish("world", HOUR))
        .await;
    let why = is(&refused, StatusCode::NOT_IMPLEMENTED);
    assert!(why.contains("`assume_role`"), "{why}");
    // A tileset's own role will do.
    let world = World::start(|config| config.tilesets[0].assume_role = Some(role())).await;
    assert_eq!(lent_for(&world, &anna(), HOUR).await, HOUR);
}

#[tokio::test]
async fn sts_in_trouble_is_told_and_never_waited_for_without_end() {
    let world = Arc::new(World::start(with_role).await);
    let body = wish("world", HOUR);
    world
        .s3
        .inject(Some(Operation::Sts), usize::MAX, Fault::NeverAnswer);
    let many = (0..40).map(|n| {
        let (world, body) = (world.clone(), body.clone());
        let who = Claims {
            sub: format!("job {n}"),
            ..anna()
        };
        tokio::spawn(async move { world.post(&who, "/credentials", &body).await })
    });
    let many: Vec<_> = many.collect();
    let (mut busy, mut late) = (0, 0);
    for answer in many {
        let answer = answer.await.unwrap();
        match answer.status {
            StatusCode::SERVICE_UNAVAILABLE => busy += 1,
            StatusCode::GATEWAY_TIMEOUT => late += 1,
            _ => panic!("{answer:?}"),
        }
        assert!(!answer.header("retry-after").is_empty());
    }
    assert_eq!((busy, late), (8, 32));
    world.s3.clear_faults();
    let lent = world.post(&anna(), "/credentials", &body).await;
    assert_eq!(lent.status, StatusCode::OK, "{lent:?}");

    // A trust policy that names somebody else: the role's name is for the log.
    let stranger = World::start(|config| {
        let mut role = role();
        role.arn = format!("{ROLE}-of-others");
        config.tilesets[0].assume_role = Some(role);
    })
    .await;
    let refused = stranger
        .post(&anna(), "/credentials", &wish("world", HOUR))
        .await;
    let why = is(&refused, StatusCode::BAD_GATEWAY);
    assert!(
        why.contains("STS refused") && !why.contains("role/"),
        "{why}"
    );
}
