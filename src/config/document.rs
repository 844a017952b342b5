//! YAML text to a tree in which every key and value knows its line and column.

use std::borrow::Cow;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::error::{Fault, Place};

/// Deeper than any key of ours, and far from the end of the stack.
const DEEPEST: usize = 16;

/// A value in the tree.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) place: Place,
    pub(super) content: Content,
}

/// What a value is. A scalar is its text: which type that text has is for its key to say, so that `off` is no boolean.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// Nothing was written, or `null`, or `~`.
    Nothing,
    Scalar(String),
    /// A scalar in quotes, or of lines: text, and nothing else.
    Quoted(String),
    List(Vec<Node>),
    /// In the order of the file, keys that stand twice included.
    Mapping(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) value: Node,
}

impl Node {
    /// Reads a text that holds one YAML document, or nothing at all.
    pub(super) fn parse(text: &str) -> Result<Self, Fault> {
        // A byte order mark is no part of the document.
        let mut reader = Reader { parser: Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) };
        let mut root = Self { place: Place::At { line: 1, column: 1 }, content: Content::Nothing };
        let mut documents = 0;
        loop {
            let (event, span) = reader.event()?;
            match event {
                Event::StreamEnd => return Ok(root),
                Event::DocumentStart(_) if documents > 0 => {
                    return Err(fault(span.start, "a second YAML document; a configuration is one"));
                }
                Event::DocumentStart(_) => documents += 1,
                Event::StreamStart | Event::DocumentEnd | Event::Nothing => {}
                event => root = reader.node(event, span, 0)?,
            }
        }
    }

    /// A scalar that does not stand in the file.
    pub(super) fn from_flag(flag: &'static str, text: &str) -> Self {
        Self { place: Place::Flag(flag), content: Content::Scalar(text.to_owned()) }
    }

    /// The value of `key`, where this is a mapping that has it.
    pub(super) fn value(&self, key: &str) -> Option<&Self> {
        match &self.content {
            Content::Mapping(entries) => entries.iter().find(|entry| entry.key == key).map(|entry| &entry.value),
            _ => None,
        }
    }

    /// Puts `value` at the end of the path `keys`, in place of what is there.
    pub(super) fn put(&mut self, keys: &[&str], value: Self) {
        let [key, rest @ ..] = keys else {
            *self = value;
            return;
        };
        if !matches!(self.content, Content::Mapping(_)) {
            *self = Self { place: value.place, content: Content::Mapping(Vec::new()) };
        }
        let Content::Mapping(entries) = &mut self.content else { return };
        let index = entries.iter().position(|entry| entry.key == *key).unwrap_or_else(|| {
            let nothing = Self { place: value.place, content: Content::Nothing };
            entries.push(Entry { key: (*key).to_owned(), place: value.place, value: nothing });
            entries.len() - 1
        });
        entries[index].value.put(rest, value);
    }

    /// Takes `key` out of this mapping, and tells whether it was there.
    pub(super) fn remove(&mut self, key: &str) -> bool {
        let Content::Mapping(entries) = &mut self.content else { return false };
        let before = entries.len();
        entries.retain(|entry| entry.key != key);
        entries.len() < before
    }
}

/// Builds nodes from the parser's events.
struct Reader<'text> {
    parser: Parser<'text, StrInput<'text>>,
}

impl<'text> Reader<'text> {
    fn event(&mut self) -> Result<(Event<'text>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(not_yaml(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    /// The value that `event` begins.
    fn node(&mut self, event: Event<'text>, span: Span, depth: usize) -> Result<Node, Fault> {
        if depth > DEEPEST {
            return Err(fault(span.start, "nested too deeply; no key lies here"));
        }
        let content = match event {
            Event::Scalar(.., Some(tag)) | Event::SequenceStart(_, Some(tag)) | Event::MappingStart(_, Some(tag)) => {
                return Err(fault(span.start, format!("the tag {tag} is not understood; write the value without it")));
            }
            Event::Scalar(text, style, ..) => scalar(text, style),
            Event::SequenceStart(..) => self.list(depth)?,
            Event::MappingStart(..) => self.mapping(depth)?,
            Event::Alias(_) => {
                return Err(fault(span.start, "aliases (*name) are not expanded; write the value out"));
            }
            _ => Content::Nothing,
        };
        Ok(Node { place: place(span.start), content })
    }

    fn list(&mut self, depth: usize) -> Result<Content, Fault> {
        let mut items = Vec::new();
        loop {
            match self.event()? {
                (Event::SequenceEnd, _) => return Ok(Content::List(items)),
                (event, span) => items.push(self.node(event, span, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Content, Fault> {
        let mut entries = Vec::new();
        loop {
            let (key, key_place) = match self.event()? {
                (Event::MappingEnd, _) => return Ok(Content::Mapping(entries)),
                (Event::Scalar(text, ..), span) => (text.into_owned(), place(span.start)),
                (_, span) => return Err(fault(span.start, "a key must be a plain word")),
            };
            let (event, span) = self.event()?;
            let mut value = self.node(event, span, depth + 1)?;
            // What is not written has no place of its own.
            if span.is_empty() && matches!(value.content, Content::Nothing) {
                value.place = key_place;
            }
            entries.push(Entry { key, place: key_place, value });
        }
    }
}

/// Quoted text is text; plain text may stand for nothing (YAML 1.2.2, 10.3.2).
fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Content {
    match (style, text.as_ref()) {
        (ScalarStyle::Plain, "" | "~" | "null" | "Null" | "NULL") => Content::Nothing,
        (ScalarStyle::Plain, _) => Content::Scalar(text.into_owned()),
        _ => Content::Quoted(text.into_owned()),
    }
}

fn not_yaml(error: &ScanError) -> Fault {
    // The one text that is YAML and that the parser does not take.
    let message = match error.info() {
        "':' must be followed by a valid YAML whitespace" => {
            "a tab behind a colon is not understood; write a space".to_owned()
        }
        info => format!("this is no YAML: {info}"),
    };
    fault(*error.marker(), message)
}

fn fault(marker: Marker, message: impl Into<String>) -> Fault {
    Fault::of_text(place(marker), message)
}

fn place(marker: Marker) -> Place {
    Place::At { line: marker.line(), column: marker.col() + 1 }
}
