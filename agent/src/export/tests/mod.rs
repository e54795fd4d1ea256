//! Against receivers that speak the protocol for real: what arrives is what was offered, and the ledger tells the rest.

mod content;
mod metrics;
mod receiver;
mod secure;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tonic::Code;

use self::receiver::{Answer, Desk, Receiver};
use super::*;
use crate::model::{Exchange, Kind, example};

const FLUSH: Duration = Duration::from_secs(20);

fn calls(n: u64) -> Vec<Arc<Exchange>> {
    let call = |i: u64| {
        let mut call = example::exchange(Kind::Server);
        call.ids.span = (i + 1).to_be_bytes();
        call.ids.trace[8..].copy_from_slice(&(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).to_be_bytes());
        Arc::new(call)
    };
    (0..n).map(call).collect()
}

fn endpoint(receiver: &Receiver, protocol: Protocol) -> Endpoint {
    let base = format!("http://{}", receiver.address);
    Endpoint { url: Endpoint::url_of(&base, protocol, Signal::Traces), protocol, ..Endpoint::default() }
}

fn settings(traces: Endpoint) -> Settings {
    let retry = Retry { initial: Duration::from_millis(20), max: Duration::from_millis(100), ..Retry::default() };
    Settings { traces: Some(traces), delay: Duration::from_millis(50), retry, ..Settings::default() }
}

fn start(settings: &Settings, ledger: Arc<Ledger>) -> Result<Exporter, EndpointError> {
    Exporter::start(settings, &Arc::new(Metrics::new(Bound::default())), ledger)
}

/// Spans by outcome, zeros left out.
fn book(ledger: &Ledger) -> Vec<(&'static str, u64)> {
    Outcome::ALL
        .into_iter()
        .map(|outcome| (outcome.as_str(), ledger.get(Signal::Traces, outcome)))
        .filter(|(_, n)| *n > 0)
        .collect()
}

async fn receiver(desk: &Desk, protocol: Protocol) -> Receiver {
    match protocol {
        Protocol::Grpc => receiver::grpc(desk, "127.0.0.1:0", None).await,
        Protocol::Http => receiver::http(desk, "127.0.0.1:0", None).await,
    }
}

/// Exports `n` calls to a receiver with a script; returns the ledger and the number of attempts.
async fn export(n: u64, protocol: Protocol, script: &[Answer]) -> (Vec<(&'static str, u64)>, usize) {
    let desk = Desk::new(script.iter().cloned());
    let receiver = receiver(&desk, protocol).await;
    let ledger = Arc::new(Ledger::default());
    let exporter = start(&settings(endpoint(&receiver, protocol)), Arc::clone(&ledger)).unwrap();
    exporter.offer(&calls(n));
    exporter.stop(FLUSH).await;
    let book = book(&ledger);
    let taken = desk.spans().len() as u64;
    let ok = ledger.get(Signal::Traces, Outcome::Ok) + ledger.get(Signal::Traces, Outcome::Rejected);
    assert_eq!(taken, ok, "the receiver's count is the ledger's");
    (book, desk.attempts().len())
}

#[tokio::test]
async fn every_span_arrives_once() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        for gzip in [true, false] {
            let desk = Desk::default();
            let receiver = receiver(&desk, protocol).await;
            let ledger = Arc::new(Ledger::default());
            let to = Endpoint { gzip, ..endpoint(&receiver, protocol) };
            let exporter = start(&settings(to), Arc::clone(&ledger)).unwrap();
            for part in calls(10_000).chunks(300) {
                exporter.offer(part);
            }
            exporter.stop(FLUSH).await;
            assert_eq!(book(&ledger), [("ok", 10_000)]);
            let spans = desk.spans();
            assert_eq!(spans.len(), 10_000);
            assert_eq!(spans.into_iter().map(|span| span.span_id).collect::<BTreeSet<_>>().len(), 10_000);
            assert!(desk.taken().iter().all(|request| {
                request.resource_spans.iter().flat_map(|r| &r.scope_spans).map(|s| s.spans.len()).sum::<usize>() <= 512
            }));
        }
    }
}

#[tokio::test]
async fn a_batch_that_does_not_fill_goes_after_the_delay() {
    let desk = Desk::default();
    let receiver = receiver(&desk, Protocol::Grpc).await;
    let exporter = start(&settings(endpoint(&receiver, Protocol::Grpc)), Arc::default()).unwrap();
    exporter.offer(&calls(3));
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if desk.spans().len() == 3 {
            return;
        }
    }
    panic!("{} of 3 spans", desk.spans().len());
}

#[tokio::test]
async fn what_may_pass_is_tried_again() {
    for code in
        [Code::Cancelled, Code::DeadlineExceeded, Code::Aborted, Code::OutOfRange, Code::Unavailable, Code::DataLoss]
    {
        let again = Answer::Grpc(code, None);
        assert_eq!(export(5, Protocol::Grpc, &[again.clone(), again]).await, (vec![("ok", 5)], 3), "{code:?}");
    }
    for status in [429, 502, 503, 504] {
        let again = Answer::Http(status, None);
        assert_eq!(export(5, Protocol::Http, &[again.clone(), again]).await, (vec![("ok", 5)], 3), "{status}");
    }
}

