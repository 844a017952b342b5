//! Every ending as a row of a table: the events on the left, and on the right what closewatch does and reports. The right
//! side is written by hand from the rules.
//!
//! A row runs four times: with the client as `a` and the server as `b` and the other way round, over plain and over
//! buffered connections. The session must be over with the row's last event, and not before.
//!
//! # Events
//!
//! `a:FRAME` is a read of bytes from `a`: a [`frame`], or several joined by `&`; each may be a slice, as
//! `text[..8]`. `a:~FRAME` are bytes that wait in the socket and whose event has not come yet. `a:fin`, `a:rst`,
//! `a:timeout`, `a:unreachable`, `a:tls`: its leg ends so. `a:stalls`: its connection takes nothing more; `a:reads`: it does
//! again. `a:silent`: it acknowledges nothing more; `a:acks`: it does again. `a:dies`: the next write to it meets an RST.
//! `+5s`: so much time passes. `idle=60s` and its like, first in a row, set the policy; without them `close` is 65 s,
//! `hang_up` 2 s, and `buffer_bytes` without limit. `drain` (Close 1001, terminates after 20 s), `control` (Close 1012) and
//! `stop` come from closewatch.
//!
//! # Endings
//!
//! `reported` is the code, the initiator, then `clean` or the cause as `endpoint:cause`, then `+action`. `saw` is the close
//! event of that endpoint, with `clean` if it is. A code that is not allowed on the wire has `!` before it, a Close frame of
//! one byte is `!`; 1005 and 1006 are the synthesized ones. `got` are the bytes written to that endpoint, with closewatch's own Close frame
//! in `<>`; then how closewatch ended its leg: by `fin` or `rst`, or only when the session was over (`cut`); `lost` if the
//! leg had gone by itself.

use std::{collections::HashMap, time::Duration};

use super::super::testing::{Harness, Kind, LegOutcome};
use crate::{
    session::{LegEnd, Policy, Summary},
    websocket::{
        Endpoint, PerEndpoint,
        close_code::{CloseCode, CloseStatus, CloseText},
        closing_handshake::{Action, CloseEvent, Ending, Fault, Party},
        frame::{self, Opcode},
    },
};

/// Complete closing handshakes, with every order of answers and hang-ups.
const COMPLETE: &str = "
events                               | reported          | a saw      | b saw       | a got     | b got
a:1000 b:1000 a:fin                  | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | 1000 fin
a:1000 b:1000 b:fin                  | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | 1000 fin
a:1000 b:1000 a:rst                  | 1000 a clean  | 1000 clean | 1000 clean  | 1000 lost | 1000 fin
a:1000 b:1000 b:rst                  | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | 1000 lost
a:1000 b:1000 a:timeout              | 1000 a clean  | 1000 clean | 1000 clean  | 1000 lost | 1000 fin
a:1000 b:1000 b:unreachable          | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | 1000 lost
a:1000 b:1000 +1s +1s                | 1000 a clean  | 1000 clean | 1000 clean  | 1000 cut  | 1000 cut
a:1000 +64s b:1000 +2s               | 1000 a clean  | 1000 clean | 1000 clean  | 1000 cut  | 1000 cut
# The code of the first Close frame is reported; each endpoint sees the other's.
a:1001 b:1000 b:fin                  | 1001 a clean  | 1000 clean | 1001 clean  | 1000 fin  | 1001 fin
a:1011 b:1011 b:fin                  | 1011 a clean  | 1011 clean | 1011 clean  | 1011 fin  | 1011 fin
a:4999 b:1000 b:fin                  | 4999 a clean  | 1000 clean | 4999 clean  | 1000 fin  | 4999 fin
a:2999 b:1002 b:fin                  | 2999 a clean  | 1002 clean | 2999 clean  | 1002 fin  | 2999 fin
a:empty b:empty b:fin                | 1005 a clean  | 1005 clean | 1005 clean  | empty fin | empty fin
a:empty b:1000 b:fin                 | 1005 a clean  | 1000 clean | 1005 clean  | 1000 fin  | empty fin
a:1000 b:empty b:fin                 | 1000 a clean  | 1005 clean | 1000 clean  | empty fin | 1000 fin
# Codes that are not allowed on the wire, with an answer.
a:!0 b:1002 b:fin                    | !0 a clean    | 1002 clean | !0 clean    | 1002 fin  | !0 fin
a:!999 b:1002 b:fin                  | !999 a clean  | 1002 clean | !999 clean  | 1002 fin  | !999 fin
a:!1004 b:1002 b:fin                 | !1004 a clean | 1002 clean | !1004 clean | 1002 fin  | !1004 fin
a:!1005 b:1002 b:fin                 | !1005 a clean | 1002 clean | !1005 clean | 1002 fin  | !1005 fin
a:!1006 b:1002 b:fin                 | !1006 a clean | 1002 clean | !1006 clean | 1002 fin  | !1006 fin
a:!1015 b:1002 b:fin                 | !1015 a clean | 1002 clean | !1015 clean | 1002 fin  | !1015 fin
a:!5000 b:1002 b:fin                 | !5000 a clean | 1002 clean | !5000 clean | 1002 fin  | !5000 fin
a:! b:1002 b:fin                     | ! a clean     | 1002 clean | ! clean     | 1002 fin  | ! fin
a:1000 b:!1006 b:fin                 | 1000 a clean  | !1006 clean | 1000 clean | !1006 fin | 1000 fin
a:1000 b:! b:fin                     | 1000 a clean  | ! clean    | 1000 clean  | ! fin     | 1000 fin
# A FIN directly behind the own Close frame, or behind the answer, changes nothing.
a:1000 a:fin b:1000                  | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | 1000 fin
a:text&1000 a:fin b:text&1000        | 1000 a clean  | 1000 clean | 1000 clean  | text&1000 fin | text&1000 fin
a:1000 a:fin b:stalls a:silent b:1000 | 1000 a clean | 1000 clean | 1000 clean  | 1000 fin  | 1000 fin
a:1000 a:text[..8] a:fin b:1000      | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | 1000&text[..8] fin
a:stalls a:1000 a:fin b:1000 b:fin a:reads | 1000 a clean | 1000 clean | 1000 clean | 1000 fin | 1000 fin
a:stalls a:1000 b:1000 b:rst a:reads | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | 1000 lost
# Frames in pieces, and frames after the Close frames.
a:1000[..3] a:1000[3..] b:1000 b:fin | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | 1000 fin
a:1000[..1] a:1000[1..] b:1000[..1] b:1000[1..] b:fin | 1000 a clean | 1000 clean | 1000 clean | 1000 fin | 1000 fin
a:1000 a:text b:1000 b:text b:fin    | 1000 a clean  | 1000 clean | 1000 clean  | 1000&text fin | 1000&text fin
a:1000 a:1001 b:1000 b:fin           | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | 1000&1001 fin
a:1000 b:1000 b:stalls a:text a:fin +2s | 1000 a clean | 1000 clean | 1000 clean | 1000 fin | 1000 cut
hang_up=100s a:1000 b:1000 b:stalls a:text a:fin +99s +1s | 1000 a clean | 1000 clean | 1000 clean | 1000 fin | 1000 cut
# Frames that cross on the wire: the one read first is the first, even if its receiver takes it last.
a:stalls b:stalls a:1000 b:1001 a:reads b:reads a:fin | 1000 a clean | 1001 clean | 1000 clean | 1001 fin | 1000 fin
b:stalls a:1000 b:1001 b:reads b:fin | 1000 a clean  | 1001 clean | 1000 clean  | 1001 fin  | 1000 fin
b:stalls a:1000 b:1001 b:fin b:reads | 1000 a clean  | 1001 clean | 1000 clean  | 1001 fin  | 1000 fin
b:stalls a:1000 a:fin b:1001 b:fin b:reads | 1000 a clean | 1001 clean | 1000 clean | 1001 fin | 1000 fin
# The answer was delivered to the first sender, which resets while its own Close frame is still on its way.
b:stalls a:1000 b:1001 a:rst b:reads | 1000 a clean  | 1001 clean | 1000 clean  | 1001 lost | 1000 fin
# After a violation, a well-formed Close frame counts.
a:breach a:1000 b:1000 b:fin         | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | breach&1000 fin
a:breach&!1006&1000 b:1000 b:fin     | 1000 a clean  | 1000 clean | 1000 clean  | 1000 fin  | breach&!1006&1000 fin
";

