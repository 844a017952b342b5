//! The commands that a client sends to the demo's server as text messages.

use crate::{
    peer::{close_frame, empty_close_frame},
    websocket::close_code::{CloseCode, CloseFrame},
};

/// The largest sum of bytes of one `flood`.
const MAX_FLOOD_BYTES: u64 = 1 << 30;
/// The largest number of messages of one `flood`.
const MAX_FLOOD_MESSAGES: u64 = 1_000_000;
/// The largest message of a `flood`, in bytes.
const MAX_FLOOD_SIZE: u64 = 16 << 20;

/// A request to the demo's server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DemoCommand {
    /// `close`, `close CODE REASON...`: close with that code, legal or not; without a code by an empty Close frame.
    Close(CloseFrame),
    /// `abort`: send RST.
    Abort,
    /// `vanish`: send FIN without a Close frame.
    Vanish,
    /// `silent`: answer no Close frame any more.
    Silent,
    /// `ping`: send a Ping.
    Ping,
    /// `flood N SIZE`: send N messages of SIZE bytes.
    Flood { messages: usize, size: usize },
}

impl DemoCommand {
    /// Parses a command. `None` for any other text, which is echoed, and for a flood above the limits.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (word, rest) {
            ("close", "") => Some(Self::Close(empty_close_frame())),
            ("close", rest) => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                Some(Self::Close(close_frame(CloseCode(code.parse().ok()?), reason)))
            }
            ("abort", "") => Some(Self::Abort),
            ("vanish", "") => Some(Self::Vanish),
            ("silent", "") => Some(Self::Silent),
            ("ping", "") => Some(Self::Ping),
            ("flood", rest) => parse_flood(rest),
            _ => None,
        }
    }
}

fn parse_flood(arguments: &str) -> Option<DemoCommand> {
    let (messages, size) = arguments.split_once(' ')?;
    let (messages, size): (u64, u64) = (messages.parse().ok()?, size.parse().ok()?);
    let is_allowed = messages <= MAX_FLOOD_MESSAGES && size <= MAX_FLOOD_SIZE && messages * size <= MAX_FLOOD_BYTES;
    let (messages, size) = (usize::try_from(messages).ok()?, usize::try_from(size).ok()?);
    is_allowed.then_some(DemoCommand::Flood { messages, size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_differ_from_other_text() {
        let close = |code, reason: &str| Some(DemoCommand::Close(close_frame(CloseCode(code), reason)));
        let expected = [
            ("close", Some(DemoCommand::Close(empty_close_frame()))),
            ("close 1000", close(1000, "")),
            ("close 4001 signed out, sorry", close(4001, "signed out, sorry")),
            ("close 0", close(0, "")),
            ("close 65535", close(65535, "")),
            ("close 65536", None),
            ("close now", None),
            ("closed", None),
            ("abort", Some(DemoCommand::Abort)),
            ("abort it", None),
            ("vanish", Some(DemoCommand::Vanish)),
            ("silent", Some(DemoCommand::Silent)),
            ("ping", Some(DemoCommand::Ping)),
            ("flood 3 10", Some(DemoCommand::Flood { messages: 3, size: 10 })),
            ("flood 1000000 2000", None),
            ("flood 1 20000000", None),
            ("flood 3", None),
            ("hello", None),
            ("", None),
        ];
        for (text, command) in expected {
            assert_eq!(DemoCommand::parse(text), command, "{text:?}");
        }
    }
}
