//! Three hosts, and what can happen to the links between them.

use std::{fs, io, net::Ipv4Addr};

use closewatch::websocket::Endpoint;

use crate::{namespace::Namespace, support::eventually};

/// Which packets of a link get lost, as its endpoint sees them.
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

/// A client, closewatch and a server, each on a host of its own, and a cable from closewatch's to each of the others.
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

    /// Pulls the cable out of an endpoint's host. closewatch's own interface loses its carrier.
    pub(crate) fn pull_cable(&self, endpoint: Endpoint) {
        self.host(endpoint).command("ip link set eth0 down");
    }

    /// Switches off closewatch's own interface toward an endpoint.
    pub(crate) fn switch_off_interface(&self, endpoint: Endpoint) {
        self.proxy.command(&format!("ip link set {} down", endpoint.as_str()));
    }

    /// Takes an endpoint's host away: nobody answers for its address any more.
    pub(crate) fn remove_host(&self, endpoint: Endpoint) {
        self.host(endpoint).command("ip address flush dev eth0");
        self.proxy.command(&format!("ip neigh flush dev {}", endpoint.as_str()));
    }

    pub(crate) fn return_host(&self, endpoint: Endpoint) {
        self.host(endpoint).command(&format!("ip address add {}/24 dev eth0", address(endpoint)));
    }

    /// Whether the kernel beside closewatch has found out that nobody answers for an endpoint's address.
    pub(crate) fn knows_no_host(&self, endpoint: Endpoint) -> bool {
        self.proxy.command(&format!("ip neigh show dev {}", endpoint.as_str())).contains("FAILED")
    }

    /// Loses packets of an endpoint's link.
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

    /// Answers what comes to an endpoint's host with ICMP "port unreachable".
    pub(crate) fn refuse_by_icmp(&self, endpoint: Endpoint) {
        let host = self.host(endpoint);
        host.command("nft add table ip loss");
        host.command("nft add chain ip loss input { type filter hook input priority 0 ; }");
        host.command("nft add rule ip loss input ip protocol tcp counter reject with icmp port-unreachable");
    }

    /// Loses no more packets.
    pub(crate) fn heal(&self, endpoint: Endpoint) {
        self.host(endpoint).command("nft delete table ip loss");
    }

    /// How many packets got lost or were refused since the loss began.
    pub(crate) fn lost_packets(&self, endpoint: Endpoint) -> u64 {
        let rules = self.host(endpoint).command("nft list table ip loss");
        let counts = rules.split("counter packets ").skip(1);
        counts.map(|count| count.split(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }

    /// How often the kernel beside closewatch asked whether a closed window has opened.
    pub(crate) fn window_probes(&self) -> u64 {
        let statistics = self.proxy.run(|| fs::read_to_string("/proc/thread-self/net/netstat")).unwrap();
        let mut lines = statistics.lines().filter(|line| line.starts_with("TcpExt:"));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let place = names.split(' ').position(|name| name == "TCPWinProbe").unwrap();
        values.split(' ').nth(place).unwrap().parse().unwrap()
    }

    /// Whether everything that was sent anywhere has been acknowledged.
    pub(crate) fn is_quiet(&self) -> bool {
        [&self.client, &self.proxy, &self.server].into_iter().all(has_sent_all)
    }

    /// Whether everything that an endpoint sent has been acknowledged.
    pub(crate) fn is_quiet_at(&self, endpoint: Endpoint) -> bool {
        has_sent_all(self.host(endpoint))
    }

    /// Whether the kernel beside closewatch has no connection with an endpoint any more, whatever is still to be read.
    pub(crate) fn is_without(&self, endpoint: Endpoint) -> bool {
        self.proxy.command(&format!("ss -Htan dst {}", address(endpoint))).is_empty()
    }

    /// Whether the kernel can be told not to wait ever longer between two attempts to get data through.
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

/// A host that does not answer is noticed after 3 s, a small part of the 75 s of the default keepalive. The tests'
/// keepalive is short, so this is made shorter too.
fn notice_missing_hosts_early(interface: &str) {
    let settings = format!("/proc/sys/net/ipv4/neigh/{interface}");
    fs::write(format!("{settings}/retrans_time_ms"), "100").unwrap();
    fs::write(format!("{settings}/mcast_solicit"), "1").unwrap();
}

/// Whether the kernel of a host has nothing left that was not acknowledged.
fn has_sent_all(host: &Namespace) -> bool {
    let sockets = host.run(|| fs::read_to_string("/proc/thread-self/net/tcp")).unwrap();
    // The fifth column is the length of the queue of what is to be sent, and of what is to be read.
    let mut queues = sockets.lines().skip(1).map(|line| line.split_ascii_whitespace().nth(4).unwrap());
    queues.all(|queues| queues.starts_with("00000000:"))
}
