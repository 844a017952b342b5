//! What is wrong with a configuration, and where.

use std::fmt;

/// Everything that one run found wrong; displayed one to a line.
#[derive(Debug)]
pub struct Errors {
    /// The file's name as the user gave it.
    file: String,
    /// In the order of the file; never empty.
    faults: Vec<Fault>,
}

/// More than this is no help to anyone.
const MOST_TOLD: usize = 100;

impl Errors {
    pub(super) fn new(file: &str, mut faults: Vec<Fault>) -> Self {
        faults.sort_by_key(|fault| fault.spot.place);
        Self { file: file.to_owned(), faults }
    }

    pub(super) fn single(file: &str, fault: Fault) -> Self {
        Self::new(file, vec![fault])
    }
}

impl fmt::Display for Errors {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, Fault { spot, message }) in self.faults.iter().take(MOST_TOLD).enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            match spot.place {
                Place::File => write!(formatter, "{}: ", self.file)?,
                Place::At { line, column } => write!(formatter, "{}:{line}:{column}: ", self.file)?,
                Place::Flag(flag) => write!(formatter, "{flag}: ")?,
            }
            if !spot.path.is_empty() && !matches!(spot.place, Place::Flag(_)) {
                write!(formatter, "{}: ", spot.path)?;
            }
            formatter.write_str(message)?;
        }
        match self.faults.len().saturating_sub(MOST_TOLD) {
            0 => Ok(()),
            more => write!(formatter, "\n{}: and {more} more", self.file),
        }
    }
}

impl std::error::Error for Errors {}

/// One thing that is wrong.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    pub(super) spot: Spot,
    /// What was found, what is allowed, what to do.
    pub(super) message: String,
}

impl Fault {
    /// A fault of the text itself, where no key is to blame.
    pub(super) fn of_text(place: Place, message: impl Into<String>) -> Self {
        Self { spot: Spot { place, path: String::new() }, message: message.into() }
    }
}

/// A value: where it stands, and the path of its key, such as `routes[0].upstream.url`.
#[derive(Debug, Clone)]
pub(super) struct Spot {
    pub(super) place: Place,
    pub(super) path: String,
}

/// Where a value was written. Ordered as errors are told: what overrides the file is to blame before the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Place {
    /// The file as a whole.
    File,
    /// Line and column, counted from 1, the column in characters.
    At { line: usize, column: usize },
    /// A command line flag, or the environment variable that stands for it.
    Flag(&'static str),
}

/// What a user wrote, fit for a terminal: quoted, control characters escaped, not too long.
pub(super) fn quoted(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}...", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_wrote_cannot_disturb_the_terminal() {
        assert_eq!(quoted("a\u{1b}[31mb"), r#""a\u{1b}[31mb""#);
        assert_eq!(quoted(&"ä".repeat(61)), format!("\"{}\"...", "ä".repeat(60)));
    }

    #[test]
    fn a_flood_of_faults_is_cut() {
        let fault = Fault::of_text(Place::At { line: 1, column: 2 }, "wrong");
        let told = Errors::new("a.yaml", vec![fault; MOST_TOLD + 7]).to_string();
        assert_eq!(told.lines().count(), MOST_TOLD + 1);
        assert_eq!(told.lines().next(), Some("a.yaml:1:2: wrong"));
        assert_eq!(told.lines().last(), Some("a.yaml: and 7 more"));
    }
}
