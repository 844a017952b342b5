//! The rules between values, and between values and the machine.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use super::{
    formats::{Auto, Format, Setting},
    types::{Config, Shutdown},
};
use crate::authority::UpstreamUrl;

/// A rule that some keys break together: their paths, and a message. The fault is reported at the last one that somebody
/// wrote: the others are older or defaults.
pub(super) type Contradiction = (Vec<String>, String);

fn contradiction<const N: usize>(paths: [&str; N], message: impl Into<String>) -> Contradiction {
    (paths.map(str::to_owned).into(), message.into())
}

/// A rule of garde: the bounds of a histogram ascend.
pub(super) fn ascending<C>(bounds: &[Setting<Auto<f64>>], _: &C) -> garde::Result {
    let descent = bounds.windows(2).find(|pair| pair[0].is_none() || *pair[0] >= *pair[1]);
    let refuse = |pair: &[Setting<_>]| format!("{} follows {}: sort the bounds", pair[1], pair[0]);
    descent.map_or(Ok(()), |pair| Err(garde::Error::new(refuse(pair))))
}

impl Config {
    /// Returns every rule between values that this configuration breaks.
    pub(super) fn contradictions(&self) -> Vec<Contradiction> {
        let own = self.own_addresses();
        let mut found: Vec<_> = self.upstream_or_routes().into_iter().collect();
        found.extend(self.spread_is_too_long());
        found.extend(self.buffers_are_too_large());
        found.extend(self.repetitions());
        found.extend(self.unreachable_routes());
        found.extend(address_conflicts(&own));
        found.extend(self.connections_to_itself(&own));
        found
    }

    fn upstream_or_routes(&self) -> Option<Contradiction> {
        let missing = || format!("missing, allowed: {}; or a list of routes instead", UpstreamUrl::allowed());
        match (&self.upstream, self.routes.is_empty()) {
            (None, true) => Some(contradiction(["upstream"], missing())),
            (Some(_), false) => Some(contradiction(["routes"], "allowed: either upstream or routes, not both")),
            _ => None,
        }
    }

    fn spread_is_too_long(&self) -> Option<Contradiction> {
        let Shutdown { spread, timeout, .. } = &self.shutdown;
        let message = || format!("spread ({spread}) must be less than timeout ({timeout})");
        (spread.0 >= timeout.0).then(|| contradiction(["shutdown.spread", "shutdown.timeout"], message()))
    }

    /// A buffer is part of what all sessions together may hold.
    fn buffers_are_too_large(&self) -> impl Iterator<Item = Contradiction> {
        let total = self.limits.buffer_total_bytes;
        let routes = self.routes.iter().enumerate();
        let routes = routes.map(|(index, route)| (format!("routes[{index}]."), route.limits.buffer_bytes));
        let buffers = std::iter::once((String::new(), Some(self.limits.buffer_bytes))).chain(routes);
        buffers.filter_map(move |(path, buffer)| {
            let buffer = buffer.filter(|buffer| buffer.0 as u64 > total.0)?;
            let message = format!("buffer_bytes ({buffer}) of one session is more than buffer_total_bytes ({total})");
            Some(contradiction(["limits.buffer_total_bytes", &format!("{path}limits.buffer_bytes")], message))
        })
    }

    fn repetitions(&self) -> impl Iterator<Item = Contradiction> {
        let codes = repeated(self.metrics.codes.iter().map(|code| code.0)).map(|(index, first)| {
            contradiction([&format!("metrics.codes[{index}]")], format!("metrics.codes[{first}] is this code too"))
        });
        let names = repeated(self.routes.iter().map(|route| &*route.name)).map(|(index, first)| {
            let message = format!("routes[{first}] has this name too; each route has its own");
            contradiction([&format!("routes[{index}].name")], message)
        });
        codes.chain(names)
    }

