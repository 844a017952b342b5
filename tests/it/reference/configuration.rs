//! `docs/configuration.md`.

use std::{collections::BTreeSet, fs, path::Path};

use closewatch::config::{self, Config, KeyDescription, Missing, Overrides};

use super::document::{Document, code, table};

#[test]
fn the_document_is_made_from_the_keys() {
    Document::open("configuration.md").must_say(&reference());
}

/// Asks the decoder itself: a key that it does not know is answered with those that it knows there.
#[test]
fn every_key_that_is_accepted_is_described_and_the_other_way_round() {
    let mut accepted = BTreeSet::new();
    find_accepted(&[], &mut accepted);
    let described: BTreeSet<_> = config::keys().iter().map(|key| key.path.replace("[]", "")).collect();
    assert_eq!(described, accepted);
    assert!(accepted.len() > 60, "the search found too little: {accepted:?}");
}

#[test]
fn a_default_written_out_changes_nothing() {
    let mut tried = 0;
    for key in config::keys().iter().filter(|key| !key.path.starts_with("routes[]")) {
        let Missing::Default(default) = &key.missing else { continue };
        let written_out = parse(&in_its_section(key, &format!("{}: {default}", name(key))));
        assert_eq!(written_out, parse(&in_its_section(key, "")), "{}: {default}", key.path);
        tried += 1;
    }
    assert!(tried > 50, "only {tried} keys have a default");
}

fn reference() -> String {
    let keys = config::keys();
    let is_for_all = |path: &str| keys.iter().any(|key| key.path == path);
    let told: Vec<_> =
        keys.iter().filter(|key| key.path.strip_prefix("routes[].").is_none_or(|path| !is_for_all(path))).collect();
    let sections = in_the_order_of_the_file(&told);
    let sections = sections.iter().map(|name| {
        let keys: Vec<_> = told.iter().filter(|key| section(key) == *name).copied().collect();
        let rows = keys.iter().filter(|key| key.path != *name || key.missing != Missing::Inner);
        let per_route = |path: &str| is_for_all(&format!("routes[].{path}"));
        let rows = rows.map(|key| row(key, per_route(&key.path)));
        let head = ["key", "default", "per route", "reload", "meaning"];
        format!("## `{name}`\n\n{}{}", lead(keys[0]), table(&head, rows))
    });
    sections.collect::<Vec<_>>().join("\n")
}

/// What stands above the table of a section.
fn lead(key: &KeyDescription) -> String {
    match (&key.missing, key.allowed.as_str()) {
        (Missing::Inner, "keys and values") => format!("{}\n\n", key.meaning),
        (Missing::Inner, allowed) => format!("{} Written as {allowed}.\n\n", key.meaning),
        _ => String::new(),
    }
}

fn row(key: &KeyDescription, per_route: bool) -> Vec<String> {
    let default = match &key.missing {
        Missing::Default(default) => code(default),
        Missing::Refused => "must be given".to_owned(),
        Missing::Unset => "none".to_owned(),
        Missing::Inner => String::new(),
    };
    let end = if key.meaning.ends_with('.') { "" } else { "." };
    let meaning = match key.missing {
        Missing::Inner => key.meaning.to_owned(),
        _ => format!("{}{end}<br>*Allowed: {}.*", key.meaning, key.allowed),
    };
    let per_route = if per_route { "yes" } else { "" };
    let reload = if key.is_fixed() { "restart" } else { "yes" };
    vec![code(&key.path), default, per_route.to_owned(), reload.to_owned(), meaning]
}

/// The key of the root that a key belongs to.
fn section(key: &KeyDescription) -> &str {
    key.path.split(['.', '[']).next().expect("a split has a first part")
}

/// The keys of the root as they stand in `config.yaml`, where that of `routes` is a comment.
fn in_the_order_of_the_file<'a>(keys: &[&'a KeyDescription]) -> Vec<&'a str> {
    let file = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("config.yaml"));
    let file = file.expect("config.yaml can be read");
    let mut names: Vec<_> = keys.iter().map(|key| section(key)).collect();
    names.sort_by_key(|name| {
        let place = |start: &str| file.find(&format!("\n{start}{name}:"));
        place("").or_else(|| place("#   ")).unwrap_or_else(|| panic!("config.yaml has no {name}"))
    });
    names.dedup();
    names
}

fn find_accepted(section: &[&str], accepted: &mut BTreeSet<String>) {
    // No key is so short that one digit could be a slip of it.
    let (open, close) = braces(section);
    let text = format!("{open}0: 1{close}");
    let told = config::parse("test.yaml", &text, &Overrides::default()).expect_err("0 is no key").to_string();
    let Some((_, known)) = told.split_once("unknown key; known here: ") else { return };
    for key in known.lines().next().expect("a text has a first line").split(", ") {
        let path = [section, &[key]].concat();
        find_accepted(&path, accepted);
        accepted.insert(path.join("."));
    }
}

/// A configuration with `entry` in a key's section, and what must be given beside it.
fn in_its_section(key: &KeyDescription, entry: &str) -> String {
    let path = key.path.replace("[]", "");
    let section = path.strip_suffix(name(key)).expect("a path ends with the key's name").trim_end_matches('.');
    let beside = match section {
        "upstream" => "url: 'ws://127.0.0.1:9000', ",
        "on_server_loss" | "on_client_loss" => "code: 1012, ",
        _ => "",
    };
    let upstream = if section == "upstream" { "" } else { "upstream: ws://127.0.0.1:9000\n" };
    let (open, close) = braces(&section.split_terminator('.').collect::<Vec<_>>());
    format!("{upstream}{open}{beside}{entry}{close}")
}

/// What stands before and behind the inside of a section.
fn braces(section: &[&str]) -> (String, String) {
    (section.iter().map(|key| [key, ": {"].concat()).collect(), "}".repeat(section.len()))
}

/// The last part of a key's path.
fn name(key: &KeyDescription) -> &str {
    key.path.rsplit('.').next().expect("a split has a first part")
}

fn parse(text: &str) -> Config {
    config::parse("test.yaml", text, &Overrides::default()).unwrap_or_else(|errors| panic!("{text}:\n{errors}"))
}
