//! Health answers, and opening handshakes go on, whatever happens at the admin.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    process::Command,
    time::{Duration, Instant},
};

use crate::support::{Peer, Program, Server, Session, eventually};

/// Health answers within 1 s. The factor of 5 is for a machine that runs all tests at once.
const DEADLINE: Duration = Duration::from_secs(5);

const METRICS: &str = "metrics: {listen: \"127.0.0.1:0\"}\n";

/// Requests health and readiness on both listeners.
fn expect_health(program: &Program) {
    for address in [program.admin(), program.metrics_address()] {
        for path in ["/-/healthy", "/-/ready"] {
            expect_answer(address, path);
        }
    }
}

fn expect_answer(address: SocketAddr, path: &str) {
    let start = Instant::now();
    let mut stream = TcpStream::connect_timeout(&address, DEADLINE).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: a-probe\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(start.elapsed() < DEADLINE, "{:?}", start.elapsed());
}

/// A connection that sends requests and never reads.
fn deaf(address: SocketAddr, requests: &str) -> Peer {
    let mut peer = Peer::connect_with_small_window(address);
    peer.send(requests);
    peer
}

#[test]
fn health_answers_beside_scrapers_that_never_read() {
    let server = Server::start();
    let program = Program::before(&server, METRICS);
    let pipelined = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);
    let scrapers: Vec<Peer> = [program.admin(), program.metrics_address()]
        .into_iter()
        .flat_map(|address| [address; 128])
        .map(|address| deaf(address, &pipelined))
        .collect();
    for _ in 0..10 {
        expect_health(&program);
    }
    Session::open(&program, &server).exchange();
    drop(scrapers);
}

#[test]
fn health_answers_beside_readers_of_the_api_that_never_read() {
    let server = Server::start();
    let program = Program::before(&server, METRICS);
    program.wait_for_phase("ready");
    let mut readers = Vec::new();
    for path in ["/api/v1/closes/stream", "/api/v1/codes", "/api/v1/closes", "/"] {
        let requests = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n").repeat(50);
        readers.extend((0..128).map(|_| deaf(program.admin(), &requests)));
        expect_health(&program);
    }
}

#[test]
fn health_answers_without_file_descriptors() {
    const OPEN_FILES: usize = 64;
    let server = Server::start();
    let config = format!("limits: {{connections: 1000}}\n{METRICS}{}", server.upstream());
    let program = Program::start_after(&format!("ulimit -n {OPEN_FILES};"), &config);
    program.wait_for_phase("ready");
    // Clients take all descriptors, and more of them wait for one.
    let clients: Vec<Peer> = (0..2 * OPEN_FILES).map(|_| program.connect()).collect();
    program.wait_for_log("accept failed: too many open files", 1);
    for _ in 0..50 {
        expect_health(&program);
    }
    // Connections that say nothing do not keep the reserve.
    let silent: Vec<Peer> = [program.admin(), program.metrics_address()]
        .into_iter()
        .flat_map(|address| [address; 50])
        .map(Peer::connect)
        .collect();
    for _ in 0..50 {
        expect_health(&program);
    }
    drop((clients, silent));
    Session::open(&program, &server).exchange();
    expect_health(&program);
}

#[test]
fn hung_reload_holds_up_neither_health_nor_drain() {
    let server = Server::start();
    let program = Program::before(&server, METRICS);
    let mut session = Session::open(&program, &server);
    let file = program.file("closewatch.yaml");
    fs::remove_file(&file).unwrap();
    // Nobody writes to it, so reading blocks.
    assert!(Command::new("mkfifo").arg(&file).status().unwrap().success());
    program.signal("HUP");
    eventually("the configuration is read", || {
        let threads = threads(&program);
        threads.contains_key("reload").then_some(())
    });
    expect_health(&program);
    session.exchange();
    Session::open(&program, &server).exchange();
    program.signal("TERM");
    session.proxy_closes(1001, "");
    assert_eq!(program.ended().code, Some(0));
}

#[test]
fn scrapes_take_no_time_of_the_control_threads() {
    const SCRAPES: usize = 200;
    let server = Server::start();
    let program = Program::before(&server, METRICS);
    Session::open(&program, &server).exchange();
    let before = threads(&program);
    for _ in 0..SCRAPES {
        expect_answer(program.metrics_address(), "/metrics");
    }
    let after = threads(&program);
    let ticks = |name: &str| after[name] - before[name];
    let (scrapes, control) = (ticks("admin") + ticks("metrics"), ticks("tokio-rt-worker"));
    assert!(control * 4 <= scrapes, "the control threads took {control} ticks, scrapes {scrapes}");
}

/// The CPU time of the threads with each name, in ticks of 10 ms.
fn threads(program: &Program) -> HashMap<String, u64> {
    let mut threads = HashMap::new();
    for entry in fs::read_dir(format!("/proc/{}/task", program.process())).unwrap() {
        // A thread may end meanwhile.
        let Ok(stat) = fs::read_to_string(entry.unwrap().path().join("stat")) else { continue };
        let (name, fields) = stat.split_once('(').unwrap().1.rsplit_once(") ").unwrap();
        let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
        *threads.entry(name.to_owned()).or_default() += ticks;
    }
    threads
}
