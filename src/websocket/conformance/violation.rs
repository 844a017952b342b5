//! The ways in which frames break RFC 6455.

use std::iter;

use strum::VariantArray;

/// A kind of violation, counted once for each session and sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
#[repr(u8)]
pub enum Violation {
    /// A client's frame without a mask (5.1).
    Unmasked,
    /// A server's frame with a mask (5.1).
    Masked,
    /// An opcode without a meaning (5.2).
    ReservedOpcode,
    /// An RSV bit that no agreed extension explains (5.2).
    ReservedBits,
    /// A control frame with more than 125 bytes of payload (5.5).
    ControlTooLong,
    /// A control frame in fragments (5.5).
    ControlFragmented,
    /// A continuation outside of a message (5.4).
    UnexpectedContinuation,
    /// A new message inside a fragmented one (5.4).
    ExpectedContinuation,
    /// A length not in its shortest form, or with its top bit set (5.2).
    LengthEncoding,
    /// A Close frame with one byte of payload, or with a code that may not be sent (7.4).
    CloseCode,
    /// A Close reason that is not UTF-8 (5.5.1).
    #[strum(serialize = "close_reason_utf8")]
    CloseReasonUtf8,
    /// A data frame after the Close frame (5.5.1).
    DataAfterClose,
}

impl Violation {
    /// The label value.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}

/// A set of violations.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Violations(u16);

impl Violations {
    /// The empty set.
    pub const NONE: Self = Self(0);

    /// The kinds after which the receiver goes on reading. At any other it must fail the connection (RFC 6455, 5 and 7.1.7).
    const TOLERATED: Self = Self(1 << Violation::LengthEncoding as u8 | 1 << Violation::DataAfterClose as u8);

    /// The kinds that only a Close frame, or a frame after it, can have.
    pub(super) const OF_CLOSE: Self = Self(
        1 << Violation::CloseCode as u8 | 1 << Violation::CloseReasonUtf8 as u8 | 1 << Violation::DataAfterClose as u8,
    );

    /// Whether the set is empty.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether one of them demands that its receiver fails the connection.
    pub const fn fail_the_connection(self) -> bool {
        !self.difference(Self::TOLERATED).is_empty()
    }

    /// Whether `violation` is one of them.
    pub const fn contains(self, violation: Violation) -> bool {
        self.0 & 1 << violation as u8 != 0
    }

    /// Adds one.
    pub const fn insert(&mut self, violation: Violation) {
        self.0 |= 1 << violation as u8;
    }

    /// The union of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The violations that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Each violation, in the order of their numbers.
    pub fn iter(self) -> impl Iterator<Item = Violation> {
        let mut rest = self.0;
        iter::from_fn(move || {
            let place = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(Violation::VARIANTS[place as usize])
        })
    }
}

impl FromIterator<Violation> for Violations {
    fn from_iter<I: IntoIterator<Item = Violation>>(violations: I) -> Self {
        let mut set = Self::NONE;
        violations.into_iter().for_each(|violation| set.insert(violation));
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_of_violations_holds_each_kind() {
        let mut set = Violations::NONE;
        for (count, violation) in Violation::VARIANTS.iter().copied().enumerate() {
            assert!(!set.contains(violation));
            set.insert(violation);
            assert!(set.contains(violation));
            assert_eq!(set.iter().collect::<Vec<_>>(), Violation::VARIANTS[..=count]);
        }
        assert_eq!(set.difference(Violations::from_iter([Violation::Masked])).iter().count(), 11);
        assert_eq!(Violations::default(), Violations::NONE);
    }
}
