//! Close codes as label values. The set is bounded, although endpoints may write any number.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::websocket::close_code::{CloseCode, CloseStatus};

/// Turns a Close status into its label value. A number from the wire is never counted as a synthesized code: 1005 and
/// 1006 on the wire are `invalid`.
#[derive(Debug)]
pub(super) struct CloseCodeLabels {
    /// Private codes with a series of their own in every family except the views (`metrics.codes`).
    listed: BTreeSet<u16>,
    /// The number of other codes from 3000 on that get digits in counters during the life of the process.
    max_custom: usize,
    /// The first `max_custom` of these. The lock keeps two threads from both taking the last place; only codes from 3000
    /// on that are neither registered nor listed take it.
    custom: Mutex<BTreeSet<u16>>,
}

impl CloseCodeLabels {
    pub(super) fn new(listed: impl IntoIterator<Item = u16>, max_custom: usize) -> Self {
        Self { listed: listed.into_iter().collect(), max_custom, custom: Mutex::default() }
    }

    /// The value in counters. From 3000 on, registered codes, listed codes and the first others appear in digits.
    pub(super) fn in_counters(&self, status: CloseStatus) -> Cow<'static, str> {
        label(status, |code| CloseCode(code).is_registered() || self.listed.contains(&code) || self.admits(code))
    }

    /// The value in histograms, which cost a series for each bucket. From 3000 on, only listed codes appear in digits.
    pub(super) fn in_histograms(&self, status: CloseStatus) -> Cow<'static, str> {
        label(status, |code| self.listed.contains(&code))
    }

    /// The value in the views, which multiply two codes. From 3000 on, no code appears in digits.
    pub(super) fn in_views(status: CloseStatus) -> Cow<'static, str> {
        label(status, |_| false)
    }

    /// Whether the code is among the first `max_custom` distinct ones.
    fn admits(&self, code: u16) -> bool {
        // No call leaves the set half changed, so a poisoned lock is harmless.
        let mut custom = self.custom.lock().unwrap_or_else(PoisonError::into_inner);
        custom.contains(&code) || (custom.len() < self.max_custom && custom.insert(code))
    }
}

/// The label value. `in_digits` decides about codes from 3000 on.
fn label(status: CloseStatus, in_digits: impl FnOnce(u16) -> bool) -> Cow<'static, str> {
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
        3000..=4999 if in_digits(code) => code.to_string().into(),
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
    fn codes_forbidden_on_wire_are_invalid() {
        let labels = CloseCodeLabels::new([], 16);
        for code in (0..=999).chain([1004, 1005, 1006, 1015]).chain(5000..=u16::MAX) {
            assert_eq!(labels.in_counters(sent(code)), "invalid", "{code}");
            assert_eq!(labels.in_histograms(sent(code)), "invalid", "{code}");
            assert_eq!(CloseCodeLabels::in_views(sent(code)), "invalid", "{code}");
        }
        assert_eq!(labels.in_counters(CloseStatus::Malformed), "invalid");
    }

    #[test]
    fn synthesized_codes_appear_in_digits() {
        let labels = CloseCodeLabels::new([], 0);
        assert_eq!(labels.in_counters(CloseStatus::NoStatus), "1005");
        assert_eq!(labels.in_counters(CloseStatus::Abnormal), "1006");
    }

    #[test]
    fn codes_of_rfc_appear_in_digits_everywhere() {
        let labels = CloseCodeLabels::new([], 0);
        for code in (1000..=1003).chain(1007..=1014) {
            assert_eq!(labels.in_counters(sent(code)), code.to_string());
            assert_eq!(labels.in_histograms(sent(code)), code.to_string());
            assert_eq!(CloseCodeLabels::in_views(sent(code)), code.to_string());
        }
    }

    #[test]
    fn unassigned_codes_are_reserved() {
        let labels = CloseCodeLabels::new([2000], 16);
        for code in 1016..=2999 {
            assert_eq!(labels.in_counters(sent(code)), "reserved", "{code}");
        }
    }

    #[test]
    fn registered_and_listed_codes_need_no_budget() {
        let labels = CloseCodeLabels::new([4001, 4003], 0);
        let expected = [(3000, "3000"), (3003, "3003"), (3008, "3008"), (4001, "4001"), (4003, "4003")];
        for (code, label) in expected {
            assert_eq!(labels.in_counters(sent(code)), label);
        }
        assert_eq!(labels.in_counters(sent(3001)), "3xxx");
        assert_eq!(labels.in_counters(sent(4999)), "4xxx");
    }

    #[test]
    fn first_other_codes_keep_their_digits() {
        let labels = CloseCodeLabels::new([4001], 2);
        assert_eq!(labels.in_counters(sent(4999)), "4999");
        assert_eq!(labels.in_counters(sent(3999)), "3999");
        assert_eq!(labels.in_counters(sent(4998)), "4xxx");
        assert_eq!(labels.in_counters(sent(3001)), "3xxx");
        assert_eq!(labels.in_counters(sent(4999)), "4999");
    }

    #[test]
    fn histograms_and_views_limit_codes_from_3000_on() {
        let labels = CloseCodeLabels::new([4001], 16);
        assert_eq!(labels.in_counters(sent(4500)), "4500");
        let expected = [(3000, "3xxx", "3xxx"), (4001, "4001", "4xxx"), (4500, "4xxx", "4xxx")];
        for (code, in_histograms, in_views) in expected {
            assert_eq!(labels.in_histograms(sent(code)), in_histograms);
            assert_eq!(CloseCodeLabels::in_views(sent(code)), in_views);
        }
    }

    #[test]
    fn racing_threads_stay_within_budget() {
        let code_labels = CloseCodeLabels::new([], 16);
        let labels = thread::scope(|scope| {
            let racers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(|| {
                        (4000..=4999).map(|code| code_labels.in_counters(sent(code))).collect::<BTreeSet<_>>()
                    })
                })
                .collect();
            racers.into_iter().flat_map(|racer| racer.join().unwrap()).collect::<BTreeSet<_>>()
        });
        assert_eq!(labels.len(), 17, "16 codes and 4xxx: {labels:?}");
    }
}
