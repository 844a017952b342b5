//! Reading a mapping key by key. What is read is also kept as YAML, defaults included, and in the end every
//! key that nobody asked for is an error: so the code that reads a key is all that makes it known, and what that code
//! says of the key is all that the reference tells.

use std::{cell::RefCell, collections::HashMap};

use super::{
    document::{Content, Entry, Node},
    error::{Fault, Place, Spot, quoted},
    filled::{Filled, Mapping, yaml_list, yaml_scalar, yaml_value},
    format::Format,
    key::{KeyDescription, Missing},
    spelling::nearest,
};

/// What the reading of a configuration leaves behind besides its values; shared by all its sections.
#[derive(Default)]
pub(super) struct Notes {
    /// The faults found so far.
    faults: RefCell<Vec<Fault>>,
    /// The keys asked for so far, in this order, where somebody wants to know.
    keys: Option<RefCell<Vec<KeyDescription>>>,
}

impl Notes {
    /// Notes that describe every key that is asked for, too.
    pub(super) fn with_keys() -> Self {
        Self { keys: Some(RefCell::default()), ..Self::default() }
    }

    pub(super) fn into_faults(self) -> Vec<Fault> {
        self.faults.into_inner()
    }

    /// None, where they were not asked for.
    pub(super) fn into_keys(self) -> Vec<KeyDescription> {
        self.keys.map(RefCell::into_inner).unwrap_or_default()
    }
}

/// A mapping that is being read.
pub(super) struct Section<'a> {
    spot: Spot,
    source: Source<'a>,
    asked: Vec<&'static str>,
    filled: Vec<(&'static str, Filled)>,
    notes: &'a Notes,
}

/// Where a section's values are written.
#[derive(Clone, Copy)]
enum Source<'a> {
    /// Nowhere: all is default.
    Absent,
    Mapping(&'a [Entry]),
    /// The section is written as the value of this one key.
    Short(&'static str, &'a Node),
}

/// A key of a section that is about to be read: its name, and what it means, for the reference.
pub(super) struct Key<'s, 'a> {
    section: &'s mut Section<'a>,
    name: &'static str,
    meaning: &'static str,
}

impl<'a> Key<'_, 'a> {
    /// The value, or its default.
    pub(super) fn value<F: Format>(self, default: F::Value, format: &F) -> F::Value {
        self.describe(|| (format.allowed(), Missing::Default(yaml_scalar(&format.write(&default)))));
        let Self { section, name, .. } = self;
        if let Some(node) = section.ask(name) {
            return section.scalar(name, node, format).unwrap_or(default);
        }
        section.fill(name, Filled::Scalar(yaml_value(format, &default)));
        default
    }

    /// The value, which may be missing.
    pub(super) fn optional<F: Format>(self, format: &F) -> Option<F::Value> {
        self.describe(|| (format.allowed(), Missing::Unset));
        let node = self.section.ask(self.name)?;
        self.section.scalar(self.name, node, format)
    }

    /// The value, which must be there.
    pub(super) fn required<F: Format>(self, format: &F) -> Option<F::Value> {
        self.describe(|| (format.allowed(), Missing::Refused));
        let Self { section, name, .. } = self;
        let Some(node) = section.ask(name) else {
            section.fault(name, format!("missing, allowed: {}", format.allowed()));
            return None;
        };
        section.scalar(name, node, format)
    }

    /// The values of a list, or the default ones. Those stand in for a list with a bad value, too.
    pub(super) fn list<F: Format<Value: Clone>>(self, default: Vec<F::Value>, format: &F) -> Vec<F::Value> {
        let values: Option<Vec<_>> = self.items(&default, format).into_iter().collect();
        values.unwrap_or(default)
    }

    /// The values of a list, or the default ones. Where one is bad there is none.
    pub(super) fn items<F: Format<Value: Clone>>(self, default: &[F::Value], format: &F) -> Vec<Option<F::Value>> {
        let written = || default.iter().map(|value| yaml_value(format, value)).collect::<Vec<_>>();
        let allowed = || format!("a list [...], each {}", format.allowed());
        self.describe(|| (allowed(), Missing::Default(yaml_list(&written()))));
        let Self { section, name, .. } = self;
        let Some(node) = section.ask(name) else {
            section.fill(name, Filled::Scalars(written()));
            return default.iter().cloned().map(Some).collect();
        };
        let Content::List(items) = &node.content else {
            section.fault(name, format!("found {}, allowed: {}", found(node), allowed()));
            return Vec::new();
        };
        let read = |(index, item)| section.scalar_at(section.item_spot(name, index, item), item, format);
        let values: Vec<_> = items.iter().enumerate().map(read).collect();
        section.fill(name, Filled::Scalars(values.iter().flatten().map(|value| yaml_value(format, value)).collect()));
        values
    }

    /// A mapping; where it is missing, all its values are default.
    pub(super) fn section<T>(self, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        self.describe(|| ("keys and values".to_owned(), Missing::Inner));
        self.section.inner(self.name, None, read)
    }

    /// A mapping that may also be written as the value of its key `short` alone.
    pub(super) fn short_section<T>(self, short: &'static str, read: impl FnOnce(&mut Section<'a>) -> T) -> T {
        self.describe(|| (format!("keys and values, or the value of `{short}` alone"), Missing::Inner));
        self.section.inner(self.name, Some(short), read)
    }

    /// A list of mappings, each of which may also be written as the value of its key `short` alone; a single one needs
    /// no list. There may be `most` of them.
    pub(super) fn sections<T>(
        self,
        short: Option<&'static str>,
        most: usize,
        mut read: impl FnMut(&mut Section<'a>) -> T,
    ) -> Vec<T> {
        self.describe(|| {
            let short = short.map_or_else(String::new, |short| format!(", or the value of `{short}` alone"));
            (format!("a list of 1 to {most}, each keys and values{short}; a single one needs no list"), Missing::Inner)
        });
        let Self { section, name, .. } = self;
        let Some(Node { content: Content::List(items), .. }) = section.ask(name) else {
            return vec![section.inner(name, short, read)];
        };
        if !(1..=most).contains(&items.len()) {
            section.fault(name, format!("found a list of {}, allowed: 1 to {most}", items.len()));
        }
        let (values, filled) = items
            .iter()
            .enumerate()
            .take(most)
            .map(|(index, item)| {
                let spot = section.item_spot(name, index, item);
                Section::read(spot, Some(item), short, section.notes, &mut read)
            })
            .unzip();
        section.fill(name, Filled::Mappings(filled));
        values
    }

    /// Nothing: the work behind this key is still to come. It is refused, never ignored; `off` is what it is without.
    pub(super) fn not_yet(self) {
        self.describe(|| ("off; it is not supported yet".to_owned(), Missing::Default("off".to_owned())));
        let is_off =
            |node: &Node| matches!(&node.content, Content::Scalar(text) | Content::Quoted(text) if text == "off");
        if self.section.ask(self.name).is_some_and(|node| !is_off(node)) {
            let message = format!("{} is not supported yet; take this key out", self.meaning);
            self.section.fault(self.name, message);
        }
    }

    fn describe(&self, told: impl FnOnce() -> (String, Missing)) {
        if let Some(keys) = &self.section.notes.keys {
            let (allowed, missing) = told();
            let path = self.section.path(self.name);
            keys.borrow_mut().push(KeyDescription { path, meaning: self.meaning, allowed, missing });
        }
    }
}

