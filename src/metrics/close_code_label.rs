//! Close codes as label values: a bounded set, whatever the endpoints write.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::websocket::close_code::{CloseCode, CloseStatus};

/// Gives each Close status its label value. What an endpoint wrote can never pass for a synthesized code: those are
/// statuses of their own, and the same numbers on the wire are `invalid`.
#[derive(Debug)]
pub(super) struct CodeLabels {
    /// Private codes that have a series of their own in every family but the views (`metrics.codes`).
    listed: BTreeSet<u16>,
    /// How many other codes from 3000 on may have one in counters, in the life of the process.
    max_custom: usize,
    /// Those that came first. Behind a lock, so that threads that race for the last place cannot both get it; it is
    /// taken only for codes from 3000 on that nobody announced.
    custom: Mutex<BTreeSet<u16>>,
}

impl CodeLabels {
    pub(super) fn new(listed: impl IntoIterator<Item = u16>, max_custom: usize) -> Self {
        Self { listed: listed.into_iter().collect(), max_custom, custom: Mutex::default() }
    }

    /// In counters: digits from 3000 on for registered and listed codes and for the first others, else the thousand.
    pub(super) fn in_counters(&self, status: CloseStatus) -> Cow<'static, str> {
        label(status, |code| CloseCode(code).is_registered() || self.listed.contains(&code) || self.admits(code))
    }

    /// In histograms, where each value costs a series per bucket: digits from 3000 on for listed codes only.
    pub(super) fn in_histograms(&self, status: CloseStatus) -> Cow<'static, str> {
        label(status, |code| self.listed.contains(&code))
    }

    /// In the views, where values multiply: never digits from 3000 on.
    pub(super) fn in_views(status: CloseStatus) -> Cow<'static, str> {
        label(status, |_| false)
    }

    /// Whether the code is among the first `max_custom` distinct ones.
    fn admits(&self, code: u16) -> bool {
        // The set is whole between any two calls, so a panic elsewhere under the lock changes nothing.
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        custom.contains(&code) || (custom.len() < self.max_custom && custom.insert(code))
    }
}

/// The label value, with a rule for which codes from 3000 on are told by their number.
fn label(status: CloseStatus, by_number: impl FnOnce(u16) -> bool) -> Cow<'static, str> {
    let CloseCode(code) = match status {
        CloseStatus::Sent(code) => code,
        CloseStatus::Malformed => return "invalid".into(),
        CloseStatus::NoStatus => return "1005".into(),
        CloseStatus::Abnormal => return "1006".into(),
    };
    match code {
        1000 => "1000".into(),
        1001 => "1001".into(),
        1002 | 1003 | 1007..=1014 => code.to_string().into(),
        1016..=2999 => "reserved".into(),
        3000..=4999 if by_number(code) => code.to_string().into(),
        3000..=3999 => "3xxx".into(),
        4000..=4999 => "4xxx".into(),
        _ => "invalid".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    fn sent(code: u16) -> CloseStatus {
        CloseStatus::Sent(CloseCode(code))
    }

    #[test]
    fn what_may_not_stand_on_the_wire_is_invalid_there() {
        let labels = CodeLabels::new([], 16);
        for code in (0..=999).chain([1004, 1005, 1006, 1015]).chain(5000..=u16::MAX) {
            assert_eq!(labels.in_counters(sent(code)), "invalid", "{code}");
            assert_eq!(labels.in_histograms(sent(code)), "invalid", "{code}");
            assert_eq!(CodeLabels::in_views(sent(code)), "invalid", "{code}");
        }
        assert_eq!(labels.in_counters(CloseStatus::Malformed), "invalid");
    }

    #[test]
    fn synthesized_codes_are_told_by_their_numbers() {
        let labels = CodeLabels::new([], 0);
        assert_eq!(labels.in_counters(CloseStatus::NoStatus), "1005");
        assert_eq!(labels.in_counters(CloseStatus::Abnormal), "1006");
    }

    #[test]
    fn the_rfc_s_own_codes_are_told_by_their_numbers_everywhere() {
        let labels = CodeLabels::new([], 0);
        for code in (1000..=1003).chain(1007..=1014) {
            assert_eq!(labels.in_counters(sent(code)), code.to_string());
            assert_eq!(labels.in_histograms(sent(code)), code.to_string());
            assert_eq!(CodeLabels::in_views(sent(code)), code.to_string());
        }
    }

    #[test]
    fn unassigned_codes_are_reserved() {
        let labels = CodeLabels::new([2000], 16);
        for code in 1016..=2999 {
            assert_eq!(labels.in_counters(sent(code)), "reserved", "{code}");
        }
    }

    #[test]
    fn registered_and_listed_codes_cost_nothing_of_the_budget() {
        let labels = CodeLabels::new([4001, 4003], 0);
        let expected = [(3000, "3000"), (3003, "3003"), (3008, "3008"), (4001, "4001"), (4003, "4003")];
        for (code, label) in expected {
            assert_eq!(labels.in_counters(sent(code)), label);
        }
        assert_eq!(labels.in_counters(sent(3001)), "3xxx");
        assert_eq!(labels.in_counters(sent(4999)), "4xxx");
    }

    #[test]
    fn the_first_other_codes_keep_their_numbers_for_good() {
        let labels = CodeLabels::new([4001], 2);
        assert_eq!(labels.in_counters(sent(4999)), "4999");
        assert_eq!(labels.in_counters(sent(3999)), "3999");
        assert_eq!(labels.in_counters(sent(4998)), "4xxx");
        assert_eq!(labels.in_counters(sent(3001)), "3xxx");
        assert_eq!(labels.in_counters(sent(4999)), "4999");
    }

    #[test]
    fn histograms_tell_listed_codes_only_and_views_none_from_3000_on() {
        let labels = CodeLabels::new([4001], 16);
        assert_eq!(labels.in_counters(sent(4500)), "4500");
        let expected = [(3000, "3xxx", "3xxx"), (4001, "4001", "4xxx"), (4500, "4xxx", "4xxx")];
        for (code, in_histograms, in_views) in expected {
            assert_eq!(labels.in_histograms(sent(code)), in_histograms);
            assert_eq!(CodeLabels::in_views(sent(code)), in_views);
        }
    }

    #[test]
    fn threads_that_race_for_the_budget_do_not_exceed_it() {
        let labels = CodeLabels::new([], 16);
        let told = thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| (4000..=4999).map(|code| labels.in_counters(sent(code))).collect::<BTreeSet<_>>())
                })
                .collect();
            racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect::<BTreeSet<_>>()
        });
        assert_eq!(told.len(), 17, "16 codes and 4xxx: {told:?}");
    }
}
