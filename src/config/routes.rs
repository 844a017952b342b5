//! The keys of a route, and those outside of routes that hold for every one.

use std::{collections::HashMap, time::Duration};

use super::{
    addresses::Addresses,
    document::Content,
    error::Spot,
    format::{Format, LARGEST_SIZE, Size, Time, Words, off_or},
    grammars::{CLOSE_CODE, CLOSE_REASON, HOST_NAME, PATH_PREFIX, Parsed, ROUTE_NAME},
    section::Section,
    types::{Match, Route, SessionLimits, Timeouts, Upstream},
    upstream::URL,
};
use crate::websocket::close_code::{CloseCode, CloseText};

/// Each route has hundreds of series from the start.
const MOST_ROUTES: usize = 256;

/// What a buffer may hold: less than one read is pointless, more than this is no longer a sidecar.
const BUFFER: Size = Size(4 << 10..=1 << 30);

/// What a route has where it does not say otherwise.
pub(super) struct Common {
    pub(super) timeouts: Timeouts,
    pub(super) limits: SessionLimits,
    /// `None` where it is bad: nothing can be held against it.
    pub(super) buffer_total_bytes: Option<u64>,
    pub(super) on_server_loss: Option<CloseText>,
    pub(super) on_client_loss: Option<CloseText>,
}

/// The routes of `upstream` or of `routes`, whichever is given.
pub(super) fn routes(root: &mut Section<'_>, common: &Common, addresses: &mut Addresses) -> Vec<Route> {
    root.known("upstream");
    root.known("routes");
    match (root.has("upstream"), root.has("routes")) {
        (true, true) => root.fault("routes", BOTH),
        (false, false) => {
            root.fault("upstream", format!("missing, allowed: {}; or a list of routes instead", URL.allowed()));
        }
        _ => {}
    }
    let mut routes = Vec::new();
    if root.has("upstream") {
        routes.extend(upstream(root, addresses).map(|upstream| common.route("default".to_owned(), upstream)));
    }
    if root.has("routes") {
        let read = |section: &mut Section<'_>| route(section, common, addresses);
        let candidates = root.key("routes", ROUTES).sections(None, MOST_ROUTES, read);
        refuse_repeated_names(root, &candidates);
        refuse_unreachable(root, &candidates);
        routes.extend(candidates.into_iter().filter_map(|candidate| candidate.route));
    }
    routes
}

const ROUTES: &str = "Several services, or several kinds of traffic that the metrics tell apart, instead of `upstream`. \
                      The first route that matches takes a request; where none does, the answer is 404.";

const BOTH: &str = "there is an upstream too, allowed: one of the two; a last route without match takes what is left";

impl Common {
    /// A route that takes everything.
    fn route(&self, name: String, upstream: Upstream) -> Route {
        Route {
            name,
            matcher: Match::default(),
            upstream,
            timeouts: self.timeouts.clone(),
            limits: self.limits.clone(),
            on_server_loss: self.on_server_loss.clone(),
            on_client_loss: self.on_client_loss.clone(),
        }
    }
}

/// What was read of a route. What is bad is not there, to be held against nothing.
struct Candidate {
    /// Where it is named, and how.
    name: Option<(Spot, String)>,
    matcher: Option<Match>,
    route: Option<Route>,
}

fn route(section: &mut Section<'_>, common: &Common, addresses: &mut Addresses) -> Candidate {
    let name = section.key("name", "The value of the label `route`; each route has its own.").required(&ROUTE_NAME);
    let matcher = section
        .key("match", "Which requests take the route: those that fit all that is given. Without it every one does.")
        .section(matcher);
    let upstream = upstream(section, addresses);
    let timeouts = section.key("timeouts", TIMEOUTS).section(|section| timeouts(section, &common.timeouts));
    let limits =
        section.key("limits", LIMITS).section(|section| limits(section, &common.limits, common.buffer_total_bytes));
    let on_server_loss = loss(section, "on_server_loss", ON_SERVER_LOSS, common.on_server_loss.as_ref());
    let on_client_loss = loss(section, "on_client_loss", ON_CLIENT_LOSS, common.on_client_loss.as_ref());
    Candidate {
        name: name.clone().map(|name| (section.spot("name"), name)),
        matcher: section.is_sound("match").then(|| matcher.clone()),
        route: name.zip(upstream).map(|(name, upstream)| Route {
            name,
            matcher,
            upstream,
            timeouts,
            limits,
            on_server_loss,
            on_client_loss,
        }),
    }
}