/// A Close frame came first, and an answer or a delivery is missing.
const UNANSWERED: &str = "
events                            | reported                    | a saw      | b saw      | a got     | b got
a:1000 b:fin a:fin                | 1000 a b:eof            | 1006       | 1000       | fin       | 1000 fin
a:1000 a:fin b:fin                | 1000 a b:eof            | 1006       | 1000       | fin       | 1000 fin
a:1000 b:text b:fin a:fin         | 1000 a b:eof            | 1006       | 1000       | text fin  | 1000 fin
a:1000 b:text[..8] b:fin a:fin    | 1000 a b:truncated      | 1006       | 1000       | text[..8] fin | 1000 fin
a:1000 b:1000[..3] b:fin a:fin    | 1000 a b:truncated      | 1006       | 1000       | 1000[..3] fin | 1000 fin
a:1000 b:rst                      | 1000 a b:reset          | 1006       | 1000       | rst       | 1000 lost
a:1000 b:timeout                  | 1000 a b:timeout        | 1006       | 1000       | rst       | 1000 lost
a:1000 b:unreachable              | 1000 a b:unreachable    | 1006       | 1000       | rst       | 1000 lost
a:1000 b:tls a:fin                | 1000 a b:tls            | 1006       | 1000       | fin       | 1000 lost
a:1000 a:tls b:1000 b:fin         | 1000 a a:tls            | 1006       | 1000 clean | lost      | 1000 fin
a:1000 a:fin b:rst                | 1000 a b:reset          | 1006       | 1000       | rst       | 1000 lost
a:1000 b:fin b:rst                | 1000 a b:eof            | 1006       | 1000       | rst       | 1000 lost
a:1000 b:fin a:rst                | 1000 a b:eof            | 1006       | 1000       | lost      | 1000 fin
a:1000 b:fin +65s                 | 1000 a b:eof            | 1006       | 1000       | fin       | 1000 cut
a:1000 +65s                       | 1000 a b:no_close_reply | 1006       | 1000       | cut       | 1000 cut
a:1000 +64s b:text +1s            | 1000 a b:no_close_reply | 1006       | 1000       | text cut  | 1000 cut
a:1000 a:fin +65s                 | 1000 a b:no_close_reply | 1006       | 1000       | cut       | 1000 fin
a:empty a:fin b:fin               | 1005 a b:eof            | 1006       | 1005       | fin       | empty fin
a:empty +65s                      | 1005 a b:no_close_reply | 1006       | 1005       | cut       | empty cut
a:!1006 b:fin a:fin               | !1006 a b:eof           | 1006       | !1006      | fin       | !1006 fin
a:! b:rst                         | ! a b:reset             | 1006       | !          | rst       | ! lost
a:1000&text b:fin a:fin           | 1000 a b:eof            | 1006       | 1000       | fin       | 1000&text fin
# After a violation, a Close frame that is not well-formed is no answer.
a:1000 b:breach&!1006 b:fin a:fin | 1000 a b:eof            | 1006       | 1000       | breach&!1006 fin | 1000 fin
# The first sender resets, or loses its leg, before the answer could be delivered.
a:1000 a:rst b:fin                | 1000 a a:reset          | 1006       | 1000       | lost      | 1000 fin
a:1000 a:rst b:1000 b:fin         | 1000 a a:reset          | 1006       | 1000 clean | lost      | 1000 fin
a:1000 a:timeout b:1000 b:fin     | 1000 a a:timeout        | 1006       | 1000 clean | lost      | 1000 fin
a:1000 a:unreachable b:rst        | 1000 a a:unreachable    | 1006       | 1000       | lost      | 1000 lost
a:1000 a:rst +65s                 | 1000 a a:reset          | 1006       | 1000       | lost      | 1000 fin
a:1000 a:fin a:rst b:1000 b:fin   | 1000 a a:reset          | 1006       | 1000 clean | lost      | 1000 fin
a:stalls a:1000 b:1000 a:rst b:fin | 1000 a a:reset         | 1006       | 1000 clean | lost      | 1000 fin
a:stalls a:1000 b:1000 b:fin a:rst | 1000 a a:reset         | 1006       | 1000 clean | lost      | 1000 fin
b:stalls a:1000 a:rst b:reads b:1000 b:fin | 1000 a a:reset | 1006       | 1000 clean | lost      | 1000 fin
b:stalls a:1000 a:rst b:fin b:reads | 1000 a a:reset        | 1006       | 1000       | lost      | 1000 fin
b:stalls a:1000 a:rst b:rst       | 1000 a a:reset          | 1006       | 1006       | lost      | lost
b:stalls a:1000 a:rst +65s        | 1000 a a:reset          | 1006       | 1006       | lost      | rst
a:dies a:1000 b:1000 b:fin        | 1000 a a:reset          | 1006       | 1000 clean | lost      | 1000 fin
# The Close frame cannot be delivered: its reader does not read, or is gone.
b:stalls a:1000 +65s              | 1000 a b:no_close_reply | 1006       | 1006       | cut       | cut
b:stalls a:text&1000 a:fin +65s   | 1000 a b:no_close_reply | 1006       | 1006       | cut       | cut
b:stalls a:1000 b:rst             | 1000 a b:reset          | 1006       | 1006       | rst       | lost
b:stalls a:1000 b:fin a:fin b:reads | 1000 a b:eof          | 1006       | 1000       | fin       | 1000 fin
b:stalls a:1000 b:fin a:fin b:rst | 1000 a b:eof            | 1006       | 1006       | fin       | lost
b:dies a:1000                     | 1000 a b:reset          | 1006       | 1006       | rst       | lost
b:dies b:~text a:1000             | 1000 a b:reset          | 1006       | 1006       | text rst  | lost
b:dies b:~1000 a:1000 a:fin       | 1000 a b:reset          | 1000 clean | 1006       | 1000 fin  | lost
# Both Close frames were sent, and one could not be delivered: the endpoint that does not take it is at fault.
b:stalls a:1000 b:1001 b:rst a:fin | 1000 a b:reset         | 1001 clean | 1006       | 1001 fin  | lost
b:stalls a:1000 b:1001 +65s       | 1000 a b:no_close_reply | 1001 clean | 1006       | 1001 cut  | cut
b:stalls a:1000 b:1001 a:rst +65s | 1000 a b:no_close_reply | 1001 clean | 1006       | 1001 lost | rst
b:stalls a:1000 b:1001 a:rst b:rst | 1000 a b:reset         | 1001 clean | 1006       | 1001 lost | lost
a:stalls a:1000 b:1000 +65s       | 1000 a a:no_close_reply | 1006       | 1000 clean | cut       | 1000 cut
a:stalls a:1000 b:1000 b:fin +65s | 1000 a a:no_close_reply | 1006       | 1000 clean | cut       | 1000 cut
a:stalls b:stalls a:1000 b:1001 +65s | 1000 a b:no_close_reply | 1006    | 1006       | cut       | cut
# The sender of the first Close frame does not read, and the answer behind a full buffer stays unread.
buffer_bytes=20 a:stalls a:1000 b:big b:1000 +65s | 1000 a a:no_close_reply | 1006 | 1000 | cut | 1000 cut
buffer_bytes=20 a:stalls b:big a:1000 b:1000 +65s | 1000 a a:no_close_reply | 1006 | 1000 | cut | 1000 cut
buffer_bytes=20 a:stalls a:1000 b:text +65s | 1000 a b:no_close_reply | 1006   | 1000       | cut       | 1000 cut
buffer_bytes=20 a:stalls b:stalls b:big a:1000 b:1000 +65s | 1000 a b:no_close_reply | 1006 | 1006 | cut | cut
";

