//! The client of a request: the end of its connection, or the address that trusted peers vouch for.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr},
};

use ipnet::{IpNet, Ipv4Net};

use super::forwarding_headers::{HeaderFields, X_FORWARDED_FOR, tokens};
use crate::config::Setting;

/// The length of the prefix of IPv4 addresses that are mapped into IPv6 (RFC 4291, 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// A client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress {
    pub(super) ip: IpAddr,
    /// `X-Forwarded-For` seldom has a port.
    pub(super) port: Option<u16>,
}

/// The client of a request that came from `source`: the left-most address in `X-Forwarded-For` that a trusted peer vouches
/// for. Each peer appends the address that it sees, so the list is walked from the right, through trusted networks.
pub(super) fn vouched_client(
    trusted: &[Setting<IpNet>],
    headers: &impl HeaderFields,
    source: SocketAddr,
) -> ClientAddress {
    let mut client = ClientAddress::from(source);
    if !is_trusted(trusted, client.ip) {
        return client;
    }
    let name = X_FORWARDED_FOR;
    let forwarded: Vec<&str> = tokens(headers, &name).filter(|address| !address.is_empty()).collect();
    for address in forwarded.into_iter().rev() {
        // `unknown` and obfuscated names end the walk: the peer behind them vouches for no address.
        let Some(vouched) = ClientAddress::parse(address) else { break };
        client = vouched;
        if !is_trusted(trusted, client.ip) {
            break;
        }
    }
    client
}

/// Whether one of the networks has an address. An IPv4 address is the same if it is mapped into IPv6, on either side.
pub(super) fn is_trusted(trusted: &[Setting<IpNet>], ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    trusted.iter().any(|network| canonical(network.0).contains(&ip))
}

fn canonical(network: IpNet) -> IpNet {
    let mapped = match network {
        IpNet::V6(network) if network.prefix_len() >= MAPPED_PREFIX => network.addr().to_ipv4_mapped(),
        _ => None,
    };
    let length = network.prefix_len().saturating_sub(MAPPED_PREFIX);
    mapped.and_then(|ip| Ipv4Net::new(ip, length).ok()).map_or(network, IpNet::V4)
}

impl ClientAddress {
    /// An address with or without a port. IPv6 may have brackets.
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return Some(address.into());
        }
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let ip = match bare {
            Some(bare) => bare.parse::<Ipv6Addr>().ok()?.into(),
            None => text.parse::<IpAddr>().ok()?,
        };
        Some(Self { ip: ip.to_canonical(), port: None })
    }
}

impl From<SocketAddr> for ClientAddress {
    fn from(address: SocketAddr) -> Self {
        Self { ip: address.ip().to_canonical(), port: Some(address.port()) }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(formatter),
            None => self.ip.fmt(formatter),
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::{HeaderMap, header::HeaderValue};

    use super::*;

    fn networks(trusted: &[&str]) -> Vec<Setting<IpNet>> {
        trusted.iter().map(|network| Setting(network.parse().unwrap())).collect()
    }

    /// The client of a request from 10.0.0.1, if 10.0.0.0/8 and `fd00::/8` are trusted.
    fn client(lines: &[&'static str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_static(line));
        }
        let trusted = networks(&["10.0.0.0/8", "fd00::/8"]);
        vouched_client(&trusted, &headers, "10.0.0.1:9".parse().unwrap()).to_string()
    }

    #[test]
    fn forwarded_list_is_walked_through_trusted_networks() {
        for (lines, expected) in [
            (&[][..], "10.0.0.1:9"),
            (&["192.0.2.7"], "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7"], "192.0.2.7"),
            (&["6.6.6.6, 192.0.2.7, 10.2.2.2"], "192.0.2.7"),
            (&["6.6.6.6,192.0.2.7", "10.3.3.3 , fd00::1"], "192.0.2.7"),
            (&["10.9.9.9, 10.2.2.2"], "10.9.9.9"),
            (&["192.0.2.7, , "], "192.0.2.7"),
            (&["192.0.2.7:4711"], "192.0.2.7:4711"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:4711, 10.2.2.2:80"], "[2001:db8::7]:4711"),
            (&["6.6.6.6, ::ffff:192.0.2.7, ::ffff:10.2.2.2"], "192.0.2.7"),
            (&["unknown"], "10.0.0.1:9"),
            (&["192.0.2.7, unknown, 10.2.2.2"], "10.2.2.2"),
            (&["6.6.6.6, _hidden"], "10.0.0.1:9"),
            (&["example.com, [192.0.2.7], 10.2.2.2"], "10.2.2.2"),
        ] {
            assert_eq!(client(lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn untrusted_peer_vouches_for_nobody() {
        let mut headers = HeaderMap::new();
        headers.append(X_FORWARDED_FOR, HeaderValue::from_static("6.6.6.6"));
        for trusted in [&[][..], &["192.168.0.0/16"]] {
            let client = vouched_client(&networks(trusted), &headers, "10.0.0.1:9".parse().unwrap());
            assert_eq!(client.to_string(), "10.0.0.1:9");
        }
    }

    #[test]
    fn mapped_addresses_match_on_either_side() {
        for (network, address, expected) in [
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "::ffff:11.1.2.3", false),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "11.1.2.3", false),
            ("::ffff:0:0/96", "192.0.2.7", true),
            ("fd00::/8", "fd00::1", true),
            ("fd00::/8", "10.1.2.3", false),
            ("0.0.0.0/0", "2001:db8::7", false),
        ] {
            assert_eq!(is_trusted(&networks(&[network]), address.parse().unwrap()), expected, "{network} {address}");
        }
    }
}
