//! From a file to a configuration.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use super::{
    Config, Errors,
    document::{Content, Node},
    error::{Fault, Place},
    schema::{self, Reading},
};

/// What is set on the command line or in the environment, unparsed; each wins over the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// `--listen`, `CLOSEWATCH_LISTEN`: one address instead of all of `listen`.
    pub listen: Option<String>,
    /// `--upstream`, `CLOSEWATCH_UPSTREAM`: the URL of the one server, instead of all `routes`.
    pub upstream: Option<String>,
    /// `--admin`, `CLOSEWATCH_ADMIN`: the address `admin.listen`.
    pub admin: Option<String>,
}

/// The file that is read where none is named.
const DEFAULT_FILE: &str = "config.yaml";

/// No configuration is nearly as long.
const LONGEST_FILE: u64 = 1 << 20;

/// Loads the configuration from the file at `path`; without a path, from `config.yaml` in the working directory where
/// it exists.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Config, Errors> {
    let (name, text) = read_file(path, overrides)?;
    parse(&name, &text, overrides)
}

/// Loads the configuration as [`load`] does, looks at the paths it names too, and tells it as YAML with all defaults
/// filled in.
pub fn check(path: Option<&Path>, overrides: &Overrides) -> Result<String, Errors> {
    let (name, text) = read_file(path, overrides)?;
    let Reading { filled, addresses, .. } = read(&name, &text, overrides)?;
    match addresses.faults_on_this_machine() {
        faults if faults.is_empty() => Ok(filled.to_string()),
        faults => Err(Errors::new(&name, faults)),
    }
}

/// Reads the configuration from `text`, which errors call `name`.
pub fn parse(name: &str, text: &str, overrides: &Overrides) -> Result<Config, Errors> {
    read(name, text, overrides).map(|reading| reading.config)
}

/// The configuration in `text` as YAML with all defaults filled in. Read again it is the same configuration.
pub fn to_yaml(name: &str, text: &str, overrides: &Overrides) -> Result<String, Errors> {
    read(name, text, overrides).map(|reading| reading.filled.to_string())
}

fn read(name: &str, text: &str, overrides: &Overrides) -> Result<Reading, Errors> {
    let mut root = Node::parse(text).map_err(|fault| Errors::single(name, fault))?;
    let has_unused_routes = overrides.apply(&mut root);
    let mut reading = schema::read(&root).map_err(|faults| Errors::new(name, faults))?;
    reading.config.has_unused_routes = has_unused_routes;
    Ok(reading)
}

impl Overrides {
    /// Puts what is set here in the place of what the file says, and tells whether that had routes.
    fn apply(&self, root: &mut Node) -> bool {
        // A document that is no mapping stays, to be told of.
        if !matches!(root.content, Content::Nothing | Content::Mapping(_)) {
            return false;
        }
        let mut has_unused_routes = false;
        if let Some(address) = &self.listen {
            root.put(&["listen"], Node::from_flag("--listen (CLOSEWATCH_LISTEN)", address));
        }
        if let Some(url) = &self.upstream {
            let has_keys = root.value("upstream").is_some_and(|node| matches!(node.content, Content::Mapping(_)));
            let path: &[&str] = if has_keys { &["upstream", "url"] } else { &["upstream"] };
            root.put(path, Node::from_flag("--upstream (CLOSEWATCH_UPSTREAM)", url));
            has_unused_routes = root.remove("routes");
        }
        if let Some(address) = &self.admin {
            root.put(&["admin", "listen"], Node::from_flag("--admin (CLOSEWATCH_ADMIN)", address));
        }
        has_unused_routes
    }
}

/// The file's name as errors tell it, and its text; none where no file is named nor needed.
fn read_file(path: Option<&Path>, overrides: &Overrides) -> Result<(String, String), Errors> {
    let file = path.unwrap_or(Path::new(DEFAULT_FILE));
    let name = file.display().to_string();
    let fault = |place, message: String| Err(Errors::single(&name, Fault::of_text(place, message)));
    match read_bytes(file) {
        Ok(bytes) if bytes.len() as u64 > LONGEST_FILE => {
            fault(Place::File, format!("longer than {LONGEST_FILE} bytes; this is no configuration"))
        }
        Ok(bytes) => match String::from_utf8(bytes) {
            Ok(text) => Ok((name, text)),
            Err(error) => {
                let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]);
                fault(end_of(&valid), "a byte that is no UTF-8; save the file as UTF-8".to_owned())
            }
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound && path.is_none() => match overrides.upstream {
            Some(_) => Ok((name, String::new())),
            None => fault(Place::File, NO_FILE.to_owned()),
        },
        Err(error) => fault(Place::File, format!("cannot be read: {error}")),
    }
}

const NO_FILE: &str = "there is no such file here, and so no upstream; name the server by --upstream URL or \
                       CLOSEWATCH_UPSTREAM, or a file by --config FILE";

/// The file's bytes, or enough of them to see that they are too many.
fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LONGEST_FILE + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The place right behind `text`.
fn end_of(text: &str) -> Place {
    let last_line = text.rsplit('\n').next().unwrap_or_default();
    Place::At { line: text.matches('\n').count() + 1, column: last_line.chars().count() + 1 }
}
