//! Reading a mapping key by key. What is read is also kept as it is written, defaults included, and in the end every
//! key that nobody asked for is an error: so the code that reads a key is all that makes it known.

use std::{cell::RefCell, collections::HashMap};

use super::{
    document::{Content, Entry, Node},
    error::{Fault, Place, Spot, quoted},
    filled::{Filled, Mapping},
    format::Format,
    spelling::nearest,
};

/// Keys of the interface whose work is still to come, by the end of their path. They are refused, never ignored; a
/// value of `off` is what they are without.
const NOT_YET: &[(&str, &str)] = &[("listen.tls", "TLS toward clients"), ("upstream.tls", "TLS toward the server")];

/// The faults found so far; shared by all sections of a configuration.
pub(super) type Faults = RefCell<Vec<Fault>>;

/// A mapping that is being read.
pub(super) struct Section<'a> {
    spot: Spot,
    source: Source<'a>,
    asked: Vec<&'static str>,
    filled: Vec<(&'static str, Filled)>,
    faults: &'a Faults,
    faults_before: usize,
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

impl<'a> Section<'a> {
    /// Reads the whole of a configuration by `read`; told is also how it is written with its defaults filled in.
    pub(super) fn read_root<T>(root: &'a Node, faults: &'a Faults, read: impl FnOnce(&mut Self) -> T) -> (T, Mapping) {
        let spot = Spot { place: root.place, path: String::new() };
        Self::read(spot, Some(root), None, faults, read)
    }

    fn read<T>(
        spot: Spot,
        node: Option<&'a Node>,
        short: Option<&'static str>,
        faults: &'a Faults,
        read: impl FnOnce(&mut Self) -> T,
    ) -> (T, Mapping) {
        let faults_before = faults.borrow().len();
        let source = match (node, short) {
            (Some(Node { content: Content::Mapping(entries), .. }), _) => Source::Mapping(entries),
            (None | Some(Node { content: Content::Nothing, .. }), _) => Source::Absent,
            (Some(node), Some(key)) => Source::Short(key, node),
            (Some(node), None) => {
                let message = format!("found {}, allowed: keys and values", found(node));
                faults.borrow_mut().push(Fault { spot: spot.clone(), message });
                Source::Absent
            }
        };
        let mut section = Self { spot, source, asked: Vec::new(), filled: Vec::new(), faults, faults_before };
        let value = read(&mut section);
        section.refuse_unknown();
        section.refuse_duplicates();
        (value, Mapping(section.filled))
    }

    /// Whether `key` is given here.
    pub(super) fn has(&self, key: &str) -> bool {
        self.node(key).is_some()
    }

    /// What is given for `key` here.
    pub(super) fn content(&self, key: &str) -> Option<&'a Content> {
        self.node(key).map(|node| &node.content)
    }

    /// Whether all that was read of this section so far is without fault. Only then may values be held against each
    /// other: a default that stands in for a bad value is not what the user meant.
    pub(super) fn is_sound(&self) -> bool {
        self.faults.borrow().len() == self.faults_before
    }

    /// The value of `key`, or its default.
    pub(super) fn value<F: Format>(&mut self, key: &'static str, default: F::Value, format: &F) -> F::Value {
        if let Some(node) = self.ask(key) {
            return self.scalar(key, node, format).unwrap_or(default);
        }
        self.fill(key, Filled::Scalar(format.write(&default)));
        default
    }

    /// The value of `key`, which may be missing.
    pub(super) fn optional<F: Format>(&mut self, key: &'static str, format: &F) -> Option<F::Value> {
        let node = self.ask(key)?;
        self.scalar(key, node, format)
    }

    /// The value of `key`, which must be there.
    pub(super) fn required<F: Format>(&mut self, key: &'static str, format: &F) -> Option<F::Value> {
        if !self.has(key) {
            self.fault(key, format!("missing, allowed: {}", format.allowed()));
        }
        self.optional(key, format)
    }

    /// The values of `key`, which is a list, or the default ones. Those stand in for a list with a bad value, too.
    pub(super) fn list<F: Format>(&mut self, key: &'static str, default: Vec<F::Value>, format: &F) -> Vec<F::Value> {
        let Some(node) = self.ask(key) else {
            self.fill(key, Filled::Scalars(default.iter().map(|value| format.write(value)).collect()));
            return default;
        };
        let Content::List(items) = &node.content else {
            self.fault(key, format!("found {}, allowed: a list [...], each {}", found(node), format.allowed()));
            return default;
        };
        self.fill(key, Filled::Scalars(items.iter().map(text).collect()));
        let read = |(index, item)| self.scalar_at(self.item_spot(key, index, item), item, format);
        let values: Vec<_> = items.iter().enumerate().filter_map(read).collect();
        if values.len() == items.len() { values } else { default }
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

    /// The mapping `key`; where it is missing, all its values are default.
    pub(super) fn section<T>(&mut self, key: &'static str, read: impl FnOnce(&mut Self) -> T) -> T {
        self.short_section(key, None, read)
    }

    /// The mapping `key`, which may also be written as the value of its key `short` alone.
    pub(super) fn short_section<T>(
        &mut self,
        key: &'static str,
        short: Option<&'static str>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let node = self.ask(key);
        let (value, filled) = Self::read(self.spot(key), node, short, self.faults, read);
        self.fill(key, Filled::Mapping(filled));
        value
    }

    /// The mappings of the list `key`, each of which may also be written as the value of its key `short` alone; a
    /// single one needs no list. There may be `most` of them.
    pub(super) fn sections<T>(
        &mut self,
        key: &'static str,
        short: Option<&'static str>,
        most: usize,
        mut read: impl FnMut(&mut Self) -> T,
    ) -> Vec<T> {
        let Some(node) = self.ask(key) else { return vec![self.short_section(key, short, read)] };
        let Content::List(items) = &node.content else { return vec![self.short_section(key, short, read)] };
        if !(1..=most).contains(&items.len()) {
            self.fault(key, format!("found a list of {}, allowed: 1 to {most}", items.len()));
        }
        let read_item =
            |(index, item)| Self::read(self.item_spot(key, index, item), Some(item), short, self.faults, &mut read);
        let (values, filled) = items.iter().take(most).enumerate().map(read_item).unzip();
        self.fill(key, Filled::Mappings(filled));
        values
    }

    /// Makes `key` known without reading it. One whose work is to come is refused (see [`NOT_YET`]).
    pub(super) fn known(&mut self, key: &'static str) {
        self.ask(key);
    }

    /// Tells that the value of `key`, or its lack, is wrong.
    pub(super) fn fault(&self, key: &str, message: impl Into<String>) {
        self.fault_at(self.spot(key), message);
    }

    /// Tells that what stands at `spot` is wrong.
    pub(super) fn fault_at(&self, spot: Spot, message: impl Into<String>) {
        self.faults.borrow_mut().push(Fault { spot, message: message.into() });
    }

    /// Where the value of `key` stands; where it is missing, where it belongs.
    pub(super) fn spot(&self, key: &str) -> Spot {
        Spot { place: self.node(key).map_or(self.spot.place, |node| node.place), path: self.path(key) }
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
        let node = self.node(key)?;
        let path = without_indices(&self.path(key));
        match NOT_YET.iter().find(|(end, _)| is_path_end(end, &path)) {
            Some((_, what)) if !matches!(&node.content, Content::Scalar(text) if text == "off") => {
                self.fault(key, format!("{what} is not supported yet; take this key out"));
                None
            }
            _ => Some(node),
        }
    }

    fn scalar<F: Format>(&mut self, key: &'static str, node: &Node, format: &F) -> Option<F::Value> {
        self.fill(key, Filled::Scalar(text(node)));
        self.scalar_at(self.spot(key), node, format)
    }

    fn scalar_at<F: Format>(&self, spot: Spot, node: &Node, format: &F) -> Option<F::Value> {
        let reading = match &node.content {
            Content::Scalar(text) => format.read(text),
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
        Content::Scalar(text) => quoted(text),
        Content::List(_) => "a list".to_owned(),
        Content::Mapping(_) => "keys and values".to_owned(),
    }
}

/// The text of a scalar; anything else has been told of as a fault.
fn text(node: &Node) -> String {
    match &node.content {
        Content::Scalar(text) => text.clone(),
        _ => String::new(),
    }
}

/// `listen[0].tls` is `listen.tls` of every one.
fn without_indices(path: &str) -> String {
    path.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

fn is_path_end(end: &str, path: &str) -> bool {
    path.strip_suffix(end).is_some_and(|start| start.is_empty() || start.ends_with('.'))
}
