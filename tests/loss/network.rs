//! Three hosts, and faults of the links between them.

use std::{fs, io, net::Ipv4Addr};

use closewatch::websocket::Endpoint;

use crate::{namespace::Namespace, support::eventually};

/// The lost packets of a link, as its endpoint sees them.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Lost {
    Inbound,
    Outbound,
    Both,
}

/// The address of closewatch for clients.
pub(crate) const PROXY_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 203, 1, 1);

/// The address of an endpoint's host.
pub(crate) const fn address(endpoint: Endpoint) -> Ipv4Addr {
    match endpoint {
        Endpoint::Client => Ipv4Addr::new(10, 203, 1, 2),
        Endpoint::Server => Ipv4Addr::new(10, 203, 2, 2),
    }
}

/// The hosts of a client, of closewatch and of a server, and a cable from closewatch to each of the others.
pub(crate) struct Network {
    pub(crate) proxy: Namespace,
    client: Namespace,
    server: Namespace,
}

impl Network {
    pub(crate) fn new() -> io::Result<Self> {
        let network = Self { proxy: Namespace::new()?, client: Namespace::new()?, server: Namespace::new()? };
        for host in [&network.proxy, &network.client, &network.server] {
            host.command("ip link set lo up");
        }
        for (endpoint, own) in [(Endpoint::Client, PROXY_ADDRESS), (Endpoint::Server, Ipv4Addr::new(10, 203, 2, 1))] {
            network.lay_cable(endpoint, own);
        }
        Ok(network)
    }

    /// The host of an endpoint.
    pub(crate) fn host(&self, endpoint: Endpoint) -> &Namespace {
        match endpoint {
            Endpoint::Client => &self.client,
            Endpoint::Server => &self.server,
        }
    }

    /// Pulls the cable out of an endpoint's host. closewatch's interface loses its carrier.
    pub(crate) fn pull_cable(&self, endpoint: Endpoint) {
        self.host(endpoint).command("ip link set eth0 down");
    }

    /// Switches off closewatch's interface to an endpoint.
    pub(crate) fn switch_off_interface(&self, endpoint: Endpoint) {
        self.proxy.command(&format!("ip link set {} down", endpoint.as_str()));
    }

    /// Removes an endpoint's host: no host has its address.
    pub(crate) fn remove_host(&self, endpoint: Endpoint) {
        self.host(endpoint).command("ip address flush dev eth0");
        self.proxy.command(&format!("ip neigh flush dev {}", endpoint.as_str()));
    }

    pub(crate) fn return_host(&self, endpoint: Endpoint) {
        self.host(endpoint).command(&format!("ip address add {}/24 dev eth0", address(endpoint)));
    }

    /// Whether closewatch's kernel knows that no host has an endpoint's address.
    pub(crate) fn knows_no_host(&self, endpoint: Endpoint) -> bool {
        self.proxy.command(&format!("ip neigh show dev {}", endpoint.as_str())).contains("FAILED")
    }

    /// Drops packets of an endpoint's link.
    pub(crate) fn lose(&self, endpoint: Endpoint, lost: Lost) {
        let host = self.host(endpoint);
        host.command("nft add table ip loss");
        let hooks: &[&str] = match lost {
            Lost::Inbound => &["input"],
            Lost::Outbound => &["output"],
            Lost::Both => &["input", "output"],
        };
        for hook in hooks {
            host.command(&format!("nft add chain ip loss {hook} {{ type filter hook {hook} priority 0 ; }}"));
            host.command(&format!("nft add rule ip loss {hook} ip protocol tcp counter drop"));
        }
    }

    /// Answers packets to an endpoint's host with ICMP "port unreachable".
    pub(crate) fn refuse_by_icmp(&self, endpoint: Endpoint) {
        let host = self.host(endpoint);
        host.command("nft add table ip loss");
        host.command("nft add chain ip loss input { type filter hook input priority 0 ; }");
        host.command("nft add rule ip loss input ip protocol tcp counter reject with icmp port-unreachable");
    }

    /// Drops and refuses no more packets.
    pub(crate) fn heal(&self, endpoint: Endpoint) {
        self.host(endpoint).command("nft delete table ip loss");
    }

    /// The number of packets that were dropped or refused.
    pub(crate) fn lost_packets(&self, endpoint: Endpoint) -> u64 {
        let rules = self.host(endpoint).command("nft list table ip loss");
        let counts = rules.split("counter packets ").skip(1);
        counts.map(|count| count.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// The number of window probes of closewatch's kernel.
    pub(crate) fn window_probes(&self) -> u64 {
        let statistics = self.proxy.run(|| fs::read_to_string("/proc/thread-self/net/netstat")).unwrap();
        let mut lines = statistics.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let place = names.split(' ').position(|name| name == "TCPWinProbe").unwrap();
        values.split(' ').nth(place).unwrap().parse().unwrap()
    }

    /// Whether all data of all hosts is acknowledged.
    pub(crate) fn is_quiet(&self) -> bool {
        [&self.client, &self.proxy, &self.server].into_iter().all(has_sent_all)
    }

    /// Whether all data of an endpoint is acknowledged.
    pub(crate) fn is_quiet_at(&self, endpoint: Endpoint) -> bool {
        has_sent_all(self.host(endpoint))
    }

    /// Whether closewatch's kernel has no connection with an endpoint. Data may still be unread.
    pub(crate) fn is_without(&self, endpoint: Endpoint) -> bool {
        self.proxy.command(&format!("ss -Htan dst {}", address(endpoint))).is_empty()
    }

    /// Whether the kernel has a limit for the time between two retransmissions.
    pub(crate) fn can_limit_backoff() -> bool {
        // The option and this setting came together.
        fs::exists("/proc/sys/net/ipv4/tcp_rto_max_ms").unwrap()
    }

    fn lay_cable(&self, endpoint: Endpoint, own_address: Ipv4Addr) {
        let name = endpoint.as_str();
        let host = self.host(endpoint);
        self.proxy.command(&format!("ip link add {name} type veth peer name eth0 netns {}", host.path()));
        self.proxy.command(&format!("ip address add {own_address}/24 dev {name}"));
        self.proxy.command(&format!("ip link set {name} up"));
        host.command(&format!("ip address add {}/24 dev eth0", address(endpoint)));
        host.command("ip link set eth0 up");
        for (side, interface) in [(&self.proxy, name), (host, "eth0")] {
            let show = format!("ip link show dev {interface}");
            eventually("the link is up", || side.command(&show).contains(" state UP ").then_some(()));
        }
        self.proxy.run(|| notice_missing_hosts_early(name));
    }
}

/// The kernel notices a host that does not answer after 3 s, a small part of the 75 s of the default keepalive. The
/// keepalive of the tests is short, so this time is shorter, too.
fn notice_missing_hosts_early(interface: &str) {
    let settings = format!("/proc/sys/net/ipv4/neigh/{interface}");
    fs::write(format!("{settings}/retrans_time_ms"), "100").unwrap();
    fs::write(format!("{settings}/mcast_solicit"), "1").unwrap();
}

/// Whether all data that a host sent is acknowledged.
fn has_sent_all(host: &Namespace) -> bool {
    let sockets = host.run(|| fs::read_to_string("/proc/thread-self/net/tcp")).unwrap();
    // The fifth column has the lengths of the send queue and of the receive queue.
    let mut queues = sockets.lines().skip(1).map(|line| line.split_ascii_whitespace().nth(4).unwrap());
    queues.all(|queues| queues.starts_with("00000000:"))
}
