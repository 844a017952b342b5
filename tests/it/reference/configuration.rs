//! `docs/configuration.md`, `deploy/config.schema.json` and the Helm chart's `values.schema.json`, made from the JSON
//! Schema of the configuration.

use std::{collections::BTreeSet, fs, path::Path};

use closewatch::config::{self, Config, Overrides};
use serde_json::{Value, json};

use super::document::{Document, code, must_have, table};

/// A configuration that shows the order of all keys.
const SAMPLE: &str = "
routes: [{name: a, match: {host: a, path_prefix: /a}, upstream: 'ws://h:1', on_server_loss: {code: 1012}}]
on_server_loss: {code: 1012}
on_client_loss: {code: 1012}
";

#[test]
fn documentation_is_made_from_the_schema() {
    Document::open("configuration.md").must_say(&reference());
}

#[test]
fn shipped_schema_is_the_schema() {
    must_have("deploy/config.schema.json", &format!("{:#}\n", config::schema()));
}

/// Helm does not resolve references to other files, so the chart has the schema in its own.
#[test]
fn chart_has_the_schema() {
    let path = "deploy/helm/closewatch/values.schema.json";
    let mut values: Value = serde_json::from_str(&read(path)).expect("the chart's schema is JSON");
    let mut schema = config::schema();
    let mut definitions = schema["definitions"].take();
    definitions["port"] = values["definitions"]["port"].take();
    for keyword in ["$schema", "definitions", "title"] {
        schema.as_object_mut().and_then(|schema| schema.remove(keyword));
    }
    definitions["Config"] = schema;
    values["definitions"] = definitions;
    must_have(path, &format!("{values:#}\n"));
}

/// The decoder lists the keys that it knows beside an unknown one.
#[test]
fn every_key_that_is_accepted_is_documented() {
    let mut accepted = BTreeSet::new();
    find_accepted(&[], &mut accepted);
    let documented: BTreeSet<_> = keys().iter().map(|key| key.path.replace("[]", "")).collect();
    assert_eq!(documented, accepted);
    assert!(accepted.len() > 60, "the search found too little: {accepted:?}");
}

#[test]
fn documented_default_changes_nothing() {
    let mut tried = 0;
    for key in keys().iter().filter(|key| !key.path.starts_with("routes[]") && !key.is_section) {
        let Some(default) = &key.default else { continue };
        let written_out = parse(&in_its_section(key, &format!("{}: {default}", key.name())));
        assert_eq!(written_out, parse(&in_its_section(key, "")), "{}: {default}", key.path);
        tried += 1;
    }
    assert!(tried > 50, "only {tried} keys have a default");
}

/// A key of the schema.
pub(super) struct Key {
    /// Such as `routes[].upstream.url`; `[]` is any one of a list.
    pub(super) path: String,
    pub(super) meaning: String,
    /// As errors say it; empty for a section that has no other form.
    allowed: String,
    default: Option<Value>,
    is_required: bool,
    is_section: bool,
}

impl Key {
    /// The last part of the path.
    fn name(&self) -> &str {
        self.path.rsplit('.').next().expect("a split has a first part")
    }

    /// The key of the root that it belongs to.
    fn section(&self) -> &str {
        self.path.split(['.', '[']).next().expect("a split has a first part")
    }
}

/// Every key, in the order of a configuration that is filled in.
pub(super) fn keys() -> Vec<Key> {
    let schema = config::schema();
    let mut keys = Vec::new();
    collect(&schema, &schema, "", &mut keys);
    let sample: serde_yaml::Value = serde_yaml::from_str(&parse(SAMPLE).to_yaml()).expect("the sample is YAML");
    let mut order = Vec::new();
    paths(&sample, "", &mut order);
    // A key that is never written comes last.
    let is_at = |path: &str, key: &Key| path == key.path || path.strip_prefix("routes[].") == Some(&key.path);
    keys.sort_by_key(|key| order.iter().position(|path| is_at(path, key)).unwrap_or(usize::MAX));
    keys
}