fn matcher(section: &mut Section<'_>) -> Match {
    Match {
        host: section
            .key("host", "The host that the request asks for, whatever the port. Case does not matter.")
            .optional(&HOST_NAME),
        path_prefix: section
            .key(
                "path_prefix",
                "What the path begins with, in whole segments: `/chat` fits `/chat` and `/chat/room`, not `/chatter`.",
            )
            .optional(&PATH_PREFIX),
    }
}

fn refuse_repeated_names(root: &Section<'_>, routes: &[Candidate]) {
    let mut first = HashMap::new();
    for (index, candidate) in routes.iter().enumerate() {
        let Some((spot, name)) = &candidate.name else { continue };
        match first.get(name) {
            Some(first) => root.fault_at(spot.clone(), format!("routes[{first}] has this name too; each has its own")),
            None => {
                first.insert(name, index);
            }
        }
    }
}

/// The first match wins, so a route behind one that takes all of its requests gets none.
fn refuse_unreachable(root: &Section<'_>, routes: &[Candidate]) {
    for (index, candidate) in routes.iter().enumerate() {
        let Some(matcher) = &candidate.matcher else { continue };
        let covers = |earlier: &Candidate| earlier.matcher.as_ref().is_some_and(|earlier| earlier.covers(matcher));
        if let Some(earlier) = routes[..index].iter().position(covers) {
            let message = format!("no request comes here: routes[{earlier}] takes them all; put this one before it");
            root.fault_in_list("routes", index, message);
        }
    }
}

fn upstream(section: &mut Section<'_>, addresses: &mut Addresses) -> Option<Upstream> {
    section.key("upstream", "The WebSocket service.").short_section("url", |section| server(section, addresses))
}

fn server(section: &mut Section<'_>, addresses: &mut Addresses) -> Option<Upstream> {
    let target = section.key("url", "Where it is. A request's own path is passed on.").required(&URL);
    section.key("tls", "TLS toward the server").not_yet();
    let connect_timeout = section
        .key("connect_timeout", "How long connecting may take. Beyond, the client gets a 504.")
        .value(Duration::from_secs(5), &Time::TIMEOUT);
    let proxy_protocol = section
        .key("proxy_protocol", "`v2`: a PROXY protocol header with the client's address is sent first.")
        .value(false, &Words(&[("off", false), ("v2", true)]));
    let target = target?;
    addresses.connect(section.spot("url"), target.address.clone());
    Some(Upstream {
        url: target.url,
        address: target.address,
        authority: target.authority,
        connect_timeout,
        proxy_protocol,
    })
}

pub(super) const TIMEOUTS: &str = "How long things may take.";

/// The timeouts of a session.
pub(super) fn timeouts(section: &mut Section<'_>, default: &Timeouts) -> Timeouts {
    let format = off_or(Time::TIMEOUT);
    Timeouts {
        handshake: section
            .key("handshake", "For the service to answer an upgrade. Beyond, the client gets a 504.")
            .value(default.handshake, &format),
        idle: section
            .key("idle", "No byte in either direction. Beyond, both endpoints get Close 1001; action `idle_timeout`.")
            .value(default.idle, &format),
        max_age: section
            .key(
                "max_age",
                "A session's age, less up to a tenth at random. Beyond, both endpoints get Close 1001; action `max_age`.",
            )
            .value(default.max_age, &format),
        close: section
            .key("close", "After the first Close frame, for the answer. Chromium itself waits 60 s.")
            .value(default.close, &format),
        hang_up: section
            .key("hang_up", "After both Close frames, for the endpoints to hang up.")
            .value(default.hang_up, &format),
    }
}

