//! From a file to a configuration, or to everything that is wrong with it.

use std::{
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    path::Path,
    string::FromUtf8Error,
};

use garde::Validate;

use super::{
    formats::Setting,
    places::{ConfigFault, Place, Places, fault},
    rules::Contradiction,
    shorthand::Shorthand,
    types::{Config, Listen, Switch, Upstream},
};
use crate::authority::UpstreamUrl;

/// The values that the command line or the environment sets. Each takes precedence over the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Overrides {
    /// The address for clients, instead of those in the configuration.
    #[arg(long, value_name = "ADDR", env = "CLOSEWATCH_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// The server behind closewatch, instead of `upstream` or all `routes` in the configuration.
    #[arg(long, value_name = "URL", env = "CLOSEWATCH_UPSTREAM")]
    pub upstream: Option<UpstreamUrl>,
    /// The address of metrics, health and API, instead of the one in the configuration.
    #[arg(long, value_name = "ADDR", env = "CLOSEWATCH_ADMIN")]
    pub admin: Option<SocketAddr>,
}

impl Overrides {
    fn apply(&self, config: &mut Config) {
        if let Some(address) = self.listen {
            config.listen = vec![Listen::from_short(Setting(address))];
        }
        if let Some(url) = &self.upstream {
            config.upstream.get_or_insert_with(Upstream::default).url = Setting(url.clone());
            config.has_unused_routes = Switch(!std::mem::take(&mut config.routes).is_empty());
        }
        if let Some(address) = self.admin {
            config.admin.listen = Setting(address);
        }
    }

    /// Returns the flag that sets the value at `path`.
    fn flag(&self, path: &str) -> Option<&'static str> {
        match path {
            "listen[0].address" if self.listen.is_some() => Some("--listen (CLOSEWATCH_LISTEN)"),
            "upstream.url" if self.upstream.is_some() => Some("--upstream (CLOSEWATCH_UPSTREAM)"),
            "admin.listen" if self.admin.is_some() => Some("--admin (CLOSEWATCH_ADMIN)"),
            _ => None,
        }
    }
}

/// Flags come behind the file.
const OF_FLAGS: Place = (usize::MAX, 0);

/// Returns everything that one run found wrong, one to a line, in the order of the file.
fn errors(file: &str, mut faults: Vec<ConfigFault>) -> String {
    const MOST: usize = 100;
    faults.sort();
    // A line can have words of the user, which must not disturb a terminal.
    let printable = |line: &str| line.replace(char::is_control, "\u{fffd}").chars().take(1000).collect();
    let mut lines: Vec<String> = faults.iter().take(MOST).map(|(_, line)| printable(line)).collect();
    let more = faults.len().saturating_sub(MOST);
    lines.extend((more > 0).then(|| format!("{file}: and {more} more")));
    lines.join("\n")
}

/// Loads the configuration from the file at `path`; without a path, from `config.yaml` in the working directory if it
/// exists.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Config, String> {
    let (name, text) = read_file(path, overrides)?;
    parse(&name, &text, overrides)
}

/// Loads the configuration as [`load`] does, checks the paths in it too, and returns it as YAML with all defaults filled
/// in.
pub fn check(path: Option<&Path>, overrides: &Overrides) -> Result<String, String> {
    let (name, text) = read_file(path, overrides)?;
    let (config, judge) = read(&name, &text, overrides)?;
    let faults: Vec<_> = config.faults_on_this_machine().iter().map(|found| judge.blame(found)).collect();
    if faults.is_empty() { Ok(config.to_yaml()) } else { Err(errors(&name, faults)) }
}

/// Reads the configuration from `text`, which errors call `name`.
pub fn parse(name: &str, text: &str, overrides: &Overrides) -> Result<Config, String> {
    read(name, text, overrides).map(|(config, _)| config)
}

fn read<'a>(file: &'a str, text: &str, overrides: &'a Overrides) -> Result<(Config, Judge<'a>), String> {
    let places = Places::of(file, text).map_err(|faults| errors(file, faults))?;
    let judge = Judge { file, places, overrides };
    let config = serde_path_to_error::deserialize(serde_yaml::Deserializer::from_str(text));
    let mut config: Config = config.map_err(|error| errors(file, vec![judge.unreadable(&error)]))?;
    overrides.apply(&mut config);
    let faults = judge.invalid_values(&config);
    if faults.is_empty() { Ok((config, judge)) } else { Err(errors(file, faults)) }
}

/// Finds the place of each fault.
struct Judge<'a> {
    file: &'a str,
    places: Places,
    overrides: &'a Overrides,
}