    /// The first match wins, so a route gets no request if one before it takes them all.
    fn unreachable_routes(&self) -> impl Iterator<Item = Contradiction> {
        self.routes.iter().enumerate().filter_map(|(index, route)| {
            let first = self.routes[..index].iter().position(|earlier| earlier.r#match.covers(&route.r#match))?;
            let message = format!("no request comes here: routes[{first}] takes them all; put this one before it");
            Some(contradiction([&format!("routes[{index}]")], message))
        })
    }

    fn connections_to_itself(&self, own: &[(String, SocketAddr)]) -> impl Iterator<Item = Contradiction> {
        self.urls().filter_map(|(path, url)| {
            let (own_path, address) = own.iter().find(|(_, address)| connects_to(address, url))?;
            let message = format!("closewatch would connect to itself: {address} is {own_path}; name the server");
            Some(contradiction([&path], message))
        })
    }

    /// Every address that closewatch binds, with its path.
    fn own_addresses(&self) -> Vec<(String, SocketAddr)> {
        // A longer list is refused, and could have too many pairs.
        let listen = self.listen.iter().take(64).enumerate();
        let listen = listen.map(|(index, listen)| (format!("listen[{index}].address"), *listen.address));
        let admin = ("admin.listen".to_owned(), *self.admin.listen);
        let metrics = self.metrics.listen.map(|address| ("metrics.listen".to_owned(), address));
        listen.chain([admin]).chain(metrics).collect()
    }

    /// Every server's URL, with its path.
    fn urls(&self) -> impl Iterator<Item = (String, &UpstreamUrl)> {
        let upstream = self.upstream.iter().map(|upstream| ("upstream.url".to_owned(), &*upstream.url));
        let routes = self.routes.iter().enumerate();
        upstream.chain(routes.map(|(index, route)| (format!("routes[{index}].upstream.url"), &*route.upstream.url)))
    }

    /// Returns the Unix sockets that no server can be behind. One that is missing is no fault: its server may start
    /// later.
    pub(super) fn faults_on_this_machine(&self) -> Vec<Contradiction> {
        let unusable = |(path, url): (String, &UpstreamUrl)| match url {
            UpstreamUrl::Unix(socket) => Some(contradiction([&path], unusable(socket)?)),
            UpstreamUrl::Tcp(_) => None,
        };
        self.urls().filter_map(unusable).collect()
    }
}

/// Returns the index of each item that was there before, and where that was.
fn repeated<T: PartialEq>(items: impl Iterator<Item = T>) -> impl Iterator<Item = (usize, usize)> {
    let items: Vec<T> = items.collect();
    (0..items.len())
        .filter_map(move |index| Some((index, items[..index].iter().position(|item| *item == items[index])?)))
}

/// Addresses that cannot all be bound.
fn address_conflicts(own: &[(String, SocketAddr)]) -> impl Iterator<Item = Contradiction> {
    own.iter().enumerate().flat_map(|(index, (path, address))| {
        let conflicts = own[..index].iter().filter(|(_, earlier)| is_conflict(earlier, address));
        conflicts.map(move |(other, earlier)| {
            let message = format!("{other} ({earlier}) and {path} ({address}) conflict; choose another port");
            contradiction([other, path], message)
        })
    })
}

/// Port 0 is a new port each time.
fn is_conflict(left: &SocketAddr, right: &SocketAddr) -> bool {
    let is_unspecified = left.ip().is_unspecified() || right.ip().is_unspecified();
    let same_ip = left.ip() == right.ip() || (left.is_ipv4() == right.is_ipv4() && is_unspecified);
    left.port() != 0 && left.port() == right.port() && same_ip
}

fn connects_to(own: &SocketAddr, server: &UpstreamUrl) -> bool {
    let UpstreamUrl::Tcp(url) = server else { return false };
    let is_this_machine = |ip: IpAddr| ip == own.ip() || (own.ip().is_unspecified() && ip.is_loopback());
    let is_own = match url.authority.host.ip() {
        Some(ip) => ip.is_unspecified() || is_this_machine(ip),
        None => url.authority.host.matches("localhost") && (own.ip().is_unspecified() || own.ip().is_loopback()),
    };
    is_own && url.port() == own.port()
}

/// Returns why no connection to `socket` can succeed.
fn unusable(socket: &Path) -> Option<String> {
    match fs::metadata(socket) {
        Ok(metadata) if metadata.file_type().is_socket() => None,
        Ok(_) => Some(format!("{} is not a socket", socket.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = socket.parent().filter(|directory| !directory.is_dir())?;
            Some(format!("directory {} does not exist", directory.display()))
        }
        Err(error) => Some(format!("cannot read {}: {error}", socket.display())),
    }
}
