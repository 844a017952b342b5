//! Readers that do not read: alive or dead behind a closed window, and the effect on the other end.

use std::{
    io::ErrorKind,
    thread::{self, JoinHandle},
    time::Duration,
};

use closewatch::websocket::Endpoint;
use libtest_mimic::Trial;
use serde_json::Value;

use crate::{
    case,
    lab::{self, IN_TIME, Lab, close, closed_by_client, lost, message},
    network::Lost,
    support::{PATIENCE, Peer, eventually, eventually_within},
};

/// More bytes than the buffers between both ends hold.
const FLOOD: usize = 24 << 20;

/// Fewer bytes than closewatch and its kernel hold.
const FITS: usize = 300_000;

/// The number of window probes that take longer than a silent link lives.
const MANY_PROBES: u64 = 7;

/// A `timeouts.close` of 2 s, and five times as much for a busy host.
const CLOSE: (&str, Duration) = ("timeouts: {close: 2s}", Duration::from_secs(10));

pub(crate) fn cases() -> Vec<Trial> {
    let mut cases = Vec::new();
    for reader in Endpoint::BOTH {
        let name = reader.as_str();
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

/// The reader answers window probes, and gets every byte when it reads again.
fn lives(reader: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_with_slow_reader(reader);
    let message = message(reader.other(), &vec![7; FLOOD]);
    let writing = write(session.end(reader.other()), message.clone());
    eventually_within(3 * PATIENCE, "the window is probed", || {
        (lab.network.window_probes() >= MANY_PROBES).then_some(())
    });
    assert_eq!(lab.records(), [] as [Value; 0]);
    session.end(reader).expect(&message);
    writing.join().unwrap();
    close(session);
    lab.expect_record(&closed_by_client(), IN_TIME);
}

/// The kernel sends no keepalive, and probes the window for minutes.
fn dies(reader: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_with_slow_reader(reader);
    fill(&lab, session.end(reader.other()), reader.other());
    lab.network.lose(reader, Lost::Both);
    lab.expect_record(&lost(reader, "timeout"), IN_TIME);
    let error = session.end(reader.other()).try_send(vec![7; FLOOD]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// RST for RST, but after the bytes before it.
fn gets_all_before_a_reset(reader: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_with_slow_reader(reader);
    let message = message(reader.other(), &vec![7; FITS]);
    session.end(reader.other()).send(&message);
    eventually("closewatch has it", || lab.network.is_quiet_at(reader.other()).then_some(()));
    let (resetting, mut reading) = session.split(reader.other());
    resetting.reset();
    eventually("closewatch is reset", || lab.network.is_without(reader.other()).then_some(()));
    reading.expect(&message);
    reading.expect_rst();
    lab.expect_record(&lost(reader.other(), "reset"), IN_TIME);
}

/// The kernel of a program that hung up answers data with RST. Its FIN came first.
fn gets_all_before_a_fin_and_a_reset(reader: Endpoint) {
    let lab = Lab::new();
    let mut session = lab.open_with_slow_reader(reader);
    let message = message(reader.other(), &vec![7; FITS]);
    session.end(reader.other()).send(&message);
    let (leaving, mut reading) = session.split(reader.other());
    drop(leaving);
    eventually("closewatch has it", || lab.network.is_quiet_at(reader.other()).then_some(()));
    reading.send(lab::message(reader, b"too late"));
    eventually("closewatch is reset", || lab.network.is_without(reader.other()).then_some(()));
    reading.expect(&message);
    reading.expect_fin();
    drop(reading);
    lab.expect_record(&lost(reader.other(), "eof"), IN_TIME);
}

/// Bytes that were sent before cannot be delivered in time. The session does not wait for ever.
fn other_resets(reader: Endpoint) {
    let lab = Lab::with(CLOSE.0);
    let mut session = lab.open_with_slow_reader(reader);
    fill(&lab, session.end(reader.other()), reader.other());
    let (resetting, _reading) = session.split(reader.other());
    resetting.reset();
    lab.expect_record(&lost(reader.other(), "reset"), CLOSE.1);
}

fn other_dies(reader: Endpoint) {
    let lab = Lab::with(CLOSE.0);
    let mut session = lab.open_with_slow_reader(reader);
    fill(&lab, session.end(reader.other()), reader.other());
    lab.network.lose(reader.other(), Lost::Both);
    lab.expect_record(&lost(reader.other(), "timeout"), IN_TIME + CLOSE.1);
}

/// Writes on another thread, because the other end does not read yet.
fn write(peer: &Peer, bytes: Vec<u8>) -> JoinHandle<()> {
    let mut peer = peer.again();
    thread::spawn(move || peer.send(&bytes))
}

/// Sends a part of a message without end, until every buffer up to the reader is full.
fn fill(lab: &Lab, sender: &mut Peer, from: Endpoint) {
    let mask_bit = if from == Endpoint::Client { 0x80 } else { 0 };
    sender.send([&[0x82, mask_bit | 127][..], &(1_u64 << 40).to_be_bytes()].concat());
    eventually("the window is probed", || {
        sender.send_some(&vec![7; 1 << 20]);
        (lab.network.window_probes() >= 3).then_some(())
    });
}
