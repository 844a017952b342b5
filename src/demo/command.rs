//! What a client can ask of the demo's server by a text message.

use crate::peer::CloseFrame;

/// How much one `flood` may send, in bytes.
const FLOOD_LIMIT: u64 = 1 << 30;
/// How many messages one `flood` may send.
const FLOOD_MESSAGES: u64 = 1_000_000;
/// The largest message of a `flood`, in bytes.
const FLOOD_MESSAGE_SIZE: u64 = 16 << 20;

/// A request to the demo's server.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// `close`, `close CODE REASON...`: closes with that code, legal or not; without one the Close frame is empty.
    Close(CloseFrame),
    /// `abort`: sends RST.
    Abort,
    /// `vanish`: FIN without a Close frame.
    Vanish,
    /// `silent`: leaves Close frames unanswered from now on.
    Silent,
    /// `ping`: sends a Ping.
    Ping,
    /// `flood N SIZE`: sends that many messages of that many bytes.
    Flood { messages: usize, size: usize },
}

impl Command {
    /// Reads a command; `None` for any other text, which is to be echoed. A flood beyond the limits is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
        match (word, rest) {
            ("close", "") => Some(Self::Close(CloseFrame::default())),
            ("close", rest) => {
                let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
                Some(Self::Close(CloseFrame::new(code.parse().ok()?, reason)))
            }
            ("abort", "") => Some(Self::Abort),
            ("vanish", "") => Some(Self::Vanish),
            ("silent", "") => Some(Self::Silent),
            ("ping", "") => Some(Self::Ping),
            ("flood", rest) => flood(rest),
            _ => None,
        }
    }
}

fn flood(arguments: &str) -> Option<Command> {
    let (messages, size) = arguments.split_once(' ')?;
    let (messages, size): (u64, u64) = (messages.parse().ok()?, size.parse().ok()?);
    let allowed = messages <= FLOOD_MESSAGES && size <= FLOOD_MESSAGE_SIZE && messages * size <= FLOOD_LIMIT;
    allowed.then_some(Command::Flood { messages: usize::try_from(messages).ok()?, size: usize::try_from(size).ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_told_from_other_text() {
        let close = |code, reason: &str| Some(Command::Close(CloseFrame::new(code, reason)));
        let expected = [
            ("close", Some(Command::Close(CloseFrame::default()))),
            ("close 1000", close(1000, "")),
            ("close 4001 signed out, sorry", close(4001, "signed out, sorry")),
            ("close 0", close(0, "")),
            ("close 65535", close(65535, "")),
            ("close 65536", None),
            ("close now", None),
            ("closed", None),
            ("abort", Some(Command::Abort)),
            ("abort it", None),
            ("vanish", Some(Command::Vanish)),
            ("silent", Some(Command::Silent)),
            ("ping", Some(Command::Ping)),
            ("flood 3 10", Some(Command::Flood { messages: 3, size: 10 })),
            ("flood 1000000 2000", None),
            ("flood 1 20000000", None),
            ("flood 3", None),
            ("hello", None),
            ("", None),
        ];
        for (text, command) in expected {
            assert_eq!(Command::parse(text), command, "{text:?}");
        }
    }
}
