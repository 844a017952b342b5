//! The cost of a session without system calls: a look at received bytes, and a whole session from 101 to ending.

use std::{hint::black_box, sync::Arc, time::Instant};

use closewatch::{
    config::Buckets,
    metrics::{Metrics, MetricsOptions, RouteMetrics},
    session::{LegEnd, Policy, Session, SessionCommand},
    websocket::{
        Endpoint,
        conformance::Extensions,
        frame::{self, Opcode},
    },
};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

/// The limit of one read of a worker.
const BUFFER: usize = 256 * 1024;

fn route() -> Arc<RouteMetrics> {
    let options = MetricsOptions {
        codes: Vec::new(),
        max_custom_codes: 16,
        buckets: Buckets::default(),
        workers: 1,
        registered_codes: Vec::new(),
    };
    Metrics::new(options).route("default")
}

fn session() -> Session {
    Session::new(Arc::new(Policy::default()), Extensions::None, Instant::now(), 0)
}

fn message(size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(true, Opcode::Text, MASK, &vec![b'x'; size], &mut bytes);
    bytes
}

fn handle_data(criterion: &mut Criterion) {
    let route = route();
    let mut group = criterion.benchmark_group("handle_data");
    for (name, read, frames) in [
        ("one frame of 64 B", message(64), 1),
        ("a buffer of 64 B frames", message(64).repeat(BUFFER / 70), BUFFER / 70),
        ("a buffer of 16 KiB frames", message(16 * 1024).repeat(BUFFER / (16 * 1024 + 8)), BUFFER / (16 * 1024 + 8)),
    ] {
        group.throughput(Throughput::Elements(frames as u64));
        let (mut session, now) = (session(), Instant::now());
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let sink = &route.traffic(0)[Endpoint::Client];
                let forward = session.handle_data(Endpoint::Client, black_box(&read), now, sink);
                session.handle_written(Endpoint::Server, forward.keep, now);
                session.poll_command(now)
            });
        });
    }
    group.finish();
}

fn life(criterion: &mut Criterion) {
    let route = route();
    let mut close = [Vec::new(), Vec::new()];
    frame::encode(true, Opcode::Close, MASK, &1000_u16.to_be_bytes(), &mut close[0]);
    frame::encode(true, Opcode::Close, None, &1000_u16.to_be_bytes(), &mut close[1]);
    criterion.bench_function("open, closing handshake, ending", |bencher| {
        bencher.iter(|| {
            let (mut session, now) = (session(), Instant::now());
            for (from, bytes) in Endpoint::BOTH.into_iter().zip(&close) {
                let forward = session.handle_data(from, bytes, now, &route.traffic(0)[from]);
                session.handle_written(from.other(), forward.keep, now);
            }
            let _ = session.handle_end(Endpoint::Client, LegEnd::Fin, now, now);
            while let Some(command) = session.poll_command(now).filter(|command| *command != SessionCommand::Over) {
                if let SessionCommand::Finish(to) = command {
                    session.handle_finished(to);
                }
            }
            session.into_summary(now)
        });
    });
}

criterion_group!(benches, handle_data, life);
criterion_main!(benches);
