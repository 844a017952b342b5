//! The keys of a route, and those outside of routes that hold for every one.

use std::{collections::HashMap, time::Duration};

use super::{
    addresses::Addresses,
    document::Content,
    error::Spot,
    format::{
        CLOSE_CODE, CLOSE_REASON, Format, HOST_NAME, LARGEST_SIZE, PATH_PREFIX, Parsed, ROUTE_NAME, Size, Time, Words,
        off_or,
    },
    section::Section,
    types::{CloseText, Match, Route, SessionLimits, Timeouts, Upstream},
    upstream::URL,
};
use crate::websocket::close::CloseCode;

/// Each route has hundreds of series from the start.
const MOST_ROUTES: usize = 256;

/// What a buffer may hold: less than one read is pointless, more than this is no longer a sidecar.
const BUFFER: Size = Size(4 << 10..=1 << 30);

/// What a route has where it does not say otherwise.
pub(super) struct Common {
    pub(super) timeouts: Timeouts,
    pub(super) limits: SessionLimits,
    pub(super) buffer_total_bytes: u64,
    pub(super) on_server_loss: Option<CloseText>,
    pub(super) on_client_loss: Option<CloseText>,
}

/// The routes of `upstream` or of `routes`, whichever is given.
pub(super) fn routes(root: &mut Section<'_>, common: &Common, addresses: &mut Addresses) -> Vec<Route> {
    root.known("upstream");
    root.known("routes");
    match (root.has("upstream"), root.has("routes")) {
        (true, true) => {
            root.fault("routes", BOTH);
            Vec::new()
        }
        (false, false) => {
            root.fault("upstream", format!("missing, allowed: {}; or a list of routes instead", URL.allowed()));
            Vec::new()
        }
        (true, false) => {
            let upstream = root.short_section("upstream", Some("url"), |section| upstream(section, addresses));
            upstream.map(|upstream| common.route("default".to_owned(), upstream)).into_iter().collect()
        }
        (false, true) => {
            let routes = root.sections("routes", None, MOST_ROUTES, |section| route(section, common, addresses));
            refuse_repeated_names(root, &routes);
            refuse_unreachable(root, &routes);
            routes.into_iter().flatten().map(|(_, route)| route).collect()
        }
    }
}

const BOTH: &str = "there is an upstream too (in the file, from --upstream or from CLOSEWATCH_UPSTREAM), allowed: one \
                    of the two; a last route without match takes what is left";

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

/// A route, and where it is named.
type Named = Option<(Spot, Route)>;

fn route(section: &mut Section<'_>, common: &Common, addresses: &mut Addresses) -> Named {
    let name = section.required("name", &ROUTE_NAME);
    let matcher = section.section("match", |section| Match {
        host: section.optional("host", &HOST_NAME),
        path_prefix: section.optional("path_prefix", &PATH_PREFIX),
    });
    let upstream = section.short_section("upstream", Some("url"), |section| upstream(section, addresses));
    let timeouts = section.section("timeouts", |section| timeouts(section, &common.timeouts));
    let limits = section.section("limits", |section| limits(section, &common.limits, common.buffer_total_bytes));
    let on_server_loss = loss(section, "on_server_loss", common.on_server_loss.as_ref());
    let on_client_loss = loss(section, "on_client_loss", common.on_client_loss.as_ref());
    let route = Route { name: name?, matcher, upstream: upstream?, timeouts, limits, on_server_loss, on_client_loss };
    Some((section.spot("name"), route))
}

fn refuse_repeated_names(root: &Section<'_>, routes: &[Named]) {
    let mut first = HashMap::new();
    for (index, named) in routes.iter().enumerate() {
        let Some((spot, Route { name, .. })) = named else { continue };
        match first.get(name) {
            Some(first) => root.fault_at(spot.clone(), format!("routes[{first}] has this name too; each has its own")),
            None => {
                first.insert(name, index);
            }
        }
    }
}

