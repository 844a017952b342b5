//! The cost of counting: per frame, per session, per scrape.

use std::hint::black_box;
use std::time::Duration;

use closewatch::config::Buckets;
use closewatch::metrics::{Metrics, MetricsOptions};
use closewatch::session::{FrameSink, Summary};
use closewatch::websocket::close_code::{CloseCode, CloseStatus};
use closewatch::websocket::closing_handshake::{CloseEvent, Ending, Party};
use closewatch::websocket::conformance::WholeMessages;
use closewatch::websocket::frame::{MessageType, Opcode};
use closewatch::websocket::{Endpoint, PerEndpoint};
use criterion::Criterion;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    per_frame(&mut criterion);
    per_session(&mut criterion);
    per_scrape(&mut criterion);
    criterion.final_summary();
}

fn per_frame(criterion: &mut Criterion) {
    let metrics = Metrics::new(options());
    let route = metrics.route("chat");
    let traffic = &route.traffic(0)[Endpoint::Client];
    criterion.bench_function("frame: opcode", |bencher| bencher.iter(|| traffic.frame(black_box(Opcode::Text))));
    criterion.bench_function("frame: message and its size", |bencher| {
        bencher.iter(|| {
            traffic.message(black_box(MessageType::Text));
            traffic.message_size(black_box(64));
        });
    });
    let message = WholeMessages { kind: MessageType::Text, payload_len: 64, count: 1 };
    criterion.bench_function("frame: a message of one frame, and its bytes", |bencher| {
        bencher.iter(|| {
            traffic.whole_messages(black_box(&message));
            traffic.bytes(black_box(70));
        });
    });
    let mut sizes = (0..1024).map(|_| 1 << fastrand::u32(0..26)).collect::<Vec<u64>>().into_iter().cycle();
    criterion.bench_function("frame: random message sizes", |bencher| {
        bencher.iter(|| traffic.message_size(sizes.next().expect("a cycle has no end")));
    });
}

fn per_session(criterion: &mut Criterion) {
    let metrics = Metrics::new(options());
    let route = metrics.route("chat");
    for (name, code) in [("1000", 1000), ("a custom code", 4999)] {
        let closed = Summary {
            ending: clean_close(CloseStatus::Sent(CloseCode(code))),
            duration: Duration::from_secs(61),
            idle: Duration::from_secs(30),
            close_handshake: Some(Duration::from_millis(2)),
            ..Summary::lost()
        };
        criterion.bench_function(&format!("session: opened and closed with {name}"), |bencher| {
            bencher.iter(|| {
                route.session_opened();
                route.session_closed(black_box(&closed));
            });
        });
    }
}

fn per_scrape(criterion: &mut Criterion) {
    for routes in [1, 10, 100] {
        let metrics = Metrics::new(options());
        for route in 0..routes {
            metrics.route(&format!("route-{route}")).session_opened();
        }
        let size = metrics.render().len();
        criterion.bench_function(&format!("scrape: {routes} routes, {size} bytes"), |bencher| {
            bencher.iter(|| metrics.render());
        });
    }
}

fn clean_close(status: CloseStatus) -> Ending {
    let seen = CloseEvent { status, reason: String::new(), clean: true };
    Ending {
        status,
        reason: String::new(),
        initiator: Party::Client,
        fault: None,
        action: None,
        seen: PerEndpoint { client: seen.clone(), server: seen },
        received: PerEndpoint { client: Some(status), server: Some(status) },
    }
}

fn options() -> MetricsOptions {
    MetricsOptions {
        codes: vec![4001],
        max_custom_codes: 16,
        buckets: Buckets::default(),
        workers: 2,
        registered_codes: vec![(1000, "Normal Closure")],
    }
}