/// The end of a leg came first: 1006, whatever follows.
const LOST: &str = "
events                      | reported               | a saw | b saw | a got  | b got
a:fin b:fin                 | 1006 a a:eof       | 1006 | 1006 | fin      | fin
a:text a:fin b:text b:fin   | 1006 a a:eof       | 1006 | 1006 | text fin | text fin
a:fin b:text[..8] b:fin     | 1006 a a:eof       | 1006 | 1006 | text[..8] fin | fin
a:fin +65s                  | 1006 a a:eof       | 1006 | 1006 | cut      | fin
a:fin +64s b:text +1s       | 1006 a a:eof       | 1006 | 1006 | text cut | fin
a:part a:fin b:fin          | 1006 a a:eof       | 1006 | 1006 | fin      | part fin
a:text[..8] a:fin b:fin     | 1006 a a:truncated | 1006 | 1006 | fin      | text[..8] fin
a:text[..1] a:fin b:fin     | 1006 a a:truncated | 1006 | 1006 | fin      | text[..1] fin
a:1000[..3] a:fin b:fin     | 1006 a a:truncated | 1006 | 1006 | fin      | 1000[..3] fin
a:unframed a:fin b:fin      | 1006 a a:truncated | 1006 | 1006 | fin      | unframed fin
a:unframed&1000 a:fin b:fin | 1006 a a:truncated | 1006 | 1006 | fin      | unframed&1000 fin
a:breach&!1006 a:fin b:fin  | 1006 a a:eof       | 1006 | 1006 | fin      | breach&!1006 fin
a:rst                       | 1006 a a:reset     | 1006 | 1006 | lost     | rst
a:text a:rst                | 1006 a a:reset     | 1006 | 1006 | lost     | text rst
a:text[..8] a:rst           | 1006 a a:reset     | 1006 | 1006 | lost     | text[..8] rst
a:timeout                   | 1006 a a:timeout   | 1006 | 1006 | lost     | rst
a:unreachable               | 1006 a a:unreachable | 1006 | 1006 | lost   | rst
# After a TLS alert or a bad record, the other leg gets a FIN.
a:tls b:fin                 | 1006 a a:tls       | 1006 | 1006 | lost     | fin
a:text a:tls +65s           | 1006 a a:tls       | 1006 | 1006 | lost     | text fin
a:fin a:tls b:fin           | 1006 a a:eof       | 1006 | 1006 | lost     | fin
a:tls b:rst                 | 1006 a a:tls       | 1006 | 1006 | lost     | lost
a:fin b:rst                 | 1006 a a:eof       | 1006 | 1006 | rst      | lost
a:fin a:rst                 | 1006 a a:eof       | 1006 | 1006 | lost     | rst
# All bytes before an RST are delivered before it, until the time is up.
b:stalls a:text a:rst b:reads | 1006 a a:reset   | 1006 | 1006 | lost     | text rst
b:stalls a:text a:rst +65s  | 1006 a a:reset     | 1006 | 1006 | lost     | rst
b:silent a:text a:rst b:acks | 1006 a a:reset    | 1006 | 1006 | lost     | text rst
b:silent a:text a:rst +65s  | 1006 a a:reset     | 1006 | 1006 | lost     | text rst
b:silent a:text a:rst b:text b:fin b:acks | 1006 a a:reset | 1006 | 1006 | lost | text rst
b:stalls a:text a:rst b:rst | 1006 a a:reset     | 1006 | 1006 | lost     | lost
b:dies a:text               | 1006 b b:reset     | 1006 | 1006 | rst      | lost
# The same before a FIN, for as long as its reader lives.
b:stalls a:text a:fin b:reads b:fin | 1006 a a:eof | 1006 | 1006 | fin    | text fin
b:stalls a:text a:fin +999s b:rst | 1006 a a:eof | 1006 | 1006 | rst      | lost
# A Close frame behind the end of the other leg is relayed, and changes nothing (a JDK client answers so).
a:fin b:1000 b:fin          | 1006 a a:eof       | 1000 | 1006 | 1000 fin | fin
a:fin b:1000 +65s           | 1006 a a:eof       | 1000 | 1006 | 1000 cut | fin
a:text[..8] a:fin b:1000 b:fin | 1006 a a:truncated | 1000 | 1006 | 1000 fin | text[..8] fin
a:fin b:1000 a:rst          | 1006 a a:eof       | 1000 | 1006 | 1000 lost | rst
a:fin b:1000 b:rst          | 1006 a a:eof       | 1000 | 1006 | 1000 fin | lost
a:fin a:stalls b:1000 b:fin a:reads | 1006 a a:eof | 1000 | 1006 | 1000 fin | fin
a:dies a:~text b:text       | 1006 a a:reset     | 1006 | 1006 | lost     | text rst
b:silent a:text a:rst b:1000 b:acks | 1006 a a:reset | 1006 | 1006 | lost | text rst
";

