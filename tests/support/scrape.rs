//! What `/metrics` answered.

/// One scrape.
#[derive(Debug)]
pub(crate) struct Scrape {
    text: String,
}

impl Scrape {
    pub(crate) fn new(text: String) -> Self {
        Self { text }
    }

    /// The sum of a metric's samples that have all these labels.
    pub(crate) fn sum(&self, metric: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
        self.samples(metric)
            .filter(|(found, _)| wanted.iter().all(|label| has_label(found, label)))
            .map(|it| it.1)
            .sum()
    }

    /// The samples that are not 0, as `labels value`.
    pub(crate) fn nonzero(&self, metric: &str) -> Vec<String> {
        let samples = self.samples(metric).filter(|(_, value)| *value != 0.0);
        samples.map(|(labels, value)| format!("{labels} {value}")).collect()
    }

    /// At rest three sums hold (interface, 3).
    pub(crate) fn assert_sums(&self) {
        let closes = self.sum("websocket_closes_total", &[]);
        let opened = self.sum("websocket_handshakes_total", &[("status", "101")]);
        let active = self.sum("websocket_sessions_active", &[]);
        let unclean = self.sum("websocket_closes_total", &[("clean", "false")]);
        let sums = [
            ("closes", closes, opened - active),
            ("close events", self.sum("websocket_close_events_total", &[]), 2.0 * closes),
            ("close views", self.sum("websocket_close_views_total", &[]), closes),
            ("abnormal closes", self.sum("websocket_abnormal_closes_total", &[]), unclean),
        ];
        for (what, found, expected) in sums {
            assert!((found - expected).abs() < 0.5, "{what}: {found} instead of {expected}");
        }
    }

    fn samples(&self, metric: &str) -> impl Iterator<Item = (&str, f64)> {
        let lines = self.text.lines().filter_map(move |line| line.strip_prefix(metric));
        lines.filter(|rest| rest.starts_with(['{', ' '])).map(|rest| {
            let (labels, value) = rest.rsplit_once(' ').unwrap();
            (labels, value.parse().unwrap())
        })
    }
}

fn has_label(labels: &str, wanted: &str) -> bool {
    labels.trim_matches(['{', '}']).split(',').any(|label| label == wanted)
}