/// The first match wins, so a route behind one that takes all of its requests gets none.
fn refuse_unreachable(root: &Section<'_>, routes: &[Named]) {
    for (index, named) in routes.iter().enumerate() {
        let Some((_, route)) = named else { continue };
        let covers = |earlier: &Named| earlier.as_ref().is_some_and(|(_, other)| other.matcher.covers(&route.matcher));
        if let Some(earlier) = routes[..index].iter().position(covers) {
            let message = format!("no request comes here: routes[{earlier}] takes them all; put this one before it");
            root.fault_in_list("routes", index, message);
        }
    }
}

fn upstream(section: &mut Section<'_>, addresses: &mut Addresses) -> Option<Upstream> {
    let target = section.required("url", &URL);
    section.known("tls");
    let connect_timeout = section.value("connect_timeout", Duration::from_secs(5), &Time::TIMEOUT);
    let proxy_protocol = section.value("proxy_protocol", false, &Words(&[("off", false), ("v2", true)]));
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

/// The timeouts of a session.
pub(super) fn timeouts(section: &mut Section<'_>, default: &Timeouts) -> Timeouts {
    let format = off_or(Time::TIMEOUT);
    Timeouts {
        handshake: section.value("handshake", default.handshake, &format),
        idle: section.value("idle", default.idle, &format),
        max_age: section.value("max_age", default.max_age, &format),
        close: section.value("close", default.close, &format),
        hang_up: section.value("hang_up", default.hang_up, &format),
    }
}

/// The limits of a session. Its buffer is part of what all sessions together may hold.
pub(super) fn limits(section: &mut Section<'_>, default: &SessionLimits, buffer_total_bytes: u64) -> SessionLimits {
    let format = off_or(Size(1..=LARGEST_SIZE));
    let frame_bytes = section.value("frame_bytes", default.frame_bytes, &format);
    let message_bytes = section.value("message_bytes", default.message_bytes, &format);
    let buffer_bytes = section.value("buffer_bytes", default.buffer_bytes as u64, &BUFFER);
    if section.is_sound() && buffer_bytes > buffer_total_bytes {
        let key = if section.has("buffer_bytes") { "buffer_bytes" } else { "buffer_total_bytes" };
        let total = BUFFER.write(&buffer_total_bytes);
        section
            .fault(key, format!("one session's buffer_bytes is more than buffer_total_bytes, {total}, allow to all"));
    }
    SessionLimits { frame_bytes, message_bytes, buffer_bytes: memory(buffer_bytes) }
}

/// A number of bytes as the length of something in memory.
pub(super) fn memory(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// What an endpoint is told of the other's loss: `propagate`, or a Close frame.
pub(super) fn loss(section: &mut Section<'_>, key: &'static str, default: Option<&CloseText>) -> Option<CloseText> {
    const PROPAGATE: Parsed<()> = Parsed {
        allowed: "propagate, or {code: ..., reason: ...}",
        parse: |text| if text == "propagate" { Ok(()) } else { Err(None) },
        write: |()| "propagate".to_owned(),
    };
    match (section.content(key), default) {
        (Some(Content::Mapping(_)), _) | (None, Some(_)) => {
            Some(section.section(key, |section| close_text(section, default)))
        }
        _ => {
            section.value(key, (), &PROPAGATE);
            None
        }
    }
}

fn close_text(section: &mut Section<'_>, default: Option<&CloseText>) -> CloseText {
    let code = match default {
        Some(default) => section.value("code", default.code, &CLOSE_CODE),
        // A stand-in: without a code there is a fault.
        None => section.required("code", &CLOSE_CODE).unwrap_or(CloseCode::GOING_AWAY),
    };
    let reason = default.map_or_else(String::new, |default| default.reason.clone());
    CloseText { code, reason: section.value("reason", reason, &CLOSE_REASON) }
}