impl<'a> Section<'a> {
    /// Reads the whole of a configuration by `read`; told is also how it is written with its defaults filled in.
    pub(super) fn read_root<T>(root: &'a Node, notes: &'a Notes, read: impl FnOnce(&mut Self) -> T) -> (T, Mapping) {
        let spot = Spot { place: root.place, path: String::new() };
        Self::read(spot, Some(root), None, notes, read)
    }

    /// A key that may stand here, to be read next. What it means is a sentence or two in Markdown; its default and what
    /// is allowed are told beside it.
    pub(super) fn key(&mut self, name: &'static str, meaning: &'static str) -> Key<'_, 'a> {
        Key { section: self, name, meaning }
    }

    /// Makes a key known that is perhaps not read.
    pub(super) fn known(&mut self, key: &'static str) {
        self.ask(key);
    }

    /// Whether `key` is given here.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// What is given for `key` here.
    pub(super) fn content(&self, key: &str) -> Option<&'a Content> {
        self.node(key).map(|node| &node.content)
    }

    /// Whether the value of `key`, which was read, is without fault. Only then may it be held against others: a default
    /// that stands in for a bad value is not what the user meant.
    pub(super) fn is_sound(&self, key: &str) -> bool {
        let path = self.path(key);
        let is_inside = |inner: &str| inner.is_empty() || inner.starts_with(['.', '[']);
        let faults = self.notes.faults.borrow();
        !faults.iter().any(|fault| fault.spot.path.strip_prefix(&path).is_some_and(is_inside))
    }

    /// Tells that the value of `key`, or its lack, is wrong.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        self.fault_at(self.spot(key), message);
    }

    /// Tells of item `index` of the list `key` that it is wrong.
    pub(super) fn fault_in_list(&self, key: &str, index: usize, message: impl Into<String>) {
        match self.node(key) {
            Some(Node { content: Content::List(items), .. }) if index < items.len() => {
                self.fault_at(self.item_spot(key, index, &items[index]), message);
            }
            _ => self.fault(key, message),
        }
    }

    /// Tells that what stands at `spot` is wrong.
    pub(super) fn fault_at(&self, spot: Spot, message: impl Into<String>) {
        self.notes.faults.borrow_mut().push(Fault { spot, message: message.into() });
    }

    /// Where the value of `key` stands; where it is missing, where it belongs.
    pub(super) fn spot(&self, key: &str) -> Spot {
        Spot { place: self.node(key).map_or(self.spot.place, |node| node.place), path: self.path(key) }
    }

    fn read<T>(
        spot: Spot,
        node: Option<&'a Node>,
        short: Option<&'static str>,
        notes: &'a Notes,
        read: impl FnOnce(&mut Self) -> T,
    ) -> (T, Mapping) {
        let source = match (node, short) {
            (Some(Node { content: Content::Mapping(entries), .. }), _) => Source::Mapping(entries),
            (None | Some(Node { content: Content::Nothing, .. }), _) => Source::Absent,
            (Some(node), Some(key)) => Source::Short(key, node),
            (Some(node), None) => {
                let message = format!("found {}, allowed: keys and values", found(node));
                notes.faults.borrow_mut().push(Fault { spot: spot.clone(), message });
                Source::Absent
            }
        };
        let mut section = Self { spot, source, asked: Vec::new(), filled: Vec::new(), notes };
        let value = read(&mut section);
        section.refuse_unknown();
        section.refuse_duplicates();
        (value, Mapping(section.filled))
    }

    /// The mapping `key`, which may also be written as the value of its key `short` alone.
    fn inner<T>(&mut self, key: &'static str, short: Option<&'static str>, read: impl FnOnce(&mut Self) -> T) -> T {
        let node = self.ask(key);
        let (value, filled) = Self::read(self.spot(key), node, short, self.notes, read);
        self.fill(key, Filled::Mapping(filled));
        value
    }

    fn path(&self, key: &str) -> String {
        match (self.source, self.spot.path.as_str()) {
            (Source::Short(short, _), path) if short == key => path.to_owned(),
            (_, "") => key.to_owned(),
            (_, path) => format!("{path}.{key}"),
        }
    }

    fn item_spot(&self, key: &str, index: usize, item: &Node) -> Spot {
        Spot { place: item.place, path: format!("{}[{index}]", self.path(key)) }
    }

    fn node(&self, key: &str) -> Option<&'a Node> {
        match self.source {
            Source::Absent => None,
            Source::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            Source::Short(short, node) => (short == key).then_some(node),
        }
    }

    /// Makes `key` a known one, and finds its value.
    fn ask(&mut self, key: &'static str) -> Option<&'a Node> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.node(key)
    }

    fn scalar<F: Format>(&mut self, key: &'static str, node: &Node, format: &F) -> Option<F::Value> {
        let value = self.scalar_at(self.spot(key), node, format)?;
        self.fill(key, Filled::Scalar(yaml_value(format, &value)));
        Some(value)
    }

    fn scalar_at<F: Format>(&self, spot: Spot, node: &Node, format: &F) -> Option<F::Value> {
        let reading = match &node.content {
            Content::Quoted(_) if !format.takes_quoted() => Err(Some("take the quotes away".to_owned())),
            Content::Scalar(text) | Content::Quoted(text) => format.read(text),
            _ => Err(None),
        };
        let told = |remedy: Option<String>| {
            let remedy = remedy.map_or_else(String::new, |remedy| format!("; {remedy}"));
            self.fault_at(spot, format!("found {}, allowed: {}{remedy}", found(node), format.allowed()));
        };
        reading.map_err(told).ok()
    }

    fn fill(&mut self, key: &'static str, filled: Filled) {
        self.filled.push((key, filled));
    }

    fn refuse_unknown(&self) {
        let Source::Mapping(entries) = self.source else { return };
        for entry in entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            let remedy = match nearest(&entry.key, &self.asked) {
                Some(known) => format!("did you mean {known}?"),
                None => format!("known here: {}", self.asked.join(", ")),
            };
            self.fault_at(self.key_spot(entry), format!("unknown key; {remedy}"));
        }
    }

    fn refuse_duplicates(&self) {
        let Source::Mapping(entries) = self.source else { return };
        let mut first_places = HashMap::new();
        for entry in entries {
            if let Some(Place::At { line, column }) = first_places.get(entry.key.as_str()) {
                let message = format!("the key stands twice; the first is at {line}:{column}, take one of them out");
                self.fault_at(self.key_spot(entry), message);
            } else {
                first_places.insert(entry.key.as_str(), entry.place);
            }
        }
    }

    fn key_spot(&self, entry: &Entry) -> Spot {
        let simple = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        let key = if entry.key.chars().all(simple) { entry.key.clone() } else { quoted(&entry.key) };
        Spot { place: entry.place, path: self.path(&key) }
    }
}

/// A value in words.
fn found(node: &Node) -> String {
    match &node.content {
        Content::Nothing => "nothing".to_owned(),
        Content::Scalar(text) | Content::Quoted(text) => quoted(text),
        Content::List(_) => "a list".to_owned(),
        Content::Mapping(_) => "keys and values".to_owned(),
    }
}