fn collect(root: &Value, section: &Value, path: &str, keys: &mut Vec<Key>) {
    let required = &section["required"];
    for (name, schema) in section["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let inner = section_of(root, schema);
        let (meaning, _) = description(schema);
        keys.push(Key {
            meaning,
            allowed: allowed(root, schema).unwrap_or_default(),
            default: schema.get("default").filter(|default| !default.is_null()).cloned(),
            is_required: required.as_array().is_some_and(|required| required.contains(&json!(name))),
            is_section: inner.is_some(),
            path: path.clone(),
        });
        if let Some((inner, is_list)) = inner {
            collect(root, inner, &format!("{path}{}", if is_list { "[]" } else { "" }), keys);
        }
    }
}

/// The schemas that a value may fit, with whether each is of a list's items.
fn alternatives<'s>(root: &'s Value, schema: &'s Value) -> Vec<(&'s Value, bool)> {
    let reference = schema["$ref"].as_str().and_then(|reference| root.pointer(reference.trim_start_matches('#')));
    let inner = ["anyOf", "allOf"].into_iter().flat_map(|keyword| schema[keyword].as_array().into_iter().flatten());
    let of_inner = reference.into_iter().chain(inner).flat_map(|inner| alternatives(root, inner));
    let of_items = schema.get("items").into_iter().flat_map(|items| alternatives(root, items));
    let of_items = of_items.map(|(schema, _)| (schema, true));
    [(schema, false)].into_iter().chain(of_inner).chain(of_items).collect()
}

fn section_of<'s>(root: &'s Value, schema: &'s Value) -> Option<(&'s Value, bool)> {
    let sections: Vec<_> =
        alternatives(root, schema).into_iter().filter(|(schema, _)| schema.get("properties").is_some()).collect();
    let is_list = sections.iter().any(|(_, is_list)| *is_list);
    sections.first().map(|(section, _)| (*section, is_list))
}

fn allowed(root: &Value, schema: &Value) -> Option<String> {
    let described = alternatives(root, schema).into_iter().find_map(|(schema, is_list)| {
        let (_, allowed) = description(schema);
        Some((allowed?, is_list))
    });
    described.map(|(allowed, is_list)| if is_list { format!("a list, each {allowed}") } else { allowed })
}

/// The meaning of a key, and what is allowed.
fn description(schema: &Value) -> (String, Option<String>) {
    let text = schema["description"].as_str().unwrap_or_default().replace('\n', " ");
    match text.split_once("Allowed: ") {
        Some((meaning, allowed)) => (meaning.trim().to_owned(), Some(allowed.trim_end_matches('.').to_owned())),
        None => (text, None),
    }
}

fn paths(value: &serde_yaml::Value, path: &str, found: &mut Vec<String>) {
    match value {
        serde_yaml::Value::Mapping(entries) => {
            for (key, value) in entries {
                let key = key.as_str().expect("keys are texts");
                let path = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                found.push(path.clone());
                paths(value, &path, found);
            }
        }
        serde_yaml::Value::Sequence(items) => {
            items.iter().take(1).for_each(|item| paths(item, &format!("{path}[]"), found));
        }
        _ => {}
    }
}

fn reference() -> String {
    let keys = keys();
    let is_for_all = |path: &str| keys.iter().any(|key| key.path == path);
    let shown: Vec<_> =
        keys.iter().filter(|key| key.path.strip_prefix("routes[].").is_none_or(|path| !is_for_all(path))).collect();
    let per_route = |path: &str| is_for_all(&format!("routes[].{path}"));
    let sections = in_the_order_of_the_file(&shown).into_iter().map(|name| {
        let keys: Vec<_> = shown.iter().filter(|key| key.section() == name).collect();
        let section = keys.iter().find(|key| key.path == name && key.is_section);
        let lead = section.map(|key| format!("{}{}\n\n", key.meaning, forms(key))).unwrap_or_default();
        let rows =
            keys.iter().filter(|key| key.path != name || !key.is_section || key.default == Some(json!("propagate")));
        let rows = rows.map(|key| row(key, per_route(&key.path)));
        let head = ["key", "default", "per route", "reload", "meaning"];
        format!("## `{name}`\n\n{lead}{}", table(&head, rows))
    });
    sections.collect::<Vec<_>>().join("\n")
}

