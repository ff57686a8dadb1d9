//! A tileset's version, switched while the server runs: who follows a switch, and which of two counts.
//!
//! Invariant: what a node serves is a function of its configuration and the newest switch that it knows, in whatever
//! order it heard of them. A switch names the versions that it replaces. A node whose configured version is among
//! them goes along; one that is configured with any other keeps its own: somebody wrote that later, or on purpose.

use serde::{Deserialize, Serialize};

use super::tileset::valid_version;
use crate::clock::Timestamp;

/// Replaced versions that are remembered. The configured one is the newest of them at each switch, so that it does
/// not fall out, however often there is something new and however seldom somebody edits the file.
const MOST_REPLACED: usize = 256;
/// A later time than this is nobody's clock: the end of the year 9999.
const LATEST: u64 = 253_402_300_799_000;

/// The version that a tileset was switched to, and which it replaces.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionSwitch {
    to: String,
    replaced: Vec<String>,
    /// Milliseconds since the epoch; of two switches the later one counts.
    at: u64,
}

impl VersionSwitch {
    /// The switch to `to`, after the last that is known, at a node that is configured with a version and serves one.
    pub(super) fn after(
        last: Option<&Self>,
        (configured, current): (&str, &str),
        to: &str,
        now: Timestamp,
    ) -> Self {
        let mut replaced: Vec<String> = Vec::new();
        let known = last.map_or(&[][..], |last| &last.replaced).iter();
        let known = known.chain(last.map(|last| &last.to)).map(String::as_str);
        for version in known.chain([current, configured]) {
            replaced.retain(|other| other != version);
            replaced.push(version.to_owned());
        }
        replaced.retain(|version| version != to);
        let surplus = replaced.len().saturating_sub(MOST_REPLACED);
        replaced.drain(..surplus);
        // After the last also by a clock that is behind.
        let after_last = last.map_or(0, |last| last.at + 1);
        Self {
            to: to.to_owned(),
            replaced,
            at: now.millis().max(after_last),
        }
    }

    /// As it came from another node, which may be anybody who can write there.
    pub fn parse(json: &[u8]) -> Option<Self> {
        let switch: Self = serde_json::from_slice(json).ok()?;
        let mut versions = std::iter::once(&switch.to).chain(&switch.replaced);
        let sound = switch.at <= LATEST
            && switch.replaced.len() <= MOST_REPLACED
            && versions.all(|version| valid_version(version));
        sound.then_some(switch)
    }

    /// As other nodes read it.
    pub fn to_json(&self) -> String {
        // Strings and a number: there is nothing that JSON could not say.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// What a node that is configured with this version serves.
    pub fn effective<'s>(&'s self, configured: &'s str) -> &'s str {
        let replaces = self.replaced.iter().any(|version| version == configured);
        if replaces { &self.to } else { configured }
    }

    /// Which of two counts, the same everywhere.
    pub fn is_later_than(&self, other: &Self) -> bool {
        (self.at, &self.to, &self.replaced) > (other.at, &other.to, &other.replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_secs(1_000);

    fn switch(last: Option<&VersionSwitch>, node: (&str, &str), to: &str) -> VersionSwitch {
        VersionSwitch::after(last, node, to, NOW)
    }

    #[test]
    fn who_is_configured_with_a_replaced_version_goes_along_and_others_stay() {
        let first = switch(None, ("1", "1"), "2");
        assert_eq!((first.effective("1"), first.effective("2")), ("2", "2"));
        assert_eq!(first.effective("9"), "9", "somebody's newer configuration");
        let second = switch(Some(&first), ("1", "2"), "3");
        assert_eq!((second.effective("1"), second.effective("2")), ("3", "3"));
        assert!(second.is_later_than(&first), "by a clock that stands still");
        let back = switch(Some(&second), ("1", "3"), "2");
        let there = ["1", "2", "3"].map(|configured| back.effective(configured));
        assert_eq!(there, ["2", "2", "2"]);
        let home = switch(Some(&back), ("1", "2"), "1");
        assert_eq!((home.effective("1"), home.effective("3")), ("1", "1"));
    }

    #[test]
    fn a_node_with_a_version_of_its_own_takes_the_others_along_when_it_is_asked_to_switch() {
        let theirs = switch(None, ("1", "1"), "2");
        let own = switch(Some(&theirs), ("5", "5"), "6");
        let there = ["1", "2", "5"].map(|configured| own.effective(configured));
        assert_eq!(there, ["6", "6", "6"]);
    }

    #[test]
    fn the_configured_version_is_remembered_however_often_there_is_a_new_one() {
        let mut last = switch(None, ("0", "0"), "1");
        for n in 1..1_000 {
            last = switch(Some(&last), ("0", &n.to_string()), &(n + 1).to_string());
        }
        assert_eq!((last.effective("0"), last.replaced.len()), ("1000", 256));
        assert_eq!(last.effective("999"), "1000");
    }

    #[test]
    fn what_comes_from_elsewhere_is_looked_at() {
        let good = switch(None, ("1", "1"), "2");
        assert_eq!(VersionSwitch::parse(good.to_json().as_bytes()), Some(good));
        for bad in [
            "",
            "{}",
            "[]",
            r#"{"to":"a/b","replaced":[],"at":1}"#,
            r#"{"to":"","replaced":[],"at":1}"#,
            r#"{"to":"a","replaced":["\n"],"at":1}"#,
            r#"{"to":"a","replaced":[],"at":18446744073709551615}"#,
            r#"{"to":"a","replaced":[],"at":-1}"#,
        ] {
            assert_eq!(VersionSwitch::parse(bad.as_bytes()), None, "{bad}");
        }
    }
}