#[tokio::test]
async fn what_will_not_pass_is_not_tried_again() {
    let codes = [
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::PermissionDenied,
        Code::Unauthenticated,
        Code::FailedPrecondition,
        Code::Unimplemented,
        Code::Internal,
        Code::Unknown,
        Code::ResourceExhausted,
    ];
    for code in codes {
        assert_eq!(export(5, Protocol::Grpc, &[Answer::Grpc(code, None)]).await, (vec![("refused", 5)], 1), "{code:?}");
    }
    for status in [400, 401, 404, 413, 500, 501] {
        assert_eq!(
            export(5, Protocol::Http, &[Answer::Http(status, None)]).await,
            (vec![("refused", 5)], 1),
            "{status}"
        );
    }
}

#[tokio::test]
async fn the_receivers_wait_is_kept() {
    let busy = Answer::Grpc(Code::ResourceExhausted, Some(Duration::from_millis(700)));
    let started = Instant::now();
    assert_eq!(export(5, Protocol::Grpc, &[busy]).await, (vec![("ok", 5)], 2));
    assert!(started.elapsed() >= Duration::from_millis(700), "{:?}", started.elapsed());
    let started = Instant::now();
    assert_eq!(export(5, Protocol::Http, &[Answer::Http(429, Some("1"))]).await, (vec![("ok", 5)], 2));
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    let past = Answer::Http(503, Some("Sun, 06 Nov 1994 08:49:37 GMT"));
    assert_eq!(export(5, Protocol::Http, &[past]).await, (vec![("ok", 5)], 2));
}

#[tokio::test]
async fn a_receiver_that_asks_for_eternity_is_asked_again() {
    let forever = Answer::Http(503, Some("18446744073709551615"));
    let desk = Desk::new([forever]);
    let receiver = receiver(&desk, Protocol::Http).await;
    let ledger = Arc::new(Ledger::default());
    let mut settings = settings(endpoint(&receiver, Protocol::Http));
    settings.retry.give_up = Duration::from_millis(300);
    let exporter = start(&settings, Arc::clone(&ledger)).unwrap();
    exporter.offer(&calls(5));
    while book(&ledger) != [("expired", 5)] {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    exporter.offer(&calls(7));
    exporter.stop(FLUSH).await;
    assert_eq!(book(&ledger), [("ok", 7), ("expired", 5)]);
}

#[tokio::test]
async fn rejected_spans_are_counted() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        assert_eq!(export(10, protocol, &[Answer::Partial(3)]).await, (vec![("ok", 7), ("rejected", 3)], 1));
        assert_eq!(export(10, protocol, &[Answer::Partial(0)]).await, (vec![("ok", 10)], 1));
        assert_eq!(export(10, protocol, &[Answer::Partial(-1)]).await, (vec![("ok", 10)], 1));
        assert_eq!(export(10, protocol, &[Answer::Partial(99)]).await, (vec![("rejected", 10)], 1));
    }
}

#[tokio::test]
async fn no_answer_within_the_timeout_is_tried_again() {
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let desk = Desk::new([Answer::Slow(Duration::from_hours(1))]);
        let receiver = receiver(&desk, protocol).await;
        let ledger = Arc::new(Ledger::default());
        let to = Endpoint { timeout: Duration::from_millis(200), ..endpoint(&receiver, protocol) };
        let exporter = start(&settings(to), Arc::clone(&ledger)).unwrap();
        exporter.offer(&calls(5));
        exporter.stop(FLUSH).await;
        assert_eq!((book(&ledger), desk.attempts().len()), (vec![("ok", 5)], 2));
    }
}

#[tokio::test]
async fn a_slow_receiver_never_holds_up_the_one_who_offers() {
    let desk = Desk::new(vec![Answer::Slow(Duration::from_millis(400)); 1000]);
    let receiver = receiver(&desk, Protocol::Grpc).await;
    let ledger = Arc::new(Ledger::default());
    let bounds = Settings {
        queue: 1000 * queue::weight(&calls(1)[0]),
        batch: 100,
        in_flight: 2,
        ..settings(endpoint(&receiver, Protocol::Grpc))
    };
    let exporter = start(&bounds, Arc::clone(&ledger)).unwrap();
    let calls = calls(5000);
    let started = Instant::now();
    exporter.offer(&calls);
    assert!(started.elapsed() < Duration::from_millis(100), "{:?}", started.elapsed());
    exporter.stop(FLUSH).await;
    // The whole offer meets an empty queue.
    assert_eq!(book(&ledger), [("ok", 1000), ("queue_full", 4000)]);
    assert_eq!(desk.spans().len(), 1000);
}