/// closewatch injects a Close frame: `control` stands for all actions without a deadline of their own.
const INJECTED: &str = "
events                                         | reported                              | a saw      | b saw      | a got         | b got
control a:1012 b:1012 a:fin                    | 1012 proxy clean +control         | 1012 clean | 1012 clean | <1012> fin    | <1012> fin
control a:1000 b:empty b:fin                   | 1012 proxy clean +control         | 1012 clean | 1012 clean | <1012> fin    | <1012> fin
control a:1012 b:1012 +2s                      | 1012 proxy clean +control         | 1012 clean | 1012 clean | <1012> fin    | <1012> fin
control a:1012 b:1012 b:rst                    | 1012 proxy clean +control         | 1012 clean | 1012 clean | <1012> fin    | <1012> lost
control a:1012 a:fin b:1012                    | 1012 proxy clean +control         | 1012 clean | 1012 clean | <1012> fin    | <1012> fin
control a:1012&text b:text&1012 b:fin          | 1012 proxy clean +control         | 1012 clean | 1012 clean | <1012> fin    | <1012> fin
a:text control b:text a:1012 b:1012 a:fin      | 1012 proxy clean +control         | 1012 clean | 1012 clean | <1012> fin    | text&<1012> fin
a:part control a:1012 b:1012 a:fin             | 1012 proxy clean +control         | 1012 clean | 1012 clean | <1012> fin    | part&<1012> fin
# Inside a frame it waits for the end of the frame.
a:text[..8] control a:text[8..]&text a:1012 b:1012 a:fin | 1012 proxy clean +control | 1012 clean | 1012 clean | <1012> fin  | text&<1012> fin
a:text[..1] control a:text[1..] a:1012 b:1012 a:fin | 1012 proxy clean +control    | 1012 clean | 1012 clean | <1012> fin    | text&<1012> fin
a:text[..8] b:text[..8] control a:text[8..] b:text[8..] b:1012 a:1012 a:fin | 1012 proxy clean +control | 1012 clean | 1012 clean | text&<1012> fin | text&<1012> fin
a:text[..8] control b:1012 +65s                | 1012 proxy proxy:control +control | 1012       | 1006       | <1012> cut    | text[..8] cut
a:text[..8] control a:fin b:1012 b:fin         | 1012 proxy proxy:control +control | 1012       | 1006       | <1012> fin    | text[..8] fin
a:text[..8] control a:rst                      | 1012 proxy proxy:control +control | 1012       | 1006       | <1012> lost   | text[..8] rst
a:text[..8] b:text[..8] control +65s           | 1006 proxy proxy:control +control | 1006       | 1006       | text[..8] cut | text[..8] cut
a:unframed b:text[..8] control +65s            | 1006 proxy proxy:control +control | 1006       | 1006       | text[..8] cut | unframed cut
a:text[..8] b:text[..8] control a:rst          | 1006 a a:reset                    | 1006       | 1006       | text[..8] lost | text[..8] rst
# A leg ended first: the session gets no Close frame any more.
a:text[..8] b:text[..8] control a:fin b:text[8..] b:fin | 1006 a a:truncated       | 1006       | 1006       | text fin      | text[..8] fin
a:fin control b:fin                            | 1006 a a:eof                      | 1006       | 1006       | fin           | fin
a:text[..8] b:text[..8] control a:dies b:text[8..9] | 1006 a a:reset | 1006   | 1006       | text[..8] lost | text[..8] rst
a:text[..8] a:dies b:text                      | 1006 a a:reset                    | 1006       | 1006       | lost          | text[..8] rst
# The closing handshake has begun: the session gets none either.
a:1000 control b:1000 b:fin                    | 1000 a clean                      | 1000 clean | 1000 clean | 1000 fin      | 1000 fin
a:1000 control +65s                            | 1000 a b:no_close_reply           | 1006       | 1000       | cut           | 1000 cut
# Half of a Close frame has passed: that leg gets the other half, and no second Close frame.
a:1000[..3] control a:1000[3..] b:1000 b:fin   | 1012 proxy clean +control         | 1012 clean | 1000 clean | <1012> fin    | 1000 fin
a:1000[..1] control a:1000[1..] b:1000 b:fin   | 1012 proxy clean +control         | 1012 clean | 1000 clean | <1012> fin    | 1000 fin
a:empty[..1] control a:empty[1..] b:1000 b:fin | 1012 proxy clean +control         | 1012 clean | 1005 clean | <1012> fin    | empty fin
a:1000[..3] control a:1000[3..]&text b:1000 b:fin | 1012 proxy clean +control      | 1012 clean | 1000 clean | <1012> fin    | 1000&text fin
a:1000[..3] control +65s                       | 1012 proxy proxy:control +control | 1012       | 1006       | <1012> cut    | 1000[..3] cut
a:breach&!1006[..3] control a:!1006[3..] a:1012 b:1012 b:fin | 1012 proxy clean +control | 1012 clean | 1012 clean | <1012> fin | breach&!1006&<1012> fin
# An endpoint's Close frame came before either leg could get closewatch's: it is the first.
a:1000[..3] b:text[..8] control a:1000[3..] b:text[8..]&1000 b:fin | 1000 a clean  | 1000 clean | 1000 clean | text&1000 fin | 1000 fin
a:1000[..3] b:1000[..3] control a:1000[3..] b:1000[3..] b:fin | 1000 a clean       | 1000 clean | 1000 clean | 1000 fin      | 1000 fin
a:1000[..3] b:text[..8] control +30s a:1000[3..] +64s +1s | 1000 a b:no_close_reply | 1006      | 1000       | text[..8] cut | 1000 cut
# An answer is missing: the cause is closewatch's action.
control +65s                                   | 1012 proxy proxy:control +control | 1012       | 1012       | <1012> cut    | <1012> cut
control a:1012 +65s                            | 1012 proxy proxy:control +control | 1012 clean | 1012       | <1012> fin    | <1012> cut
control a:fin b:fin                            | 1012 proxy proxy:control +control | 1012       | 1012       | <1012> fin    | <1012> fin
control a:rst b:rst                            | 1012 proxy proxy:control +control | 1012       | 1012       | <1012> lost   | <1012> lost
control a:rst b:1012 b:fin                     | 1012 proxy proxy:control +control | 1012       | 1012 clean | <1012> lost   | <1012> fin
control a:rst b:1012 +2s                       | 1012 proxy proxy:control +control | 1012       | 1012 clean | <1012> lost   | <1012> fin
control a:1012 b:fin +2s                       | 1012 proxy proxy:control +control | 1012 clean | 1012       | <1012> fin    | <1012> fin
control a:1012 b:text[..8] b:fin a:fin         | 1012 proxy proxy:control +control | 1012 clean | 1012       | <1012> fin    | <1012> fin
control a:1012 b:timeout a:fin                 | 1012 proxy proxy:control +control | 1012 clean | 1012       | <1012> fin    | <1012> lost
b:stalls control a:1012 +65s                   | 1012 proxy proxy:control +control | 1012 clean | 1006       | <1012> fin    | cut
b:stalls control a:1012 b:1012 b:reads b:fin   | 1012 proxy clean +control         | 1012 clean | 1012 clean | <1012> fin    | <1012> fin
b:stalls control a:1012 b:1012 +2s             | 1012 proxy clean +control         | 1012 clean | 1006       | <1012> fin    | cut
b:dies control a:1012 a:fin                    | 1012 proxy proxy:control +control | 1012 clean | 1006       | <1012> fin    | lost
";

