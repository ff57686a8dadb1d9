//! Reading a table key by key: a [`Section`] hands out [`Item`]s and remembers which keys were asked for.
//!
//! Invariant: every key of the file was asked for, or is reported as unknown when its
//! section is dropped; a value that is refused counts as absent and reading goes on, so that one pass finds
//! every problem. What values may look like is in `item.rs`.

use std::cell::RefCell;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use super::problem::{Problem, join, locate};

/// What of the machine a configuration may look at.
#[derive(Clone, Copy)]
pub struct Surroundings<'a> {
    /// The folder that relative paths start from: the file's own.
    pub folder: &'a Path,
    /// Environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
}

/// One file under reading: its text, and what was found to be wrong.
pub(super) struct Reader<'a> {
    text: &'a str,
    pub(super) around: Surroundings<'a>,
    /// Whether a secret that is not at hand counts as absent rather than as a problem.
    pub(super) without_secrets: bool,
    problems: RefCell<Vec<Problem>>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str, around: Surroundings<'a>) -> Self {
        Self {
            text,
            around,
            without_secrets: false,
            problems: RefCell::default(),
        }
    }

    /// The same, for who needs no secrets.
    pub(super) fn without_secrets(self) -> Self {
        Self {
            without_secrets: true,
            ..self
        }
    }

    /// What was found.
    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems.into_inner()
    }

    /// Notes a problem. A key that has one already gets no second: it may only be an echo of the first.
    fn refuse(&self, section: &str, key: &str, at: Option<usize>, what: String, remedy: String) {
        let mut problems = self.problems.borrow_mut();
        if problems
            .iter()
            .any(|p| p.section == section && p.key == key)
        {
            return;
        }
        let place = at.map(|at| locate(self.text, at));
        problems.push(Problem {
            line: place.map(|(line, _)| line),
            column: place.map(|(_, column)| column),
            section: section.to_owned(),
            key: key.to_owned(),
            what,
            remedy,
            excerpt: String::new(),
        });
    }
}

/// A table, or the empty one where the file has none.
pub(super) struct Section<'a> {
    reader: &'a Reader<'a>,
    /// The path of the section that it is in, and its name there.
    name: (String, String),
    /// Its path as written: `tilesets.world`.
    path: String,
    /// Its path as documented: `tilesets.*`.
    kind: String,
    at: Option<usize>,
    table: Option<&'a DeTable<'a>>,
    asked: RefCell<Vec<&'static str>>,
    /// Whether any key is right here, as in `[tilesets]`.
    open: bool,
}

impl<'a> Section<'a> {
    /// The whole file.
    pub(super) fn root(reader: &'a Reader<'a>, table: &'a DeTable<'a>) -> Self {
        Self::new(reader, ("", ""), String::new(), None, Some(table))
    }

    fn new(
        reader: &'a Reader<'a>,
        (parent, name): (&str, &str),
        kind: String,
        at: Option<usize>,
        table: Option<&'a DeTable<'a>>,
    ) -> Self {
        Self {
            reader,
            name: (parent.to_owned(), name.to_owned()),
            path: join(parent, name),
            kind,
            at,
            table,
            asked: RefCell::default(),
            open: false,
        }
    }

    /// The key's value, unless absent.
    fn item(&self, key: &'static str) -> Option<Item<'a>> {
        self.asked.borrow_mut().push(key);
        let value = self.table?.get(key)?;
        Some(Item {
            reader: self.reader,
            section: self.path.clone(),
            kind: self.kind.clone(),
            key: key.to_owned(),
            at: value.span().start,
            value: value.get_ref(),
        })
    }

    /// The key's value as `read` takes it; `None` where it is absent or refused.
    pub(super) fn read<T>(
        &self,
        key: &'static str,
        read: impl FnOnce(&Item<'a>) -> Option<T>,
    ) -> Option<T> {
        read(&self.item(key)?)
    }

    /// As [`Section::read`]; an absent key is a problem, with this remedy.
    pub(super) fn need<T>(
        &self,
        key: &'static str,
        remedy: &str,
        read: impl FnOnce(&Item<'a>) -> Option<T>,
    ) -> Option<T> {
        let value = self.read(key, read);
        if !self.has(key) {
            self.refuse(key, "is missing", remedy);
        }
        value
    }

    /// The array under this key, element by element; empty where it is absent.
    pub(super) fn list<T>(
        &self,
        key: &'static str,
        read: impl FnMut(&Item<'a>) -> Option<T>,
    ) -> Vec<T> {
        let items = self.read(key, Item::elements).unwrap_or_default();
        items.iter().filter_map(read).collect()
    }

    /// How many elements the file has in the array under this key, refused or not.
    pub(super) fn count(&self, key: &str) -> usize {
        let value = self.table.and_then(|table| table.get(key));
        value
            .and_then(|value| value.get_ref().as_array())
            .map_or(0, |array| array.len())
    }

    /// The table under this key; the empty one where it is absent.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        self.read(key, |item| item.table(None)).unwrap_or_else(|| {
            Section::new(
                self.reader,
                (&self.path, key),
                join(&self.kind, key),
                None,
                None,
            )
        })
    }

    /// Every table in this one, under whatever names, in the order of the file.
    pub(super) fn sections(&mut self) -> Vec<(String, Section<'a>)> {
        self.open = true;
        let mut sections: Vec<_> = self
            .table
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| {
                let item = Item {
                    reader: self.reader,
                    section: self.path.clone(),
                    kind: self.kind.clone(),
                    key: key.get_ref().to_string(),
                    at: key.span().start,
                    value: value.get_ref(),
                };
                Some((key.get_ref().to_string(), item.table(Some("*"))?))
            })
            .collect();
        sections.sort_by_key(|(_, section)| section.at);
        sections
    }