pub(super) const LIMITS: &str = "How much there may be.";

/// The limits of a session. Its buffer is part of what all sessions together may hold.
pub(super) fn limits(
    section: &mut Section<'_>,
    default: &SessionLimits,
    buffer_total_bytes: Option<u64>,
) -> SessionLimits {
    let format = off_or(Size(1..=LARGEST_SIZE));
    let frame_bytes = section
        .key("frame_bytes", "The payload of a frame. Beyond, both endpoints get Close 1009; action `limit`.")
        .value(default.frame_bytes, &format);
    let message_bytes = section
        .key(
            "message_bytes",
            "The payload of a message as it is on the wire, perhaps compressed. Beyond, both endpoints get Close 1009; \
             action `limit`.",
        )
        .value(default.message_bytes, &format);
    let buffer_bytes = section
        .key(
            "buffer_bytes",
            "What is held for one direction of a session while its reader is slow. Beyond, its sender is not read.",
        )
        .value(default.buffer_bytes as u64, &BUFFER);
    let limits = SessionLimits { frame_bytes, message_bytes, buffer_bytes: memory(buffer_bytes) };
    // What is inherited was judged where it stands.
    if section.has("buffer_bytes") && section.is_sound("buffer_bytes") {
        refuse_large_buffer(section, "buffer_bytes", &limits, buffer_total_bytes);
    }
    limits
}

/// Told at `key`, which is the one that the file has.
pub(super) fn refuse_large_buffer(section: &Section<'_>, key: &str, limits: &SessionLimits, total: Option<u64>) {
    if let Some(total) = total.filter(|total| limits.buffer_bytes as u64 > *total) {
        let total = BUFFER.write(&total);
        section
            .fault(key, format!("one session's buffer_bytes is more than buffer_total_bytes, {total}, allow to all"));
    }
}

/// A number of bytes as the length of something in memory.
pub(super) fn memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

pub(super) const ON_SERVER_LOSS: &str = "What the client gets when the service is lost without a Close frame: the same \
                                         loss, or a Close frame of closewatch's.";

pub(super) const ON_CLIENT_LOSS: &str = "What the service gets when the client is lost without a Close frame: the same \
                                         loss, or a Close frame of closewatch's.";

/// What an endpoint is told of the other's loss: `propagate`, or a Close frame.
pub(super) fn loss(
    section: &mut Section<'_>,
    key: &'static str,
    meaning: &'static str,
    default: Option<&CloseText>,
) -> Option<CloseText> {
    const PROPAGATE: Parsed<()> = Parsed {
        allowed: "propagate, or {code: ..., reason: ...}",
        parse: |text| if text == "propagate" { Ok(()) } else { Err(None) },
        write: |()| "propagate".to_owned(),
    };
    match (section.content(key), default) {
        (Some(Content::Mapping(_)), _) | (None, Some(_)) => {
            Some(section.key(key, meaning).section(|section| close_text(section, default)))
        }
        _ => {
            section.key(key, meaning).value((), &PROPAGATE);
            None
        }
    }
}

fn close_text(section: &mut Section<'_>, default: Option<&CloseText>) -> CloseText {
    let code = section.key("code", "The code of this Close frame.");
    let code = match default {
        Some(default) => code.value(default.code, &CLOSE_CODE),
        // A stand-in: without a code there is a fault.
        None => code.required(&CLOSE_CODE).unwrap_or(CloseCode::GOING_AWAY),
    };
    let reason = default.map_or_else(String::new, |default| default.reason.clone());
    CloseText { code, reason: section.key("reason", "Its reason.").value(reason, &CLOSE_REASON) }
}
