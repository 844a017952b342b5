//! The families `process_*` from `/proc`, as every exporter has them. A family whose file cannot be read is left out.
//!
//! The collector of the `prometheus` crate reports CPU time in whole seconds, which is too coarse here.

use std::fs;
use std::str::FromStr;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{MetricFamily, MetricType};

use super::exposition;

struct ProcessFamily {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    read: fn() -> Option<f64>,
}

static FAMILIES: [ProcessFamily; 7] = [
    ProcessFamily {
        name: "process_cpu_seconds_total",
        help: "Total user and system CPU time spent in seconds.",
        kind: MetricType::COUNTER,
        read: || cpu_seconds(&fs::read_to_string("/proc/self/stat").ok()?),
    },
    ProcessFamily {
        name: "process_open_fds",
        help: "Number of open file descriptors.",
        kind: MetricType::GAUGE,
        // The descriptor that reads the directory is not counted.
        read: || Some(fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64),
    },
    ProcessFamily {
        name: "process_max_fds",
        help: "Maximum number of open file descriptors.",
        kind: MetricType::GAUGE,
        read: || field(&fs::read_to_string("/proc/self/limits").ok()?, "Max open files"),
    },
    ProcessFamily {
        name: "process_virtual_memory_bytes",
        help: "Virtual memory size in bytes.",
        kind: MetricType::GAUGE,
        read: || Some(field::<f64>(&status()?, "VmSize:")? * KIBIBYTE),
    },
    ProcessFamily {
        name: "process_resident_memory_bytes",
        help: "Resident memory size in bytes.",
        kind: MetricType::GAUGE,
        read: || Some(field::<f64>(&status()?, "VmRSS:")? * KIBIBYTE),
    },
    ProcessFamily {
        name: "process_start_time_seconds",
        help: "Start time of the process since the Unix epoch in seconds.",
        kind: MetricType::GAUGE,
        read: || start_time(&fs::read_to_string("/proc/self/stat").ok()?, &fs::read_to_string("/proc/stat").ok()?),
    },
    ProcessFamily {
        name: "process_threads",
        help: "Number of threads.",
        kind: MetricType::GAUGE,
        read: || field(&status()?, "Threads:"),
    },
];

/// Collects the families above.
pub(super) struct ProcessCollector {
    /// One for each of [`FAMILIES`], in the same order.
    descriptions: Vec<Desc>,
}

impl ProcessCollector {
    pub(super) fn new() -> Self {
        Self {
            descriptions: FAMILIES.iter().map(|family| exposition::describe(family.name, family.help, &[])).collect(),
        }
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        self.descriptions.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let families = FAMILIES.iter().zip(&self.descriptions);
        families
            .filter_map(|(family, description)| {
                let series = exposition::sample(family.kind, &[], (family.read)()?);
                Some(exposition::family(description, family.kind, vec![series]))
            })
            .collect()
    }
}

/// `USER_HZ`, the unit of times in `/proc`: 100 on every architecture that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// The unit that `/proc/self/status` calls `kB`.
const KIBIBYTE: f64 = 1024.0;

fn status() -> Option<String> {
    fs::read_to_string("/proc/self/status").ok()
}

/// The first word behind a name at the beginning of a line.
fn field<T: FromStr>(text: &str, name: &str) -> Option<T> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// User and system time of all threads: fields 14 and 15 of `/proc/self/stat`.
fn cpu_seconds(stat: &str) -> Option<f64> {
    Some((stat_field(stat, 14)? + stat_field(stat, 15)?) / TICKS_PER_SECOND)
}

/// The start of the process: field 22 of `/proc/self/stat`, since the boot, whose time is in `/proc/stat`.
fn start_time(own_stat: &str, system_stat: &str) -> Option<f64> {
    Some(field::<f64>(system_stat, "btime")? + stat_field(own_stat, 22)? / TICKS_PER_SECOND)
}

/// A field of `/proc/self/stat`, numbered from 1 as in proc(5). The second field is the name of the program in
/// parentheses, and may itself contain spaces and parentheses.
fn stat_field(stat: &str, number: usize) -> Option<f64> {
    let (_, behind_name) = stat.rsplit_once(')')?;
    behind_name.split_whitespace().nth(number.checked_sub(3)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &str =
        "42 (a (b) c) S 1 42 42 0 -1 4194560 1523 0 2 0 123 27 0 0 20 0 9 0 8512 1000000 500 18446744073709551615";

    #[test]
    fn cpu_time_has_fractions() {
        assert_eq!(cpu_seconds(STAT), Some(1.5));
    }

    #[test]
    fn start_time_is_counted_from_boot() {
        assert_eq!(start_time(STAT, "cpu 1 2 3\nbtime 1700000000\nprocesses 7\n"), Some(1_700_000_085.12));
    }

    #[test]
    fn fields_without_number_are_left_out() {
        assert_eq!(field::<f64>("Max open files            unlimited  unlimited  files\n", "Max open files"), None);
        assert_eq!(field::<f64>("Threads:\t9\n", "Threads:"), Some(9.0));
        assert_eq!(cpu_seconds(""), None);
    }

    #[test]
    fn every_family_has_a_value_on_linux() {
        let missing: Vec<_> = FAMILIES.iter().filter(|family| (family.read)().is_none()).map(|f| f.name).collect();
        assert_eq!(missing, [""; 0]);
    }
}