/// The other forms of a section.
fn forms(key: &Key) -> String {
    match (key.name(), key.allowed.as_str()) {
        (_, "") | ("routes", _) => String::new(),
        ("listen", _) => " Each is keys and values, or the value of `address` alone.".to_owned(),
        ("upstream", _) => " It is keys and values, or the value of `url` alone.".to_owned(),
        (_, allowed) => format!(" Allowed: {allowed}."),
    }
}

fn row(key: &Key, per_route: bool) -> Vec<String> {
    let default = match &key.default {
        _ if key.is_section && key.allowed.is_empty() => String::new(),
        Some(default) => code(&flow(default)),
        None if key.is_required => "required".to_owned(),
        None => "none".to_owned(),
    };
    let allowed = if key.allowed.is_empty() { String::new() } else { format!("<br>*Allowed: {}.*", key.allowed) };
    let per_route = if per_route { "yes" } else { "" };
    let reload = if config::needs_restart(&key.path) { "restart" } else { "yes" };
    vec![code(&key.path), default, per_route.to_owned(), reload.to_owned(), format!("{}{allowed}", key.meaning)]
}

/// A value as it is written in YAML on one line.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) if text.is_empty() => "\"\"".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", items.iter().map(flow).collect::<Vec<_>>().join(", ")),
        other => other.to_string(),
    }
}

/// The keys of the root as they stand in `config.yaml`, where that of `routes` is a comment.
fn in_the_order_of_the_file<'a>(keys: &[&'a Key]) -> Vec<&'a str> {
    let file = read("config.yaml");
    let mut names: Vec<_> = keys.iter().map(|key| key.section()).collect();
    names.sort_by_key(|name| {
        let place = |start: &str| file.find(&format!("\n{start}{name}:"));
        place("").or_else(|| place("#   ")).unwrap_or_else(|| panic!("config.yaml has no {name}"))
    });
    names.dedup();
    names
}

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).expect("the file can be read")
}

fn find_accepted(section: &[&str], accepted: &mut BTreeSet<String>) {
    // No key is like one digit.
    let (open, close) = braces(section);
    let text = format!("{open}0: 1{close}");
    let errors = config::parse("test.yaml", &text, &Overrides::default()).expect_err("0 is no key");
    let Some((_, known)) = errors.split_once("unknown key; known here: ") else { return };
    for key in known.lines().next().expect("a text has a first line").split(", ") {
        let path = [section, &[key]].concat();
        find_accepted(&path, accepted);
        accepted.insert(path.join("."));
    }
}

/// A configuration with `entry` in a key's section, and the required keys beside it.
fn in_its_section(key: &Key, entry: &str) -> String {
    let path = key.path.replace("[]", "");
    let section = path.strip_suffix(key.name()).expect("a path ends with the key's name").trim_end_matches('.');
    let beside = match section {
        "upstream" => "url: 'ws://127.0.0.1:9000', ",
        "on_server_loss" | "on_client_loss" => "code: 1012, ",
        _ => "",
    };
    let upstream = if section == "upstream" { "" } else { "upstream: ws://127.0.0.1:9000\n" };
    let (open, close) = braces(&section.split_terminator('.').collect::<Vec<_>>());
    format!("{upstream}{open}{beside}{entry}{close}")
}

/// The text before and after the inside of a section.
fn braces(section: &[&str]) -> (String, String) {
    (section.iter().map(|key| [key, ": {"].concat()).collect(), "}".repeat(section.len()))
}

fn parse(text: &str) -> Config {
    config::parse("test.yaml", text, &Overrides::default()).unwrap_or_else(|errors| panic!("{text}:\n{errors}"))
}
