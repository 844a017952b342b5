//! `docs/metrics.md`, generated from `/metrics` at the start, which has all families and all series with known labels.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use closewatch::{
    config::Buckets,
    metrics::{Metrics, MetricsOptions, RouteMetrics},
    session::Summary,
    websocket::{
        PerEndpoint,
        close_code::{CloseCode, CloseStatus},
        closing_handshake::{Ending, Party},
    },
};

use crate::support::clean_close;

use super::{
    configuration,
    document::{Document, code, table},
};

#[test]
fn document_is_generated_from_the_exposition() {
    Document::open("metrics.md").must_say(&reference());
}

#[test]
fn document_has_the_place_of_every_family() {
    let written = Document::open("metrics.md").by_hand();
    let (_, after) = written.split_once("## Where each is taken\n").expect("the document has the wire");
    let wire = after.split("\n## ").next().expect("a split has a first part");
    let missing: Vec<_> = families().into_keys().filter(|name| !wire.contains(&code(name))).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn document_explains_every_label_value() {
    let written = Document::open("metrics.md").by_hand();
    let (_, meanings) = written.split_once("## What the label values mean\n").expect("the document has the meanings");
    let words: BTreeSet<_> = labels(&families())
        .iter()
        .flat_map(|row| listed(row.last().expect("the values are the last cell")))
        .filter(|value| value.parse::<u16>().is_err())
        .collect();
    let missing: Vec<_> = words.iter().filter(|word| !meanings.contains(&code(word))).collect();
    assert_eq!(missing, [""; 0]);
    assert!(words.len() > 50, "too few to be all: {words:?}");
}

/// Sessions with every code get exactly the labels of the document.
#[test]
fn code_labels_are_those_of_the_document() {
    let metrics = Metrics::new(options());
    let route = metrics.route("default");
    let sent = (0..=5000).map(|code| CloseStatus::Sent(CloseCode(code)));
    for status in sent.chain([CloseStatus::NoStatus, CloseStatus::Abnormal, CloseStatus::Malformed]) {
        close_session(&route, status);
    }
    let families = families_of(&metrics);
    let mut compared = 0;
    for (name, family) in families.iter().filter(|(name, _)| *name != "websocket_close_code_info") {
        for label in ["code", "client", "server"] {
            let Some(values) = family.labels.get(label) else { continue };
            assert_eq!(values, &listed(&codes(name)), "{label} of {name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 7);
}

/// The label values that a text lists.
fn listed(text: &str) -> BTreeSet<String> {
    let mut values = BTreeSet::new();
    let parts: Vec<_> = text.split('`').collect();
    for (index, value) in
        parts.iter().enumerate().skip(1).step_by(2).filter(|(_, value)| !value.starts_with("metrics."))
    {
        values.insert((*value).to_owned());
        if parts[index + 1] == " to " {
            let number = |part: &str| part.parse::<u16>().expect("a range is of numbers");
            values.extend((number(value)..number(parts[index + 2])).map(|code| code.to_string()));
        }
    }
    values
}

fn close_session(route: &RouteMetrics, status: CloseStatus) {
    let received = (status != CloseStatus::Abnormal).then_some(status);
    let received = PerEndpoint { client: received, server: received };
    let ending = Ending { received, ..clean_close(status, Party::Client) };
    let second = Duration::from_secs(1);
    route.session_opened();
    route.session_closed(&Summary { ending, duration: second, idle: second, ..Summary::lost() });
}

fn reference() -> String {
    let families = families();
    let (wire, process): (Vec<_>, Vec<_>) = families.iter().partition(|(name, _)| name.starts_with("websocket"));
    let histograms: Vec<_> = families.iter().filter(|(_, family)| family.kind == "histogram").collect();
    format!(
        "### Families\n\n{}\n### Labels\n\n{}\n### Buckets\n\n{}",
        table(
            &["name", "type", "unit", "labels", "what is counted or observed"],
            wire.into_iter().chain(process).map(|(name, family)| {
                let labels: Vec<_> = family.labels.keys().map(|label| code(label)).collect();
                let kind = family.kind.clone();
                vec![code(name), kind, unit(name).to_owned(), labels.join(", "), family.help.clone()]
            })
        ),
        table(&["label", "of", "values"], labels(&families)),
        table(
            &["histogram", "key", "upper bounds of its buckets, without the last, `+Inf`"],
            histograms.iter().map(|(name, family)| vec![
                code(name),
                code(&buckets_key(name)),
                family.bounds.join(", ")
            ])
        ),
    )
}

/// One row for each label and set of its values.
fn labels(families: &BTreeMap<String, Family>) -> Vec<Vec<String>> {
    let mut rows: BTreeMap<(&str, String), Vec<String>> = BTreeMap::new();
    for (name, family) in families {
        for (label, values) in &family.labels {
            rows.entry((label, describe(name, label, values))).or_default().push(code(name));
        }
    }
    let is_route = |label: &str| label == "route";
    rows.into_iter()
        .map(|((label, values), of)| {
            let of = if is_route(label) { "every family that has it".to_owned() } else { of.join(", ") };
            vec![code(label), of, values]
        })
        .collect()
}

/// The values of a label in words, or the rule that limits them if they are not all known at the start.
fn describe(family: &str, label: &str, values: &BTreeSet<String>) -> String {
    match label {
        "route" => "the routes' names, `default`, `probe`, empty".to_owned(),
        "status" => "`100` to `599`, `other`".to_owned(),
        "version" | "revision" | "rustc" => "of this build".to_owned(),
        "name" => "the registered name of `code`".to_owned(),
        "code" if family == "websocket_close_code_info" => "every code that IANA has registered alone".to_owned(),
        "code" | "client" | "server" => codes(family),
        _ => values.iter().map(|value| code(value)).collect::<Vec<_>>().join(", "),
    }
}

fn codes(family: &str) -> String {
    let synthesized = match family {
        "websocket_closes_total" => "`1005` to `1015`",
        "websocket_close_frames_total" => "`1005`, `1007` to `1014`",
        _ => "`1005` to `1014`",
    };
    let private = match family {
        "websocket_close_views_total" => "",
        name if name.ends_with("_seconds") => "those in `metrics.codes`, ",
        _ => "`3000`, `3003`, `3008`, those in `metrics.codes`, the first `metrics.max_custom_codes` others, ",
    };
    format!("`1000` to `1003`, {synthesized}, `reserved`, {private}`3xxx`, `4xxx`, `invalid`")
}

/// The unit at the end of a name, by the convention of Prometheus.
fn unit(name: &str) -> &'static str {
    let name = name.strip_suffix("_total").unwrap_or(name);
    ["seconds", "bytes"].into_iter().find(|unit| name.ends_with(unit)).unwrap_or_default()
}

/// The key of the configuration that names this histogram.
fn buckets_key(family: &str) -> String {
    let is_of = |key: &configuration::Key| key.path.starts_with("metrics.buckets.") && key.meaning.contains(family);
    configuration::keys().into_iter().find(is_of).unwrap_or_else(|| panic!("no key sets the buckets of {family}")).path
}

/// A family as it is exposed.
#[derive(Default)]
struct Family {
    help: String,
    kind: String,
    /// The labels with their values at the start.
    labels: BTreeMap<String, BTreeSet<String>>,
    /// The bounds of a histogram in rising order, without `+Inf`.
    bounds: Vec<String>,
}

fn families() -> BTreeMap<String, Family> {
    let metrics = Metrics::new(options());
    metrics.route("default");
    families_of(&metrics)
}

fn families_of(metrics: &Metrics) -> BTreeMap<String, Family> {
    let text = String::from_utf8(metrics.render()).expect("the text format is UTF-8");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        if let Some((family, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            name = family;
            families.insert(name.to_owned(), Family { help: help.to_owned(), ..Family::default() });
        } else {
            let family = families.get_mut(name).expect("HELP stands before all else of a family");
            family.read(line);
        }
    }
    families
}

impl Family {
    /// Reads a line after HELP.
    fn read(&mut self, line: &str) {
        if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            return kind.clone_into(&mut self.kind);
        }
        let Some((_, labels)) = line.split_once('{') else { return };
        let (labels, _) = labels.split_once('}').expect("a brace that is opened is closed");
        // No value at the start contains a comma or a quote.
        for (label, value) in labels.split(',').filter_map(|pair| pair.split_once('=')) {
            let value = value.trim_matches('"').to_owned();
            if label != "le" {
                self.labels.entry(label.to_owned()).or_default().insert(value);
            } else if value != "+Inf" && !self.bounds.contains(&value) {
                self.bounds.push(value);
            }
        }
    }
}

fn options() -> MetricsOptions {
    MetricsOptions {
        codes: Vec::new(),
        max_custom_codes: 0,
        buckets: Buckets::default(),
        workers: 1,
        registered_codes: vec![(1000, "Normal Closure")],
    }
}
