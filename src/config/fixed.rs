//! The keys that hold for the life of the process.

use super::Config;

/// Whether two configurations differ in a key.
type Differs = fn(&Config, &Config) -> bool;

/// Each by its path, with all keys below.
const FIXED: [(&str, Differs); 7] = [
    ("workers", |old, new| old.workers != new.workers),
    ("keepalive", |old, new| old.keepalive != new.keepalive),
    ("admin.listen", |old, new| old.admin.listen != new.admin.listen),
    ("metrics.listen", |old, new| old.metrics.listen != new.metrics.listen),
    ("metrics.codes", |old, new| old.metrics.codes != new.metrics.codes),
    ("metrics.max_custom_codes", |old, new| old.metrics.max_custom_codes != new.metrics.max_custom_codes),
    ("metrics.buckets", |old, new| old.metrics.buckets != new.metrics.buckets),
];

impl Config {
    /// The keys in which `wanted` differs from this one, which runs, although they hold for the life of the process.
    pub fn fixed_differences(&self, wanted: &Self) -> Vec<&'static str> {
        FIXED.iter().filter(|(_, differs)| differs(self, wanted)).map(|(key, _)| *key).collect()
    }
}

/// Whether the key at `path` is one of them.
pub(super) fn is_fixed(path: &str) -> bool {
    let is_at = |key: &str| path.strip_prefix(key).is_some_and(|below| below.is_empty() || below.starts_with('.'));
    FIXED.iter().any(|(key, _)| is_at(key))
}