/// Close frames behind a violation at which their receiver must fail the connection, and endpoints that fail it.
const PROVISIONAL: &str = "
events                              | reported                | a saw      | b saw      | a got     | b got
# An answer with the same code shows that the Close frame was read.
a:breach&1000 b:1000 b:fin          | 1000 a clean            | 1000 clean | 1000 clean | 1000 fin  | breach&1000 fin
a:breach&empty b:empty a:fin        | 1005 a clean            | 1005 clean | 1005 clean | empty fin | breach&empty fin
a:breach&1000 b:breach&1000 b:fin   | 1000 a clean            | 1000 clean | 1000 clean | breach&1000 fin | breach&1000 fin
# Another code is the first Close frame, and the provisional one its answer.
a:breach&1000 b:1011 b:fin          | 1011 b clean            | 1011 clean | 1000 clean | 1011 fin  | breach&1000 fin
a:breach&1000 b:empty b:fin         | 1005 b clean            | 1005 clean | 1000 clean | empty fin | breach&1000 fin
# 1002 and 1007 say that the endpoint failed the connection: it saw 1006, whatever it got.
a:breach&1000 b:1002 b:fin          | 1002 b clean            | 1002 clean | 1006       | 1002 fin  | breach&1000 fin
a:breach&1002 b:1002 b:fin          | 1002 b clean            | 1002 clean | 1006       | 1002 fin  | breach&1002 fin
a:breach&1000 b:1007 b:fin          | 1007 b clean            | 1007 clean | 1006       | 1007 fin  | breach&1000 fin
a:breach b:1002 a:1002 b:fin        | 1002 b clean            | 1002 clean | 1006       | 1002 fin  | breach&1002 fin
a:breach b:1002 b:fin a:fin         | 1002 b a:eof            | 1002       | 1006       | 1002 fin  | breach fin
b:breach a:1002 b:1002 b:fin        | 1002 a clean            | 1006       | 1002 clean | breach&1002 fin | 1002 fin
# Without a violation by the other endpoint, 1002 is a code like any other.
a:1000 b:1002 b:fin                 | 1000 a clean            | 1002 clean | 1000 clean | 1002 fin  | 1000 fin
# Without an answer, the leg that ends first decides.
a:breach&1000 b:fin a:fin           | 1006 b b:eof            | 1006       | 1006       | fin       | breach&1000 fin
a:breach&1000 b:rst                 | 1006 b b:reset          | 1006       | 1006       | rst       | breach&1000 lost
a:breach&1000 a:fin b:fin           | 1006 a a:eof            | 1006       | 1006       | fin       | breach&1000 fin
a:breach&1000 a:rst b:1002 b:fin    | 1006 a a:reset          | 1006       | 1006       | lost      | breach&1000 fin
a:breach&1000 +65s                  | 1006 proxy b:no_close_reply | 1006   | 1006       | cut       | breach&1000 cut
a:breach&1000 control b:1000 b:fin  | 1000 a clean            | 1000 clean | 1000 clean | 1000 fin  | breach&1000 fin
a:breach&1000 drain +20s            | 1006 proxy proxy:drain +drain | 1006 | 1006       | cut       | breach&1000 cut
# A length that is not in its shortest form does not fail the connection.
a:long&1000 b:1011 b:fin            | 1000 a clean            | 1011 clean | 1000 clean | 1011 fin  | long&1000 fin
a:long&1000 b:fin a:fin             | 1000 a b:eof            | 1006       | 1000       | fin       | long&1000 fin
";

