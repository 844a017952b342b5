//! The line and column of every key and value. serde keeps none, so a second parser's events provide them.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScanError, Span};

/// Deeper than any key, and far from the end of the stack.
const DEEPEST: usize = 17;

/// Longer than any key. A longer one is cut: the paths below it could fill the memory.
const LONGEST_KEY: usize = 64;

/// A line and a column, counted from 1, the column in characters.
pub(super) type Place = (usize, usize);

/// A line of the errors, before it the place by which they are sorted.
pub(super) type ConfigFault = (Place, String);

/// Returns the fault at a place of a file.
pub(super) fn fault(file: &str, place: Place, text: &str) -> ConfigFault {
    (place, format!("{file}:{}:{}: {text}", place.0, place.1))
}

/// The places of the keys and values in a file, each by its path, such as `routes[0].upstream.url`.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) keys: HashMap<String, Place>,
    /// With whether the value is a mapping.
    values: HashMap<String, (Place, bool)>,
    duplicates: Vec<(Place, String)>,
}

/// A list or a mapping whose end has not come yet, by its path.
enum Container {
    /// With the number of items so far.
    List(String, usize),
    /// With the path and the place of the key whose value comes next.
    Mapping(String, Option<(String, Place)>),
}

impl Places {
    /// Walks through the text of a file that holds one YAML document, or nothing at all. What cannot be walked is refused.
    pub(super) fn of(file: &str, text: &str) -> Result<Self, Vec<ConfigFault>> {
        let (mut places, mut open, mut documents) = (Self::default(), Vec::new(), 0);
        let refused = |marker, text: &str| vec![fault(file, place(marker), text)];
        // A byte order mark is no part of the document.
        for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
            let invalid = |error: ScanError| refused(*error.marker(), &format!("invalid YAML: {}", error.info()));
            let (event, span) = event.map_err(invalid)?;
            documents += usize::from(matches!(event, Event::DocumentStart(_)));
            if documents > 1 {
                return Err(refused(span.start, "a second YAML document; a configuration is one"));
            }
            places.add(event, span, &mut open).map_err(|message| refused(span.start, &message))?;
        }
        let duplicates: Vec<_> = places.duplicates.iter().map(|(place, text)| fault(file, *place, text)).collect();
        if duplicates.is_empty() { Ok(places) } else { Err(duplicates) }
    }

    fn add(&mut self, event: Event<'_>, span: Span, open: &mut Vec<Container>) -> Result<(), String> {
        let is_list = matches!(event, Event::SequenceStart(..));
        let is_mapping = matches!(event, Event::MappingStart(..));
        let (text, tag) = match event {
            Event::Scalar(text, .., tag) => (Some(text), tag),
            Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) => (None, tag),
            Event::Alias(_) => (None, None),
            Event::SequenceEnd | Event::MappingEnd => {
                open.pop();
                return Ok(());
            }
            _ => return Ok(()),
        };
        if let Some(tag) = tag {
            return Err(format!("the tag {tag} is not supported; write the value without it"));
        }
        let at = place(span.start);
        let (path, at) = match open.last_mut() {
            None => (String::new(), at),
            Some(Container::List(path, items)) => {
                *items += 1;
                (format!("{path}[{}]", *items - 1), at)
            }
            Some(Container::Mapping(path, key)) => match (key.take(), text) {
                // A value that is not written has the place of its key.
                (Some((path, key_at)), text) => (path, if span.is_empty() && text.is_some() { key_at } else { at }),
                (None, Some(text)) => {
                    *key = Some((self.add_key(path, &text, at), at));
                    return Ok(());
                }
                (None, None) => return Err("a key must be a plain word".to_owned()),
            },
        };
        self.values.insert(path.clone(), (at, is_mapping));
        match (is_list || is_mapping, open.len()) {
            (true, DEEPEST..) => return Err("nested too deeply; there is no key here".to_owned()),
            (true, _) if is_list => open.push(Container::List(path, 0)),
            (true, _) => open.push(Container::Mapping(path, None)),
            (false, _) => {}
        }
        Ok(())
    }

    /// Returns the path of a key.
    fn add_key(&mut self, around: &str, key: &str, at: Place) -> String {
        let separator = if around.is_empty() { "" } else { "." };
        let path = format!("{around}{separator}{}", &key[..key.floor_char_boundary(LONGEST_KEY)]);
        if let Some((line, column)) = self.keys.insert(path.clone(), at) {
            self.duplicates.push((at, format!("{path}: duplicate key; the first one is at {line}:{column}")));
        }
        path
    }

    /// Returns the place of the value at `path`, or else of the nearest one around it; before it whether somebody wrote
    /// the value, and after it the path to report.
    pub(super) fn value<'p>(&self, path: &'p str) -> (bool, Place, &'p str) {
        let around = |path: &&'p str| Some(&path[..path.rfind(['.', '['])?]);
        let mut paths = std::iter::successors(Some(path), around).chain([""]);
        let found = paths.find_map(|path| Some((path, *self.values.get(path)?)));
        match found.unwrap_or(("", ((1, 1), true))) {
            (around, (place, true)) if around != path => (false, place, path),
            // The short form `listen: ADDRESS` is the value of `listen[0].address`.
            (short, (place, _)) => (true, place, short),
        }
    }
}

fn place(marker: Marker) -> Place {
    (marker.line(), marker.col() + 1)
}
