//! The keys that hold for the life of the process.

use super::Config;

/// Whether two configurations differ in a key.
type Differs = fn(&Config, &Config) -> bool;

/// Each by its path, for all keys below it.
const FIXED: [(&str, Differs); 7] = [
    ("workers", |old, new| old.worker_count() != new.worker_count()),
    ("keepalive", |old, new| old.keepalive != new.keepalive),
    ("admin.listen", |old, new| old.admin.listen != new.admin.listen),
    ("metrics.listen", |old, new| old.metrics.listen != new.metrics.listen),
    ("metrics.codes", |old, new| old.metrics.codes != new.metrics.codes),
    ("metrics.max_custom_codes", |old, new| old.metrics.max_custom_codes != new.metrics.max_custom_codes),
    ("metrics.buckets", |old, new| old.metrics.buckets != new.metrics.buckets),
];

impl Config {
    /// Returns the keys that differ in `wanted` from this running configuration, but cannot change without a restart.
    pub fn fixed_differences(&self, wanted: &Self) -> Vec<&'static str> {
        FIXED.iter().filter(|(_, differs)| differs(self, wanted)).map(|(key, _)| *key).collect()
    }
}

/// Returns whether the key at `path` cannot change without a restart.
pub fn needs_restart(path: &str) -> bool {
    let is_at = |key: &str| path.strip_prefix(key).is_some_and(|below| below.is_empty() || below.starts_with('.'));
    FIXED.iter().any(|(key, _)| is_at(key))
}