impl Judge<'_> {
    /// The faults of a configuration that could be read.
    fn invalid_values(&self, config: &Config) -> Vec<ConfigFault> {
        let report = config.validate().err();
        let values = report.iter().flat_map(garde::Report::iter);
        let values = values.map(|(path, error)| (vec![path.to_string().replace("r#", "")], error.to_string()));
        values.chain(config.contradictions()).map(|found| self.blame(&found)).collect()
    }

    /// Reports a contradiction at the last of its values that somebody wrote.
    fn blame(&self, (paths, message): &Contradiction) -> ConfigFault {
        let place = |path| match (self.overrides.flag(path), self.places.value(path)) {
            (Some(flag), _) => (true, OF_FLAGS, flag),
            (None, spot) => spot,
        };
        let last = paths.iter().map(|path| place(path)).max();
        let (is_written, place, path) = last.expect("a contradiction has a path");
        // The default of a required key is refused like a bad value.
        let missing = message.split_once(", allowed: ").filter(|_| !is_written && message.starts_with("found "));
        let text = missing.map_or_else(|| message.clone(), |(_, allowed)| format!("missing, allowed: {allowed}"));
        let text = format!("{path}: {text}");
        if place == OF_FLAGS { (place, text) } else { fault(self.file, place, &text) }
    }

    /// The fault that stopped the reading.
    fn unreadable(&self, error: &serde_path_to_error::Error<serde_yaml::Error>) -> ConfigFault {
        let path = error.path().to_string();
        let path = if path == "." { "" } else { &path };
        let separator = if path.is_empty() { "" } else { ": " };
        let text = without_place(error.inner(), path);
        let (place, text) = match text.strip_prefix("unknown field ") {
            Some(known) => (self.places.keys.get(path), unknown_key(path, known)),
            None => (
                None,
                text.replace("invalid type: unit value", "found null")
                    .replace("invalid type: ", "found ")
                    .replace(", expected ", ", allowed: "),
            ),
        };
        let place = place.map_or_else(|| self.places.value(path).1, |place| *place);
        fault(self.file, place, &format!("{path}{separator}{text}"))
    }
}

/// Returns the text of an error without the place and the path that `serde_yaml` adds to it.
fn without_place(error: &serde_yaml::Error, path: &str) -> String {
    let text = error.to_string();
    let text = text.rsplit_once(" at line ").map_or(&*text, |(text, _)| text);
    let without_path = text.split_once(": ").filter(|(start, _)| path.starts_with(start));
    without_path.map_or(text, |(_, text)| text).to_owned()
}

/// Explains a key that is not one of the known ones, which serde lists between backticks.
fn unknown_key(path: &str, text: &str) -> String {
    let known = text.rsplit_once("`, expected ").map_or("", |(_, known)| known);
    let known: Vec<_> = known.split('`').skip(1).step_by(2).collect();
    let key = path.rsplit('.').next().unwrap_or(path);
    let by_similarity = known.iter().map(|name| (strsim::normalized_levenshtein(key, name), name));
    match by_similarity.max_by(|left, right| left.0.total_cmp(&right.0)) {
        Some((0.5.., name)) => format!("unknown key; did you mean {name}?"),
        _ => format!("unknown key; known here: {}", known.join(", ")),
    }
}

/// No configuration is nearly as long.
const LONGEST_FILE: u64 = 1 << 20;

/// Returns the file's name for errors, and its text; none if no file is named nor needed.
fn read_file(path: Option<&Path>, overrides: &Overrides) -> Result<(String, String), String> {
    let file = path.unwrap_or(Path::new("config.yaml"));
    let name = file.display().to_string();
    let refused = |text: String| errors(&name, vec![((0, 0), format!("{name}: {text}"))]);
    let bytes = match read_bytes(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => match overrides.upstream {
            Some(_) => Vec::new(),
            None => return Err(refused(NO_FILE.to_owned())),
        },
        bytes => bytes.map_err(|error| refused(format!("cannot read the file: {error}")))?,
    };
    if bytes.len() as u64 > LONGEST_FILE {
        return Err(refused(format!("longer than {LONGEST_FILE} bytes, too long for a configuration")));
    }
    let invalid =
        |error: FromUtf8Error| refused(format!("invalid UTF-8 behind {} bytes", error.utf8_error().valid_up_to()));
    Ok((name.clone(), String::from_utf8(bytes).map_err(invalid)?))
}

const NO_FILE: &str = "file not found, and so no upstream; name the server by --upstream URL or CLOSEWATCH_UPSTREAM, or \
                       a file by --config FILE";

/// Reads the file, or enough of it to see that it is too long.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
