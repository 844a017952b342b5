//! The client of records and of `limits.connections_per_ip` behind trusted proxies.

use std::net::SocketAddr;

use crate::support::{Peer, Program, REQUEST, Server, Session};

/// An upgrade request that a proxy forwards for these addresses.
fn request_for(forwarded_for: &str) -> String {
    REQUEST.replace("\r\n\r\n", &format!("\r\nX-Forwarded-For: {forwarded_for}\r\n\r\n"))
}

#[test]
fn record_names_the_client_that_a_trusted_peer_vouches_for() {
    for (trusted, forwarded_for, expected) in [
        ("127.0.0.0/8", "6.6.6.6, 192.0.2.7", Some("192.0.2.7")),
        ("127.0.0.0/8, 10.0.0.0/8", "6.6.6.6, 192.0.2.7, 10.0.0.5", Some("192.0.2.7")),
        ("127.0.0.0/8", "[2001:db8::7]:4711", Some("[2001:db8::7]:4711")),
        ("'::ffff:127.0.0.0/104'", "192.0.2.7", Some("192.0.2.7")),
        ("10.0.0.0/8", "192.0.2.7", None),
        ("", "192.0.2.7", None),
    ] {
        let server = Server::start();
        let program = Program::before(&server, &format!("forwarded: {{trusted: [{trusted}]}}\n"));
        let client = program.connect();
        let own = client.address().to_string();
        Session::open_with(client, &server, &request_for(forwarded_for)).exchange();
        assert_eq!(program.record()["client"], expected.unwrap_or(&own), "{trusted} {forwarded_for}");
    }
}

/// Such a listener reports 127.0.0.1 as `::ffff:127.0.0.1`.
#[test]
fn ipv4_network_is_trusted_on_a_listener_for_both_families() {
    let server = Server::start();
    let program = Program::before(&server, "listen: '[::]:0'\nforwarded: {trusted: [127.0.0.0/8]}\n");
    let address = SocketAddr::from(([127, 0, 0, 1], program.address().port()));
    let mut client = Peer::connect(address);
    client.send(request_for("192.0.2.7"));
    let (server_end, request) = server.accept_request();
    assert_eq!(request.values("X-Forwarded-For"), ["192.0.2.7, 127.0.0.1"]);
    Session::switch(client, server_end).exchange();
    assert_eq!(program.record()["client"], "192.0.2.7");
}

#[test]
fn proxy_header_source_may_vouch_for_the_client() {
    let server = Server::start();
    let program = Program::before(
        &server,
        "listen: [{address: '127.0.0.1:0', proxy_protocol: require}]\nforwarded: {trusted: [10.0.0.0/8]}\n",
    );
    for (count, (source, expected)) in [("10.0.0.9", "192.0.2.7"), ("192.0.2.9", "192.0.2.9:4711")].iter().enumerate() {
        let mut client = program.connect();
        client.send(format!("PROXY TCP4 {source} 10.0.0.1 4711 443\r\n"));
        Session::open_with(client, &server, &request_for("192.0.2.7")).exchange();
        assert_eq!(program.records(count + 1)[count]["client"], *expected);
    }
}

#[test]
fn limit_per_address_counts_clients_behind_a_trusted_peer() {
    let server = Server::start();
    let program = Program::before(&server, "forwarded: {trusted: [127.0.0.0/8]}\nlimits: {connections_per_ip: 1}\n");
    let open = |forwarded_for| Session::open_with(program.connect(), &server, &request_for(forwarded_for));
    let mut sessions = [open("192.0.2.7"), open("192.0.2.8")];
    let mut third = program.connect();
    third.send(request_for("192.0.2.7"));
    third.receive_rest();
    program.wait_for("closewatch_connections_rejected_total", &[("reason", "limit")], 1.0);
    for session in &mut sessions {
        session.exchange();
    }
    drop(sessions);
    program.wait_for("closewatch_connections_active", &[], 0.0);
    open("192.0.2.7").exchange();
}
