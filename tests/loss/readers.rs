//! Readers that do not read: alive with a closed window, or dead behind one; and what their silence holds up.

use std::{
    io::{ErrorKind, Write},
    net::TcpStream,
    thread::{self, JoinHandle},
    time::Duration,
};

use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    case,
    eventually::{SOON, eventually},
    lab::{self, IN_TIME, Lab, closed_by_client, expect_bytes, expect_fin, expect_reset, header, lost, message},
    network::{Endpoint, Lost},
};

/// More than the buffers between the two ends hold.
const FLOOD: usize = 24 << 20;

/// Less than closewatch and the kernel beside it hold.
const FITS: usize = 300_000;

/// How many probes of a closed window take longer than a silent link lives.
const MANY_PROBES: u64 = 7;

/// A `timeouts.close` of 2 s, and ample time for a busy machine.
const CLOSE: (&str, Duration) = ("timeouts: {close: 2s}", Duration::from_secs(8));

pub(crate) fn cases() -> Vec<Trial> {
    let mut cases = Vec::new();
    for reader in Endpoint::BOTH {
        let name = reader.name();
        cases.push(case(format!("{name}::reads_nothing_for_long_and_lives"), move || lives(reader)));
        cases.push(case(format!("{name}::reads_nothing_and_dies"), move || dies(reader)));
        cases.push(case(format!("{name}::gets_all_before_a_reset"), move || gets_all_before_a_reset(reader)));
        cases.push(case(format!("{name}::gets_all_before_a_fin_and_a_reset"), move || {
            gets_all_before_a_fin_and_a_reset(reader);
        }));
        cases.push(case(format!("{name}::reads_nothing_while_the_other_resets"), move || other_resets(reader)));
        cases.push(case(format!("{name}::reads_nothing_while_the_other_dies"), move || other_dies(reader)));
    }
    cases
}

/// It is probed, answers, and gets every byte when it reads again.
fn lives(reader: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_with_slow_reader(reader);
    let message = message(reader.other(), &vec![7; FLOOD]);
    let writing = write(session.end(reader.other()), message.clone());
    eventually(3 * SOON, "the window is probed", || (lab.network.window_probes() >= MANY_PROBES).then_some(()));
    assert_eq!(lab.records(), [] as [Value; 0]);
    expect_bytes(session.end(reader), &message);
    writing.join().unwrap();
    session.close();
    lab.expect_told(&closed_by_client(), IN_TIME);
}

/// The kernel makes no keepalive for it, and goes on probing for minutes.
fn dies(reader: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_with_slow_reader(reader);
    fill(&lab, session.end(reader.other()), reader.other());
    lab.network.lose(reader, Lost::Both);
    lab.expect_told(&lost(reader, "timeout"), IN_TIME);
    let error = session.end(reader.other()).write_all(&vec![7; FLOOD]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// RST for RST, but not past the bytes before it.
fn gets_all_before_a_reset(reader: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_with_slow_reader(reader);
    let message = message(reader.other(), &vec![7; FITS]);
    session.end(reader.other()).write_all(&message).unwrap();
    eventually(IN_TIME, "closewatch has it", || lab.network.is_quiet_at(reader.other()).then_some(()));
    let mut reading = session.reset(reader.other());
    eventually(IN_TIME, "closewatch is reset", || lab.network.is_without(reader.other()).then_some(()));
    expect_bytes(&mut reading, &message);
    expect_reset(&mut reading);
    lab.expect_told(&lost(reader.other(), "reset"), IN_TIME);
}

/// A program that hangs up answers what still comes with RST. It was its FIN that came first.
fn gets_all_before_a_fin_and_a_reset(reader: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_with_slow_reader(reader);
    let message = message(reader.other(), &vec![7; FITS]);
    session.end(reader.other()).write_all(&message).unwrap();
    let mut reading = session.hang_up(reader.other());
    eventually(IN_TIME, "closewatch has it", || lab.network.is_quiet_at(reader.other()).then_some(()));
    reading.write_all(&lab::message(reader, b"too late")).unwrap();
    eventually(IN_TIME, "closewatch is reset", || lab.network.is_without(reader.other()).then_some(()));
    expect_bytes(&mut reading, &message);
    expect_fin(&mut reading);
    drop(reading);
    lab.expect_told(&lost(reader.other(), "eof"), IN_TIME);
}

/// What was sent before cannot be delivered in time: the session does not wait for it for ever.
fn other_resets(reader: Endpoint) {
    let lab = Lab::with(CLOSE.0);
    let mut session = lab.open_with_slow_reader(reader);
    fill(&lab, session.end(reader.other()), reader.other());
    let _reading = session.reset(reader.other());
    lab.expect_told(&lost(reader.other(), "reset"), CLOSE.1);
}

fn other_dies(reader: Endpoint) {
    let lab = Lab::with(CLOSE.0);
    let mut session = lab.open_with_slow_reader(reader);
    fill(&lab, session.end(reader.other()), reader.other());
    lab.network.lose(reader.other(), Lost::Both);
    lab.expect_told(&lost(reader.other(), "timeout"), IN_TIME + CLOSE.1);
}

/// Writes in a thread of its own, since the other end does not read yet.
fn write(stream: &TcpStream, bytes: Vec<u8>) -> JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    thread::spawn(move || stream.write_all(&bytes).unwrap())
}

/// Sends a part of a message so large that it never ends, until every buffer up to the reader is full.
fn fill(lab: &Lab, stream: &mut TcpStream, from: Endpoint) {
    stream.write_all(&header(from, 1 << 40)).unwrap();
    stream.set_nonblocking(true).unwrap();
    eventually(IN_TIME, "the window is probed", || {
        while stream.write(&[7; 1 << 12]).is_ok() {}
        (lab.network.window_probes() >= 3).then_some(())
    });
    stream.set_nonblocking(false).unwrap();
}