    /// Whether the file has nothing here.
    pub(super) fn is_empty(&self) -> bool {
        self.table.is_none_or(DeTable::is_empty)
    }

    /// Whether the file has this key here, refused or not.
    pub(super) fn has(&self, key: &str) -> bool {
        self.table.is_some_and(|table| table.contains_key(key))
    }

    /// Notes a problem with a key: at its value, or at the section's head where the file has no such key.
    pub(super) fn refuse(&self, key: &str, what: impl Into<String>, remedy: impl Into<String>) {
        let value = self.table.and_then(|table| table.get_key_value(key));
        let at = value.map(|(key, _)| key.span().start).or(self.at);
        self.reader
            .refuse(&self.path, key, at, what.into(), remedy.into());
    }

    /// Notes a problem with the section as a whole, under the name that it has in its parent.
    pub(super) fn refuse_whole(&self, what: impl Into<String>, remedy: impl Into<String>) {
        let (parent, name) = &self.name;
        self.reader
            .refuse(parent, name, self.at, what.into(), remedy.into());
    }
}

impl Drop for Section<'_> {
    fn drop(&mut self) {
        if self.open {
            return;
        }
        let asked = self.asked.borrow();
        for (key, _) in self.table.into_iter().flatten() {
            let name: &str = key.get_ref();
            if asked.contains(&name) {
                continue;
            }
            let remedy = match nearest(name, asked.iter().copied()) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("remove it, or use one of {}", list(&asked)),
            };
            self.refuse(name, "is not a key here", remedy);
        }
    }
}

/// The word that was probably meant.
pub(super) fn nearest<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let close = |known: &&str| strsim::damerau_levenshtein(&word.to_lowercase(), known);
    let best = known.into_iter().min_by_key(close)?;
    // A third of the letters may be wrong, and two always.
    (close(&best) <= (best.len() / 3).max(2) && close(&best) < best.len()).then_some(best)
}

/// Words as one writes them in a sentence.
pub(super) fn list(words: &[&str]) -> String {
    let quoted: Vec<_> = words.iter().map(|word| format!("`{word}`")).collect();
    quoted.join(", ")
}

/// One value, and where it stands.
pub(super) struct Item<'a> {
    pub(super) reader: &'a Reader<'a>,
    section: String,
    kind: String,
    key: String,
    at: usize,
    pub(super) value: &'a DeValue<'a>,
}

impl<'a> Item<'a> {
    /// Notes a problem with this value. `None`, so that a reading can end with it.
    pub(super) fn refuse<T>(
        &self,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Option<T> {
        self.reader.refuse(
            &self.section,
            &self.key,
            Some(self.at),
            what.into(),
            remedy.into(),
        );
        None
    }

    /// The elements of an array.
    pub(super) fn elements(&self) -> Option<Vec<Item<'a>>> {
        let Some(array) = self.value.as_array() else {
            return self.wrong_type("an array", "put it in [ ]");
        };
        let element = |(index, value): (usize, &'a toml::Spanned<DeValue<'a>>)| Item {
            reader: self.reader,
            section: self.section.clone(),
            kind: self.kind.clone(),
            key: format!("{}[{index}]", self.key),
            at: value.span().start,
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// The table that this is, documented under `kind` where that is not its own name.
    pub(super) fn table(&self, kind: Option<&str>) -> Option<Section<'a>> {
        let Some(table) = self.value.as_table() else {
            return self.wrong_type(
                "a table",
                format!(
                    "write [{}] and its keys below, or {{ … }}",
                    join(&self.section, &self.key)
                ),
            );
        };
        Some(Section::new(
            self.reader,
            (&self.section, &self.key),
            join(&self.kind, kind.unwrap_or(&self.key)),
            Some(self.at),
            Some(table),
        ))
    }

    /// Says what was wanted and what was found.
    pub(super) fn wrong_type<T>(&self, wanted: &str, remedy: impl Into<String>) -> Option<T> {
        let found = match self.value {
            DeValue::Integer(_) => "an integer".to_owned(),
            DeValue::Array(_) => "an array".to_owned(),
            other => format!("a {}", other.type_str()),
        };
        self.refuse(format!("is {found}, not {wanted}"), remedy)
    }
}