#[tokio::test]
async fn a_dead_receiver_costs_bounded_memory_and_is_found_when_it_is_back() {
    let desk = Desk::default();
    let address = receiver(&desk, Protocol::Grpc).await.address;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let dead = Endpoint { url: format!("http://{address}"), ..Endpoint::default() };
    let ledger = Arc::new(Ledger::default());
    let bounds = Settings { queue: 1000 * queue::weight(&calls(1)[0]), batch: 100, in_flight: 2, ..settings(dead) };
    let exporter = start(&bounds, Arc::clone(&ledger)).unwrap();
    let offered = calls(5000);
    for part in offered.chunks(100) {
        exporter.offer(part);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // What is held: the queue, and the batches under way.
    assert_eq!(book(&ledger), [("queue_full", 5000 - 1000 - 2 * 100)]);
    let back = receiver::grpc(&desk, &address.to_string(), None).await;
    assert_eq!(back.address, address);
    exporter.stop(FLUSH).await;
    assert_eq!(book(&ledger), [("ok", 1200), ("queue_full", 3800)]);
    assert_eq!(desk.spans().len(), 1200);
}

#[tokio::test]
async fn what_can_not_be_delivered_in_time_is_given_up() {
    let desk = Desk::default();
    let address = receiver(&desk, Protocol::Http).await.address;
    let dead = Endpoint { url: format!("http://{address}/v1/traces"), protocol: Protocol::Http, ..Endpoint::default() };
    let ledger = Arc::new(Ledger::default());
    let mut short = settings(dead.clone());
    short.retry.give_up = Duration::from_millis(300);
    let exporter = start(&short, Arc::clone(&ledger)).unwrap();
    exporter.offer(&calls(5));
    exporter.stop(FLUSH).await;
    assert_eq!(book(&ledger), [("expired", 5)]);

    let ledger = Arc::new(Ledger::default());
    let exporter = start(&settings(dead), Arc::clone(&ledger)).unwrap();
    exporter.offer(&calls(2000));
    let started = Instant::now();
    exporter.stop(Duration::from_millis(300)).await;
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
    exporter.offer(&calls(7));
    assert_eq!(book(&ledger), [("stopped", 2007)]);
}

#[tokio::test]
async fn a_share_of_traces() {
    let desk = Desk::default();
    let receiver = receiver(&desk, Protocol::Grpc).await;
    let ledger = Arc::new(Ledger::default());
    let half = Settings { sample: 0.5, ..settings(endpoint(&receiver, Protocol::Grpc)) };
    let exporter = start(&half, Arc::clone(&ledger)).unwrap();
    let calls = calls(1000);
    exporter.offer(&calls);
    exporter.stop(FLUSH).await;
    let kept = calls.iter().filter(|call| Sampler::new(0.5).keeps(&call.ids.trace)).count() as u64;
    assert!((450..=550).contains(&kept), "{kept}");
    assert_eq!(book(&ledger), [("ok", kept), ("unsampled", 1000 - kept)]);
    assert!(desk.spans().iter().all(|span| span.trace_state == "ot=th:8"));
}

#[tokio::test]
async fn headers_are_sent() {
    for (protocol, content) in [(Protocol::Grpc, "application/grpc"), (Protocol::Http, "application/x-protobuf")] {
        let desk = Desk::default();
        let receiver = receiver(&desk, protocol).await;
        let mut to = endpoint(&receiver, protocol);
        to.headers = vec![("Authorization".to_owned(), "Bearer x".to_owned()), ("x-team".to_owned(), "a b".to_owned())];
        let exporter = start(&settings(to), Arc::default()).unwrap();
        exporter.offer(&calls(1));
        exporter.stop(FLUSH).await;
        let attempts = desk.attempts();
        let get = |name: &str| attempts[0].get(name).map(|value| value.to_str().unwrap());
        assert_eq!((get("authorization"), get("x-team")), (Some("Bearer x"), Some("a b")));
        assert_eq!(get("content-type"), Some(content));
        assert!(get("user-agent").unwrap().starts_with(concat!("weir/", env!("CARGO_PKG_VERSION"))));
    }
}

#[tokio::test]
async fn settings_that_can_not_work_say_why() {
    let fails = |endpoint: Endpoint| start(&settings(endpoint), Arc::default()).map(|_| ()).unwrap_err().to_string();
    let url = |url: &str| fails(Endpoint { url: url.to_owned(), ..Endpoint::default() });
    assert_eq!(
        url("ftp://collector"),
        "OTLP endpoint `ftp://collector`: its scheme is neither http nor https; it is written like http://collector:4317"
    );
    assert!(url("").starts_with("OTLP endpoint ``: "));
    assert!(url("http://").starts_with("OTLP endpoint `http://`: "));
    let header = |name: &str, value: &str| {
        fails(Endpoint { headers: vec![(name.to_owned(), value.to_owned())], ..Endpoint::default() })
    };
    let expected = "its name or value has characters that a header can't carry";
    assert_eq!(header("a b", "x"), format!("OTLP header `a b`: {expected}"));
    assert_eq!(header("authorization", "a\nsecret"), format!("OTLP header `authorization`: {expected}"));
    let tls = Tls { ca: Some("/nowhere/ca.pem".into()), client: None };
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let url = "https://collector:4317".to_owned();
        let told = fails(Endpoint { url, protocol, tls: tls.clone(), ..Endpoint::default() });
        assert_eq!(told, "OTLP certificate /nowhere/ca.pem: No such file or directory (os error 2)");
    }
}