/// Timers, limits, reported losses, drains, the end of the process.
const ACTIONS: &str = "
events                                            | reported                           | a saw      | b saw      | a got         | b got
idle=60s +60s a:1001 b:1001 a:fin                 | 1001 proxy clean +idle_timeout | 1001 clean | 1001 clean | <1001> fin    | <1001> fin
idle=60s +59s a:text +59s b:text[..1] +60s b:text[1..] b:1001 a:1001 a:fin | 1001 proxy clean +idle_timeout | 1001 clean | 1001 clean | text&<1001> fin | text&<1001> fin
idle=60s +60s +65s                                | 1001 proxy proxy:idle_timeout +idle_timeout | 1001 | 1001 | <1001> cut   | <1001> cut
idle=60s +60s a:rst b:1001 b:fin                  | 1001 proxy proxy:idle_timeout +idle_timeout | 1001 | 1001 clean | <1001> lost | <1001> fin
idle=60s a:text[..8] b:text[..8] +60s +65s        | 1006 proxy proxy:idle_timeout +idle_timeout | 1006 | 1006 | text[..8] cut | text[..8] cut
idle=60s a:1000 +65s                              | 1000 a b:no_close_reply        | 1006       | 1000       | cut           | 1000 cut
idle=60s a:fin +65s                               | 1006 a a:eof                   | 1006       | 1006       | cut           | fin
max_age=100s +50s a:text +50s a:1001 b:1001 b:fin | 1001 proxy clean +max_age      | 1001 clean | 1001 clean | <1001> fin    | text&<1001> fin
max_age=100s +100s +65s                           | 1001 proxy proxy:max_age +max_age | 1001    | 1001       | <1001> cut    | <1001> cut
max_age=100s +90s a:1000 +65s                     | 1000 a b:no_close_reply        | 1006       | 1000       | cut           | 1000 cut
idle=60s max_age=60s +60s a:1001 b:1001 b:fin     | 1001 proxy clean +idle_timeout | 1001 clean | 1001 clean | <1001> fin    | <1001> fin
# A frame or a message above its limit: neither its header nor anything behind it passes.
frame_bytes=100 a:big a:1009 b:1009 b:fin         | 1009 proxy clean +limit        | 1009 clean | 1009 clean | <1009> fin    | <1009> fin
frame_bytes=100 a:text&big&text&1009 b:1009 b:fin | 1009 proxy clean +limit        | 1009 clean | 1009 clean | <1009> fin    | text&<1009> fin
frame_bytes=100 a:text&big[..1] a:big[1..] a:1009 b:1009 b:fin | 1009 proxy clean +limit | 1009 clean | 1009 clean | <1009> fin | text&<1009> fin
frame_bytes=100 a:big[..1] a:big[1..] a:1009 b:1009 b:fin | 1009 proxy clean +limit | 1009 clean | 1009 clean | <1009> fin   | <1009> fin
frame_bytes=100 a:big b:1009 a:rst b:fin          | 1009 proxy proxy:limit +limit  | 1009       | 1009 clean | <1009> lost   | <1009> fin
frame_bytes=100 b:text[..8] a:big b:text[8..] b:1009 a:1009 b:fin | 1009 proxy clean +limit | 1009 clean | 1009 clean | text&<1009> fin | <1009> fin
frame_bytes=100 a:big[..12] +65s                  | 1009 proxy proxy:limit +limit  | 1009       | 1009       | <1009> cut    | <1009> cut
frame_bytes=100 a:1000 b:big b:1000 b:fin         | 1000 a clean                   | 1000 clean | 1000 clean | big&1000 fin  | 1000 fin
frame_bytes=100 b:text[..8] b:dies a:text | 1006 b b:reset             | 1006       | 1006       | text[..8] rst | lost
frame_bytes=100 a:text a:1000 b:1000 b:fin        | 1000 a clean                   | 1000 clean | 1000 clean | 1000 fin      | text&1000 fin
message_bytes=11 a:text a:part a:last a:1000 b:1000 b:fin | 1000 a clean           | 1000 clean | 1000 clean | 1000 fin      | text&part&last&1000 fin
message_bytes=10 a:text a:1009 b:1009 b:fin       | 1009 proxy clean +limit        | 1009 clean | 1009 clean | <1009> fin    | <1009> fin
message_bytes=10 a:part a:ping a:last a:1009 b:1009 b:fin | 1009 proxy clean +limit | 1009 clean | 1009 clean | <1009> fin   | part&ping&<1009> fin
message_bytes=10 a:big[..1] a:big[1..3] a:big[3..] a:1009 b:1009 b:fin | 1009 proxy clean +limit | 1009 clean | 1009 clean | <1009> fin | <1009> fin
message_bytes=5 a:part a:1009 b:1009 b:fin        | 1009 proxy clean +limit        | 1009 clean | 1009 clean | <1009> fin    | <1009> fin
# With a limit, a header passes only when it is complete, or when nothing more can come.
frame_bytes=100 a:text[..1] control a:1012 b:1012 +63s +2s | 1012 proxy proxy:control +control | 1012 | 1012 clean | <1012> cut | <1012> fin
frame_bytes=100 a:text[..1] control a:text[1..] a:1012 b:1012 b:fin | 1012 proxy clean +control | 1012 clean | 1012 clean | <1012> fin | <1012> fin
frame_bytes=100 a:text[..1] a:text[1..] a:1000[..1] a:1000[1..] b:1000 b:fin | 1000 a clean | 1000 clean | 1000 clean | 1000 fin | text&1000 fin
frame_bytes=100 a:text[..1] a:fin b:fin           | 1006 a a:truncated             | 1006       | 1006       | fin           | text[..1] fin
frame_bytes=100 a:text[..1] a:rst                 | 1006 a a:reset                 | 1006       | 1006       | lost          | text[..1] rst
frame_bytes=100 b:stalls a:text[..1] a:fin a:rst b:reads | 1006 a a:truncated      | 1006       | 1006       | lost          | text[..1] rst
# A Close frame reports the loss to the other endpoint: the session stays a 1006 of the lost endpoint.
a_loss=1014 a:fin b:1014 b:fin                    | 1006 a a:eof +a_loss           | 1006       | 1014 clean | fin           | <1014> fin
a_loss=1014 a:fin b:1014 +2s                      | 1006 a a:eof +a_loss           | 1006       | 1014 clean | fin           | <1014> fin
a_loss=1014 a:fin b:fin                           | 1006 a a:eof +a_loss           | 1006       | 1014       | fin           | <1014> fin
a_loss=1014 a:fin +65s                            | 1006 a a:eof +a_loss           | 1006       | 1014       | fin           | <1014> cut
a_loss=1014 a:text a:rst b:1014 b:fin             | 1006 a a:reset +a_loss         | 1006       | 1014 clean | lost          | text&<1014> fin
a_loss=1014 a:timeout b:1014 b:fin                | 1006 a a:timeout +a_loss       | 1006       | 1014 clean | lost          | <1014> fin
a_loss=1014 a:rst +65s                            | 1006 a a:reset +a_loss         | 1006       | 1014       | lost          | <1014> cut
a_loss=1014 a:rst b:rst                           | 1006 a a:reset +a_loss         | 1006       | 1014       | lost          | <1014> lost
a_loss=1014 a:part a:rst b:1014 b:fin             | 1006 a a:reset +a_loss         | 1006       | 1014 clean | lost          | part&<1014> fin
a_loss=1014 b:stalls a:text a:rst b:reads b:1014 b:fin | 1006 a a:reset +a_loss    | 1006       | 1014 clean | lost          | text&<1014> fin
a_loss=1014 b:stalls a:text a:rst +65s            | 1006 a a:reset +a_loss         | 1006       | 1006       | lost          | cut
a_loss=1014 b:text[..8] a:rst b:text[8..]&1014 b:fin | 1006 a a:reset +a_loss      | 1006       | 1014 clean | text[..8] lost | <1014> fin
a_loss=1014 frame_bytes=100 a:text[..1] a:rst b:1014 b:fin | 1006 a a:reset +a_loss | 1006      | 1014 clean | lost          | <1014> fin
a_loss=1014 a:text[..8] a:rst                     | 1006 a a:reset                 | 1006       | 1006       | lost          | text[..8] rst
a_loss=1014 a:text[..8] a:fin b:fin               | 1006 a a:truncated             | 1006       | 1006       | fin           | text[..8] fin
a_loss=1014 b:fin a:fin                           | 1006 b b:eof                   | 1006       | 1006       | fin           | fin
a_loss=1014 b:1000 a:rst                          | 1000 b a:reset                 | 1000       | 1006       | 1000 lost     | rst
a_loss=1014 a:1000 a:fin b:1000                   | 1000 a clean                   | 1000 clean | 1000 clean | 1000 fin      | 1000 fin
a_loss=1014 b:1000 b:fin a:fin                    | 1000 b a:eof                   | 1000       | 1006       | 1000 fin      | fin
# A drain has a deadline of its own, for the sessions that are closing too.
drain a:1001 b:1001 a:fin                         | 1001 proxy clean +drain        | 1001 clean | 1001 clean | <1001> fin    | <1001> fin
drain +19s a:1001 b:1001 +1s                      | 1001 proxy clean +drain        | 1001 clean | 1001 clean | <1001> fin    | <1001> fin
drain +20s                                        | 1001 proxy proxy:drain +drain  | 1001       | 1001       | <1001> cut    | <1001> cut
drain a:1001 +20s                                 | 1001 proxy proxy:drain +drain  | 1001 clean | 1001       | <1001> fin    | <1001> cut
drain a:rst +20s                                  | 1001 proxy proxy:drain +drain  | 1001       | 1001       | <1001> lost   | <1001> cut
drain a:fin +20s                                  | 1001 proxy proxy:drain +drain  | 1001       | 1001       | <1001> fin    | <1001> cut
close=10s drain a:fin +19s +1s                    | 1001 proxy proxy:drain +drain  | 1001       | 1001       | <1001> fin    | <1001> cut
a:text[..8] drain b:1001 +20s                     | 1001 proxy proxy:drain +drain  | 1001       | 1006       | <1001> cut    | text[..8] cut
a:text[..8] drain a:text[8..] a:1001 b:1001 b:fin | 1001 proxy clean +drain        | 1001 clean | 1001 clean | <1001> fin    | text&<1001> fin
a:text[..8] b:text[..8] drain +20s                | 1006 proxy proxy:drain +drain  | 1006       | 1006       | text[..8] cut | text[..8] cut
a:part b:part drain a:1001 b:1001 b:fin           | 1001 proxy clean +drain        | 1001 clean | 1001 clean | part&<1001> fin | part&<1001> fin
a:1000 drain b:1000 b:fin                         | 1000 a clean                   | 1000 clean | 1000 clean | 1000 fin      | 1000 fin
a:1000 drain +20s                                 | 1000 a proxy:drain +drain      | 1006       | 1000       | cut           | 1000 cut
a:1000 +50s drain +15s                            | 1000 a b:no_close_reply        | 1006       | 1000       | cut           | 1000 cut
a:1000 a:fin drain +20s                           | 1000 a proxy:drain +drain      | 1006       | 1000       | cut           | 1000 fin
a:1000 b:fin drain +20s                           | 1000 a proxy:drain +drain      | 1006       | 1000       | fin           | 1000 cut
a:1000 b:1000 drain +2s                           | 1000 a clean                   | 1000 clean | 1000 clean | 1000 cut      | 1000 cut
a:stalls a:1000 b:1000 drain +20s                 | 1000 a proxy:drain +drain      | 1006       | 1000 clean | cut           | 1000 cut
a:1000[..3] b:text[..8] drain a:1000[3..] +20s    | 1000 a proxy:drain +drain      | 1006       | 1000       | text[..8] cut | 1000 cut
a:1000[..3] b:text[..8] drain a:1000[3..] b:text[8..]&1000 a:fin | 1000 a clean    | 1000 clean | 1000 clean | text&1000 fin | 1000 fin
a:fin drain +20s                                  | 1006 a a:eof +drain            | 1006       | 1006       | cut           | fin
a:fin drain b:fin                                 | 1006 a a:eof                   | 1006       | 1006       | fin           | fin
a:text[..8] b:text[..8] drain a:fin +20s          | 1006 a a:truncated +drain      | 1006       | 1006       | text[..8] cut | text[..8] fin
control drain +20s                                | 1012 proxy proxy:control +control | 1012    | 1012       | <1012> cut    | <1012> cut
control drain a:1012 b:1012 b:fin                 | 1012 proxy clean +control      | 1012 clean | 1012 clean | <1012> fin    | <1012> fin
a_loss=1014 a:rst drain +20s                      | 1006 a a:reset +a_loss         | 1006       | 1014       | lost          | <1014> cut
idle=10s drain +15s a:1001 b:1001 b:fin           | 1001 proxy clean +drain        | 1001 clean | 1001 clean | <1001> fin    | <1001> fin
# The process ends at once.
stop                                              | 1006 proxy proxy:drain +drain  | 1006       | 1006       | cut           | cut
a:text b:text[..8] stop                           | 1006 proxy proxy:drain +drain  | 1006       | 1006       | text[..8] cut | text cut
a:1000 stop                                       | 1000 a proxy:drain +drain      | 1006       | 1000       | cut           | 1000 cut
a:1000 b:fin stop                                 | 1000 a proxy:drain +drain      | 1006       | 1000       | fin           | 1000 cut
a:1000 b:1000 stop                                | 1000 a clean                   | 1000 clean | 1000 clean | 1000 cut      | 1000 cut
a:fin stop                                        | 1006 a a:eof +drain            | 1006       | 1006       | cut           | fin
drain stop                                        | 1001 proxy proxy:drain +drain  | 1001       | 1001       | <1001> cut    | <1001> cut
control a:1012 stop                               | 1012 proxy proxy:control +control | 1012 clean | 1012    | <1012> fin    | <1012> cut
";

