//! The ways in which frames break RFC 6455.

use std::iter;

/// A kind of breach, counted once for each session and sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
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
    /// A continuation where no message was begun (5.4).
    UnexpectedContinuation,
    /// A new message inside a fragmented one (5.4).
    ExpectedContinuation,
    /// A length not in its shortest form, or with its top bit set (5.2).
    LengthEncoding,
    /// A Close frame with one byte of payload, or with a code that may not be sent (7.4).
    CloseCode,
    /// A Close reason that is no UTF-8 (5.5.1).
    CloseReasonUtf8,
    /// A data frame after the Close frame (5.5.1).
    DataAfterClose,
}

impl Violation {
    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; 12] = [
        Self::Unmasked,
        Self::Masked,
        Self::ReservedOpcode,
        Self::ReservedBits,
        Self::ControlTooLong,
        Self::ControlFragmented,
        Self::UnexpectedContinuation,
        Self::ExpectedContinuation,
        Self::LengthEncoding,
        Self::CloseCode,
        Self::CloseReasonUtf8,
        Self::DataAfterClose,
    ];

    /// The label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unmasked => "unmasked",
            Self::Masked => "masked",
            Self::ReservedOpcode => "reserved_opcode",
            Self::ReservedBits => "reserved_bits",
            Self::ControlTooLong => "control_too_long",
            Self::ControlFragmented => "control_fragmented",
            Self::UnexpectedContinuation => "unexpected_continuation",
            Self::ExpectedContinuation => "expected_continuation",
            Self::LengthEncoding => "length_encoding",
            Self::CloseCode => "close_code",
            Self::CloseReasonUtf8 => "close_reason_utf8",
            Self::DataAfterClose => "data_after_close",
        }
    }
}

/// A set of breaches.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Violations(u16);

impl Violations {
    /// The set without a breach.
    pub const NONE: Self = Self(0);

    /// Whether there is none.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `violation` is one of them.
    pub const fn contains(self, violation: Violation) -> bool {
        self.0 & 1 << violation as u8 != 0
    }

    /// Adds one.
    pub const fn insert(&mut self, violation: Violation) {
        self.0 |= 1 << violation as u8;
    }

    /// Those of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn difference(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Each of them, in the order of [`Violation::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Violation> {
        let mut rest = self.0;
        iter::from_fn(move || {
            let place = (rest != 0).then(|| rest.trailing_zeros())?;
            rest &= rest - 1;
            Some(Violation::ALL[place as usize])
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
        for (count, violation) in Violation::ALL.into_iter().enumerate() {
            assert!(!set.contains(violation));
            set.insert(violation);
            assert!(set.contains(violation));
            assert_eq!(set.iter().collect::<Vec<_>>(), Violation::ALL[..=count]);
        }
        assert_eq!(set.difference(Violations::from_iter([Violation::Masked])).iter().count(), 11);
        assert_eq!(Violations::default(), Violations::NONE);
    }
}
