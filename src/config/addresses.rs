//! The addresses that a configuration uses, held against each other and against the machine.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use super::{
    error::{Fault, Spot},
    types::UpstreamAddress,
};

/// Every address that closewatch listens on or connects to, and where it is written.
#[derive(Default)]
pub(super) struct Addresses {
    own: Vec<(Spot, SocketAddr)>,
    servers: Vec<(Spot, UpstreamAddress)>,
}

impl Addresses {
    /// An address to listen on.
    pub(super) fn claim(&mut self, spot: Spot, address: SocketAddr) {
        self.own.push((spot, address));
    }

    /// An address to connect to.
    pub(super) fn connect(&mut self, spot: Spot, address: UpstreamAddress) {
        self.servers.push((spot, address));
    }

    /// Addresses that cannot all be listened on, and servers that are closewatch itself.
    pub(super) fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (index, later) in self.own.iter().enumerate() {
            faults.extend(self.own[..index].iter().filter_map(|earlier| conflict(earlier, later)));
        }
        for server in &self.servers {
            faults.extend(self.own.iter().find_map(|own| connects_to(own, server)));
        }
        faults
    }

    /// What the machine says against the servers' Unix sockets. A socket that is not there yet is no fault: its server
    /// may start later.
    pub(super) fn faults_on_this_machine(&self) -> Vec<Fault> {
        let unix = |(spot, address): &(Spot, UpstreamAddress)| match address {
            UpstreamAddress::Unix(path) => unusable(path).map(|message| Fault { spot: spot.clone(), message }),
            UpstreamAddress::Tcp { .. } => None,
        };
        self.servers.iter().filter_map(unix).collect()
    }
}

/// Told at what is written later, since what is not written at all is a default.
fn conflict(left: &(Spot, SocketAddr), right: &(Spot, SocketAddr)) -> Option<Fault> {
    let ((left_spot, left), (right_spot, right)) = (left, right);
    let same_ip = left.ip() == right.ip() || (left.is_ipv4() == right.is_ipv4() && either_is_unspecified(left, right));
    // Port 0 is a new port each time.
    if left.port() == 0 || left.port() != right.port() || !same_ip {
        return None;
    }
    let (to_blame, address, other_spot, other) = if left_spot.place > right_spot.place {
        (left_spot, left, right_spot, right)
    } else {
        (right_spot, right, left_spot, left)
    };
    let message = format!("{address} is taken by {} ({other}); choose another port", other_spot.path);
    Some(Fault { spot: to_blame.clone(), message })
}

fn either_is_unspecified(left: &SocketAddr, right: &SocketAddr) -> bool {
    left.ip().is_unspecified() || right.ip().is_unspecified()
}

fn connects_to((own_spot, own): &(Spot, SocketAddr), (spot, server): &(Spot, UpstreamAddress)) -> Option<Fault> {
    let UpstreamAddress::Tcp { host, port } = server else { return None };
    let this_machine = |ip: IpAddr| ip == own.ip() || (own.ip().is_unspecified() && ip.is_loopback());
    let is_own = match host.parse::<IpAddr>() {
        Ok(ip) => ip.is_unspecified() || this_machine(ip),
        Err(_) => host.eq_ignore_ascii_case("localhost") && (own.ip().is_unspecified() || own.ip().is_loopback()),
    };
    (is_own && *port == own.port()).then(|| {
        let message = format!("closewatch would connect to itself: {own} is {}; name the server", own_spot.path);
        Fault { spot: spot.clone(), message }
    })
}

/// Why nothing can be connected to at `path`.
fn unusable(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => None,
        Ok(_) => Some(format!("{} is no socket", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let directory = path.parent().filter(|directory| !directory.is_dir())?;
            Some(format!("there is no directory {}", directory.display()))
        }
        Err(error) => Some(format!("{} cannot be looked at: {error}", path.display())),
    }
}