#[test]
fn complete_closing_handshake_is_clean() {
    check(COMPLETE);
}

#[test]
fn endpoint_that_owes_an_answer_is_at_fault() {
    check(UNANSWERED);
}

#[test]
fn leg_that_ends_first_is_a_1006() {
    check(LOST);
}

#[test]
fn close_frame_is_injected_between_two_frames() {
    check(INJECTED);
}

#[test]
fn actions_of_closewatch_are_reported() {
    check(ACTIONS);
}

#[test]
fn close_frame_behind_a_violation_is_provisional() {
    check(PROVISIONAL);
}

/// The rows that the documentation of the session core shows.
#[test]
fn documented_endings_hold() {
    let documentation = include_str!("../../session/mod.rs");
    let table: Vec<&str> = documentation
        .lines()
        .filter_map(|line| line.strip_prefix("//! "))
        .filter(|line| line.contains(" | "))
        .collect();
    assert_eq!(table.len(), 11);
    check(&table.join("\n"));
}

/// Runs all rows, with either endpoint as `a` and over either kind of connection, and prints those that fail.
fn check(table: &str) {
    let rows = table.trim().lines().skip(1).filter(|line| !line.starts_with('#'));
    let variants = Endpoint::BOTH.into_iter().flat_map(|a| [(a, Kind::Plain), (a, Kind::Buffered)]);
    let failures: Vec<String> = rows
        .flat_map(|row| variants.clone().map(move |(a, kind)| Row::parse(row, a).failure(kind)))
        .flatten()
        .collect();
    assert!(failures.is_empty(), "{}", failures.concat());
}

/// One row, with one endpoint as `a`.
struct Row<'a> {
    text: &'a str,
    a: Endpoint,
    events: &'a str,
    /// As it should be.
    expected: Outcome,
}

/// The columns behind the events.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    reported: String,
    saw: PerEndpoint<String>,
    got: PerEndpoint<(Vec<u8>, String)>,
}

impl<'a> Row<'a> {
    fn parse(text: &'a str, a: Endpoint) -> Self {
        let columns: Vec<&str> = text.split('|').map(str::trim).collect();
        let [events, reported, a_saw, b_saw, a_got, b_got] = columns[..] else { panic!("not six columns: {text}") };
        let by_name = |of_a: &str, of_b: &str, endpoint| if endpoint == a { of_a.to_owned() } else { of_b.to_owned() };
        let expected = Outcome {
            reported: reported.to_owned(),
            saw: PerEndpoint::from_fn(|endpoint| by_name(a_saw, b_saw, endpoint)),
            got: PerEndpoint::from_fn(|endpoint| got(&by_name(a_got, b_got, endpoint), endpoint)),
        };
        Self { text, a, events, expected }
    }

    /// What is wrong, if anything.
    fn failure(&self, kind: Kind) -> Option<String> {
        let (policy, events) = self.policy_and_events();
        let mut harness = Harness::new(policy, kind);
        let row = format!("\n{}\n  a is the {:?}, {kind:?}", self.text, self.a);
        for event in events {
            if harness.is_over() {
                return Some(format!("{row}: over before {event}\n"));
            }
            self.perform(&mut harness, event);
        }
        if !harness.is_over() {
            return Some(format!("{row}: not over\n"));
        }
        let outcome = self.outcome(harness);
        (outcome != self.expected).then(|| format!("{row}\n  expected {:x?}\n  found    {outcome:x?}\n", self.expected))
    }

