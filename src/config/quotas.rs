//! `[[quotas]]`: classes of people, and what they may spend.

use std::collections::HashSet;
use std::num::NonZeroU32;

use super::section::{Item, Section};

/// One class. What is `None` is not limited.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Its name: a token's or a user's `quota`. No two classes share one.
    pub name: String,
    /// Requests for tiles, a second.
    pub requests_per_second: Option<NonZeroU32>,
    /// How many may come at once; none: five seconds' worth.
    pub burst: Option<NonZeroU32>,
    /// Different tiles within any hour.
    pub distinct_tiles_per_hour: Option<NonZeroU32>,
    /// Whether its people are jobs, which give way to those who look at maps.
    pub background: bool,
}

/// The biggest numbers that are taken: beyond them nothing is limited, and 0 is missing or added by mistake.
const MOST_REQUESTS: i64 = 1_000_000;
const MOST_TILES: i64 = 100_000_000;

impl QuotaConfig {
    /// Reads all classes, in the order of the file: the first is everybody's who has none.
    pub(super) fn read_all(root: &Section<'_>) -> Vec<Self> {
        let mut names = HashSet::new();
        root.list("quotas", |item| Self::read(item, &mut names))
    }

    fn read(item: &Item<'_>, names: &mut HashSet<String>) -> Option<Self> {
        let section = item.table(None)?;
        let name = section.need("name", "name the class, like name = \"viewer\"", |item| {
            let name = item.word()?;
            let part = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
            if name.len() > 64 || !name.bytes().all(part) {
                return item.refuse(
                    "cannot be a class's name",
                    "use a-z, 0-9, `-` and `_`, at most 64 of them",
                );
            }
            if !names.insert(name.clone()) {
                return item.refuse(
                    "is the name of two classes",
                    "give each class a name of its own: a token names its class by it",
                );
            }
            Some(name)
        });
        let number = |key, most| {
            section.read(key, |item| {
                let number = u32::try_from(item.integer(1..=most)?).ok()?;
                NonZeroU32::new(number)
            })
        };
        let requests_per_second = number("requests_per_second", MOST_REQUESTS);
        let burst = number("burst", MOST_REQUESTS);
        let distinct_tiles_per_hour = number("distinct_tiles_per_hour", MOST_TILES);
        let background = section.read("background", Item::switch).unwrap_or(false);
        if section.has("burst") && !section.has("requests_per_second") {
            section.refuse(
                "burst",
                "is how many requests may come at once, but nothing says how many a second",
                "add `requests_per_second`, or remove it",
            );
        }
        // Last: a class without a name has its other keys looked at all the same.
        Some(Self {
            name: name?,
            requests_per_second,
            burst,
            distinct_tiles_per_hour,
            background,
        })
    }
}
