//! The origins' contract, every sentence of it, over servers that nobody here wrote.
//!
//! The objects, their validators and dates, 304s and missing keys are the servers' own. Of the troubles, `SeaweedFS`
//! denies by itself (a wrong secret); those that a server cannot be asked for (throttling, internal errors, cut,
//! reset and silent connections) come from a relay in between, and so does `MiniStack`'s denial, which checks no
//! signatures.

use std::sync::Mutex;

use aws_sdk_s3::Client;
use tilekeep::aws::AccessKeys;
use tilekeep::origin::s3::S3Origin;
use tilekeep::origin::{Origin, OriginErrorKind};
use tilekeep::tile::{Scale, TileCoord, Tileset};

use super::relay::Relay;
use super::{client_of, origin_at, port_of};
use crate::origin_contract::{self as contract, BUCKET, Subject, sentences};
use crate::peers::{MiniStack, Seaweed};

/// A bucket of a server, read by way of the relay.
struct Real {
    endpoint: String,
    keys: AccessKeys,
    relay: Relay,
    origin: S3Origin,
    /// With keys that the server refuses, if it does.
    refused: Option<S3Origin>,
    denied: Mutex<bool>,
    /// Keys that were put and are there.
    written: Mutex<Vec<String>>,
}

impl Real {
    async fn new(endpoint: String, keys: AccessKeys, checks_signatures: bool) -> Self {
        let relay = Relay::start(port_of(&endpoint)).await;
        let origin = origin_at(&relay.endpoint(), keys.clone()).await;
        let wrong = AccessKeys {
            secret_access_key: "not the secret of this key".into(),
            ..keys.clone()
        };
        let refused = if checks_signatures {
            Some(origin_at(&relay.endpoint(), wrong).await)
        } else {
            None
        };
        Self {
            endpoint,
            keys,
            relay,
            origin,
            refused,
            denied: Mutex::new(false),
            written: Mutex::default(),
        }
    }

    /// Has the administrator do something, on a thread of its own: the sentences' bucket knows no waiting.
    fn administer<F: Future>(&self, work: impl FnOnce(Client) -> F + Send) -> F::Output
    where
        F::Output: Send,
    {
        let (endpoint, keys) = (&self.endpoint, &self.keys);
        std::thread::scope(|scope| {
            let done = scope.spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                runtime.unwrap().block_on(work(client_of(endpoint, keys)))
            });
            done.join().unwrap()
        })
    }

    fn delete(&self, key: &str) {
        self.administer(async |s3| {
            let delete = s3.delete_object().bucket(BUCKET).key(key);
            delete.send().await.unwrap();
        });
    }

    /// For the next sentence.
    fn empty(&self) {
        self.heal();
        let written = std::mem::take(&mut *self.written.lock().unwrap());
        for key in written {
            self.delete(&key);
        }
    }
}

impl Subject for Real {
    fn origin(&self) -> &dyn Origin {
        match &self.refused {
            Some(refused) if *self.denied.lock().unwrap() => refused,
            _ => &self.origin,
        }
    }

    fn put(&self, tileset: &Tileset, coord: TileCoord, body: &'static [u8]) {
        let key = tileset.place().key.key(coord, Scale::One);
        self.administer(async |s3| {
            let put = s3.put_object().bucket(BUCKET).key(&key);
            put.body(body.to_vec().into()).send().await.unwrap();
        });
        self.written.lock().unwrap().push(key);
    }

    fn remove(&self, tileset: &Tileset, coord: TileCoord) {
        self.delete(&tileset.place().key.key(coord, Scale::One));
    }

    fn trouble(&self, kind: OriginErrorKind) {
        let by_itself = kind == OriginErrorKind::Denied && self.refused.is_some();
        *self.denied.lock().unwrap() = by_itself;
        self.relay.set((!by_itself).then_some(kind));
    }

    fn heal(&self) {
        *self.denied.lock().unwrap() = false;
        self.relay.set(None);
    }
}

macro_rules! one_after_another {
    ($($sentence:ident),+ $(,)?) => {
        /// A sentence that does not hold is told by what stands on the last line.
        async fn every_sentence(real: &Real) {
            let bucket = async |s3: Client| { s3.create_bucket().bucket(BUCKET).send().await.map(|_| ()) };
            real.administer(bucket).unwrap();
            $(
                println!("{}", stringify!($sentence));
                contract::$sentence(real).await;
                real.empty();
            )+
        }
    };
}
sentences!(one_after_another);

#[tokio::test]
async fn every_sentence_of_the_contract_holds_over_seaweedfs() {
    let seaweed = Seaweed::start().await;
    let real = Real::new(seaweed.endpoint(), seaweed.keys(), true).await;
    every_sentence(&real).await;
}

#[tokio::test]
async fn every_sentence_of_the_contract_holds_over_ministack() {
    let stack = MiniStack::start().await;
    let keys = AccessKeys {
        access_key_id: "test".into(),
        secret_access_key: "test".into(),
        session_token: None,
    };
    let real = Real::new(stack.endpoint(), keys, false).await;
    every_sentence(&real).await;
}