    fn policy_and_events(&self) -> (Policy, Vec<&'a str>) {
        let (settings, events): (Vec<&str>, Vec<&str>) =
            self.events.split_whitespace().partition(|event| event.contains('='));
        let settings: HashMap<&str, &str> = settings.iter().filter_map(|setting| setting.split_once('=')).collect();
        let number = |name| settings.get(name).map(|value| value.parse::<u64>().unwrap());
        let time = |name| settings.get(name).map(|value| duration(value));
        let code = |name| settings.get(name).map(|value| CloseText::code(CloseCode(value.parse().unwrap())));
        let policy = Policy {
            idle: time("idle"),
            max_age: time("max_age"),
            close: time("close").or(Some(Duration::from_secs(65))),
            hang_up: time("hang_up").or(Some(Duration::from_secs(2))),
            frame_bytes: number("frame_bytes"),
            message_bytes: number("message_bytes"),
            buffer_bytes: number("buffer_bytes").map_or(usize::MAX, |bytes| usize::try_from(bytes).unwrap()),
            on_loss: PerEndpoint::from_fn(|lost| code(if lost == self.a { "a_loss" } else { "b_loss" })),
        };
        (policy, events)
    }

    fn perform(&self, harness: &mut Harness, event: &str) {
        let code = |code| CloseText::code(CloseCode(code));
        let (endpoint, what) = match event.split_once(':') {
            Some(("a", what)) => (self.a, what),
            Some(("b", what)) => (self.a.other(), what),
            _ => (self.a, event),
        };
        match what {
            "drain" => harness.drain(code(1001), Duration::from_secs(20)),
            "control" => harness.close(code(1012)),
            "stop" => harness.cut(),
            "fin" => harness.end(endpoint, LegEnd::Fin),
            "rst" => harness.end(endpoint, LegEnd::Reset),
            "timeout" => harness.end(endpoint, LegEnd::Timeout),
            "unreachable" => harness.end(endpoint, LegEnd::Unreachable),
            "tls" => harness.end(endpoint, LegEnd::Tls),
            "stalls" => harness.set_room(endpoint, 0),
            "reads" => harness.set_room(endpoint, usize::MAX),
            "silent" => harness.acknowledge(endpoint, false),
            "acks" => harness.acknowledge(endpoint, true),
            "dies" => harness.kill(endpoint),
            time if time.starts_with('+') => harness.wait(duration(&time[1..])),
            unread if unread.starts_with('~') => {
                harness.leg(endpoint).incoming.extend(bytes(&unread[1..], endpoint));
            }
            frames => harness.receive(endpoint, &bytes(frames, endpoint)),
        }
    }

    fn outcome(&self, harness: Harness) -> Outcome {
        let (summary, outcomes, legs) = harness.finish();
        let Summary { ending, .. } = summary;
        let ended = PerEndpoint::from_fn(|endpoint| match outcomes[endpoint] {
            LegOutcome::Finished => "fin",
            LegOutcome::Reset => "rst",
            LegOutcome::Lost => "lost",
            LegOutcome::Cut => "cut",
        });
        Outcome {
            reported: self.reported(&ending),
            saw: PerEndpoint::from_fn(|endpoint| saw(&ending.seen[endpoint])),
            got: PerEndpoint::from_fn(|endpoint| (legs[endpoint].sim().sent.clone(), ended[endpoint].to_owned())),
        }
    }

    fn reported(&self, ending: &Ending) -> String {
        let how = match ending.fault {
            None => "clean".to_owned(),
            Some(Fault::Endpoint(endpoint, fault)) => format!("{}:{}", self.party(endpoint.into()), fault.as_str()),
            Some(Fault::Proxy(action)) => format!("proxy:{}", self.action(action)),
        };
        let action = ending.action.map(|action| format!(" +{}", self.action(action))).unwrap_or_default();
        format!("{} {} {how}{action}", status(ending.status), self.party(ending.initiator))
    }

    fn party(&self, party: Party) -> &'static str {
        match party {
            Party::Proxy => "proxy",
            endpoint if endpoint == self.a.into() => "a",
            _ => "b",
        }
    }

    fn action(&self, action: Action) -> &'static str {
        let loss_of = |lost| if self.a == lost { "a_loss" } else { "b_loss" };
        match action {
            Action::ClientLoss => loss_of(Endpoint::Client),
            Action::ServerLoss => loss_of(Endpoint::Server),
            action => action.as_str(),
        }
    }
}

fn saw(seen: &CloseEvent) -> String {
    format!("{}{}", status(seen.status), if seen.clean { " clean" } else { "" })
}

fn status(status: CloseStatus) -> String {
    match status {
        CloseStatus::Sent(code) if code.allowed_on_wire() => code.0.to_string(),
        CloseStatus::Sent(code) => format!("!{}", code.0),
        CloseStatus::Malformed => "!".to_owned(),
        CloseStatus::NoStatus => "1005".to_owned(),
        CloseStatus::Abnormal => "1006".to_owned(),
    }
}

/// The bytes of a `got` column, and how the leg ended.
fn got(column: &str, receiver: Endpoint) -> (Vec<u8>, String) {
    match column.split_once(' ') {
        Some((frames, end)) => (bytes(frames, receiver.other()), end.to_owned()),
        None => (Vec::new(), column.to_owned()),
    }
}

/// Frames joined by `&`.
fn bytes(frames: &str, sender: Endpoint) -> Vec<u8> {
    frames.split('&').flat_map(|name| slice(name, sender)).collect()
}

/// A frame, or a slice of its bytes.
fn slice(name: &str, sender: Endpoint) -> Vec<u8> {
    let Some((name, range)) = name.split_once('[') else { return frame(name, sender) };
    let frame = frame(name, sender);
    let (start, end) = range.strip_suffix(']').and_then(|range| range.split_once("..")).unwrap();
    frame[start.parse().unwrap_or(0)..end.parse().unwrap_or(frame.len())].to_vec()
}

/// A frame by its name in the table, masked as its sender should; closewatch's own has a key of its own.
fn frame(name: &str, sender: Endpoint) -> Vec<u8> {
    let own = name.strip_prefix('<').and_then(|name| name.strip_suffix('>'));
    let key = if own.is_some() { [1, 2, 3, 4] } else { [0x37, 0xfa, 0x21, 0x3d] };
    let mask = (sender == Endpoint::Client).then_some(key);
    let mut bytes = Vec::new();
    let mut write = |fin, opcode, payload: &[u8]| frame::encode(fin, opcode, mask, payload, &mut bytes);
    match own.unwrap_or(name) {
        "text" => write(true, Opcode::Text, b"hello world"),
        "part" => write(false, Opcode::Text, b"hello "),
        "last" => write(true, Opcode::Continuation, b"world"),
        "ping" => write(true, Opcode::Ping, b"?"),
        // 200 bytes of payload behind a header of 4 or 8.
        "big" => write(true, Opcode::Binary, &[b'.'; 200]),
        "breach" => write(true, Opcode::Reserved, b""),
        // A payload of 1 byte with its length in two more.
        "long" => {
            bytes.extend([0x82, if mask.is_some() { 0xfe } else { 0x7e }, 0, 1]);
            bytes.extend(mask.iter().flatten());
            bytes.push(b'.');
        }
        "empty" => write(true, Opcode::Close, b""),
        "!" => write(true, Opcode::Close, b"!"),
        // A length with its top bit set.
        "unframed" => bytes.extend([0x82, 127, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        code => write(true, Opcode::Close, &code.trim_start_matches('!').parse::<u16>().unwrap().to_be_bytes()),
    }
    bytes
}

fn duration(text: &str) -> Duration {
    Duration::from_secs(text.strip_suffix('s').unwrap().parse().unwrap())
}
