//! Chains as the kernel half would tell of them.

use std::sync::Arc;

use weir_common::errand::{Doubt, Errand};

use super::{AFTERWARDS, Chains, DOUBT, MOST, Note, PATIENCE};
use crate::flow::exchange;
use crate::meter::{Count, Meter};
use crate::model::{Exchange, Http, Kind, Link, Operation, Role, Stamp, Thread, TraceContext, example};
use crate::proto::Begun;

const MS: u64 = 1_000_000;
const APP: u32 = 712;

/// A process with calls in and out, and what became of them.
struct Bench {
    chains: Chains,
    meter: Arc<Meter>,
    out: Vec<Arc<Exchange>>,
}

fn http(call: &mut Exchange) -> &mut Http {
    let Operation::Http(http) = &mut call.call.operation;
    http
}

/// A call on a connection of its own, from `sent` to `answered`, by thread 1.
fn call(kind: Kind, n: u16, sent: u64, answered: u64, errand: Errand) -> Exchange {
    let mut call = example::exchange(kind);
    let connection = Arc::make_mut(&mut call.connection);
    connection.cookie = u64::from(n);
    connection.role = if kind == Kind::Client { Role::Client } else { Role::Server };
    connection.local = format!("10.0.0.1:{}", 1000 + n).parse().unwrap();
    connection.remote = format!("10.0.0.2:{}", 1000 + n).parse().unwrap();
    call.mirror = None;
    http(&mut call).context = None;
    let by = Thread { tgid: APP, tid: 1, errand };
    call.by = by;
    call.call.request.first = Stamp { at: sent, seq: 7, by: Thread::default() };
    call.call.request.last_at = sent;
    let response = call.call.response.as_mut().unwrap();
    response.first = Stamp { at: answered, seq: 9, by: Thread::default() };
    response.last_at = answered;
    match kind {
        Kind::Client => call.call.request.first.by = by,
        Kind::Server => response.first.by = by,
    }
    call.ids = exchange::ids(&call.connection, None, false, 7, None).unwrap().1;
    call
}

/// It carries a trace context.
fn with_context(mut call: Exchange, n: u8) -> Exchange {
    let context = TraceContext { trace: [n; 16], span: [n; 8], flags: 1 };
    http(&mut call).context = Some(context);
    call.ids = exchange::ids(&call.connection, None, false, 7, Some(context)).unwrap().1;
    call
}

fn with_request_id(mut call: Exchange, id: u64) -> Exchange {
    http(&mut call).request_id = Some(id);
    call
}

/// The other end of a client's call, observed on the same node.
fn far_end(client: &mut Exchange, errand: Errand) -> Exchange {
    let request = client.call.request.first.at;
    let mut server = call(Kind::Server, 0, request, client.call.response.unwrap().first.at, errand);
    let connection = Arc::make_mut(&mut server.connection);
    (connection.local, connection.remote) = (client.connection.remote, client.connection.local);
    server.mirror = Some(Arc::clone(&client.connection));
    client.mirror = Some(Arc::clone(&server.connection));
    server.ids = exchange::ids(&server.connection, server.mirror.as_deref(), false, 7, None).unwrap().1;
    server
}

const fn on(id: u64) -> Errand {
    Errand::of(id, Doubt::NONE)
}

impl Bench {
    fn new() -> Self {
        let meter = Arc::new(Meter::default());
        let chains = Chains::new(true, Arc::clone(&meter));
        Self { chains, meter, out: Vec::new() }
    }

    fn asked(&mut self, call: &Exchange) {
        self.chains.note(Note::Asked { span: call.ids.span, at: call.call.request.first.at });
    }

    fn begun(&mut self, call: &Exchange) {
        let Operation::Http(http) = &call.call.operation;
        let begun = Begun { first: call.call.request.first, context: http.context, request_id: http.request_id };
        self.chains.note(Note::Begun { span: call.ids.span, tgid: APP, begun });
    }

    fn take(&mut self, call: &Exchange) {
        self.chains.take(Arc::new(call.clone()), &mut self.out);
    }

    /// The call as it was told.
    #[track_caller]
    fn told(&self, call: &Exchange) -> &Exchange {
        let mut same = self.out.iter().filter(|told| told.ids.span == call.ids.span);
        let told = same.next().expect("it was told");
        assert!(same.next().is_none(), "it was told once");
        told
    }

    /// Is a child of this call, in its trace.
    #[track_caller]
    fn is_child(&self, child: &Exchange, parent: &Exchange) {
        let (child, parent) = (self.told(child), self.told(parent));
        assert_eq!((child.ids.parent, child.ids.trace), (Some(parent.ids.span), parent.ids.trace));
    }

    #[track_caller]
    fn counted(&self, expected: &[(Count, u64)]) {
        let counts = Count::ALL.into_iter().map(|count| (count, self.meter.get(count)));
        assert_eq!(counts.filter(|(_, n)| *n > 0).collect::<Vec<_>>(), expected);
    }
}

#[test]
fn a_thread_that_reads_asks_and_answers() {
    let mut bench = Bench::new();
    let incoming = call(Kind::Server, 1, 10 * MS, 50 * MS, on(11 * MS));
    let one = call(Kind::Client, 2, 20 * MS, 30 * MS, on(11 * MS));
    let two = call(Kind::Client, 3, 35 * MS, 45 * MS, on(11 * MS));
    for call in [&one, &two] {
        bench.asked(call);
        bench.take(call);
    }
    assert!(bench.out.is_empty(), "not before the answer");
    bench.take(&incoming);
    bench.is_child(&one, &incoming);
    bench.is_child(&two, &incoming);
    // The other end is not observed here, and can't know the trace.
    assert_eq!(bench.told(&one).ids.link, Some(exchange::far(&one)));
    assert_eq!(bench.told(&incoming).ids, incoming.ids);
    bench.counted(&[(Count::ChainThread, 2)]);
}

#[test]
fn an_end_that_another_host_tells_keeps_its_parent() {
    let mut bench = Bench::new();
    let incoming = call(Kind::Server, 1, 10 * MS, 50 * MS, on(11 * MS));
    let mut asks = call(Kind::Client, 2, 20 * MS, 30 * MS, on(11 * MS));
    asks.elsewhere = true;
    bench.asked(&asks);
    bench.take(&asks);
    bench.take(&incoming);
    // In the trace in which that host tells its child, as it can't know of another.
    let told = bench.told(&asks).ids;
    assert_eq!((told.trace, told.parent), (asks.ids.trace, None));
    assert_eq!(told.link, Some(Link { trace: incoming.ids.trace, span: incoming.ids.span }));
}

#[test]
fn the_other_ends_of_a_chain_are_in_its_trace() {
    let mut bench = Bench::new();
    let first = call(Kind::Server, 1, 10 * MS, 90 * MS, on(11 * MS));
    let mut asks = call(Kind::Client, 2, 20 * MS, 80 * MS, on(11 * MS));
    let second = far_end(&mut asks, on(21 * MS));
    let mut asks_again = call(Kind::Client, 3, 30 * MS, 70 * MS, on(21 * MS));
    let third = far_end(&mut asks_again, Errand::NONE);
    bench.asked(&asks);
    bench.asked(&asks_again);
    // As they end: from within.
    for call in [&third, &asks_again, &second, &asks] {
        bench.take(call);
        assert!(bench.out.is_empty());
    }
    bench.take(&first);
    for (child, parent) in [(&asks, &first), (&second, &asks), (&asks_again, &second), (&third, &asks_again)] {
        bench.is_child(child, parent);
        assert_eq!(bench.told(child).ids.link, None);
    }
    bench.counted(&[(Count::ChainThread, 2)]);
}

#[test]
fn an_end_that_comes_after_its_call_was_told_is_in_its_trace_too() {
    let mut bench = Bench::new();
    let first = call(Kind::Server, 1, 10 * MS, 60 * MS, on(11 * MS));
    let mut asks = call(Kind::Client, 2, 20 * MS, 40 * MS, on(11 * MS));
    let second = far_end(&mut asks, Errand::NONE);
    bench.asked(&asks);
    bench.take(&asks);
    bench.take(&first);
    bench.take(&second);
    bench.is_child(&second, &asks);
    bench.is_child(&asks, &first);
}

#[test]
fn what_speaks_against_a_thread_is_counted() {
    for (doubt, count) in [
        (Doubt::MIXED, Count::ChainMixed),
        (Doubt::OTHER, Count::ChainOther),
        (Doubt::UNREAD, Count::ChainUnread),
        (Doubt::UNKNOWN, Count::ChainUnknown),
    ] {
        let mut bench = Bench::new();
        let incoming = call(Kind::Server, 1, 10 * MS, 50 * MS, Errand::of(11 * MS, doubt));
        let one = call(Kind::Client, 2, 20 * MS, 30 * MS, on(11 * MS));
        bench.asked(&one);
        bench.take(&one);
        bench.take(&incoming);
        assert_eq!(bench.told(&one).ids, one.ids, "{count:?}");
        bench.counted(&[(count, 1)]);
    }
    for (doubt, count) in [
        (Doubt::IDLE, Count::ChainIdle),
        (Doubt::LOOP, Count::ChainLoop),
        (Doubt::SHARED, Count::ChainShared),
        (Doubt::FREE, Count::ChainFree),
        (Doubt::NEW, Count::ChainNew),
        (Doubt(15), Count::ChainUnknown),
    ] {
        let mut bench = Bench::new();
        let one = call(Kind::Client, 2, 20 * MS, 30 * MS, Errand::of(0, doubt));
        bench.take(&one);
        assert_eq!(bench.told(&one).ids, one.ids, "{count:?}");
        bench.counted(&[(count, 1)]);
    }
}

#[test]
fn what_was_sent_by_another_thread_or_after_the_answer_began_has_no_parent() {
    let mut bench = Bench::new();
    let incoming = call(Kind::Server, 1, 10 * MS, 50 * MS, on(11 * MS));
    let after = call(Kind::Client, 2, 51 * MS, 52 * MS, on(11 * MS));
    let mut other = call(Kind::Client, 3, 20 * MS, 30 * MS, on(11 * MS));
    other.call.request.first.by.tid = 2;
    for call in [&after, &other] {
        bench.asked(call);
        bench.take(call);
    }
    bench.take(&incoming);
    assert_eq!((bench.told(&after).ids, bench.told(&other).ids), (after.ids, other.ids));
    bench.counted(&[(Count::ChainMixed, 2)]);
}

#[test]
fn a_goroutine_goes_on_in_other_threads() {
    let mut bench = Bench::new();
    let errand = Errand(Errand::goroutine(11 * MS, 1));
    let incoming = call(Kind::Server, 1, 10 * MS, 50 * MS, errand);
    let mut child = call(Kind::Client, 2, 20 * MS, 30 * MS, errand);
    child.call.request.first.by.tid = 2;
    // At the same time, on another processor.
    let other = call(Kind::Client, 3, 20 * MS, 30 * MS, Errand(Errand::goroutine(11 * MS, 2)));
    for call in [&child, &other] {
        bench.asked(call);
        bench.take(call);
    }
    bench.take(&incoming);
    bench.is_child(&child, &incoming);
    bench.counted(&[(Count::ChainGoroutine, 1)]);
}

#[test]
fn pipelined_requests_prove_nothing() {
    let mut bench = Bench::new();
    let mut incoming = call(Kind::Server, 1, 10 * MS, 50 * MS, on(11 * MS));
    incoming.call.pipelined = true;
    let one = call(Kind::Client, 2, 20 * MS, 30 * MS, on(11 * MS));
    bench.asked(&one);
    bench.take(&one);
    bench.take(&incoming);
    assert_eq!(bench.told(&one).ids, one.ids);
    bench.counted(&[(Count::ChainPipelined, 1)]);
}

#[test]
fn an_errand_that_was_not_told_in_time_proves_nothing() {
    let mut bench = Bench::new();
    let one = call(Kind::Client, 2, 20 * MS, 30 * MS, on(11 * MS));
    bench.take(&one);
    assert_eq!(bench.told(&one).ids, one.ids);
    bench.counted(&[(Count::ChainLost, 1)]);
}

#[test]
fn the_same_context_is_its_bearers_child() {
    let mut bench = Bench::new();
    let incoming = with_context(call(Kind::Server, 1, 10 * MS, 50 * MS, Errand::NONE), 5);
    let other = with_context(call(Kind::Server, 2, 11 * MS, 55 * MS, Errand::NONE), 6);
    bench.begun(&incoming);
    bench.begun(&other);
    let looped = Errand::of(0, Doubt::LOOP);
    let one = with_context(call(Kind::Client, 3, 20 * MS, 30 * MS, looped), 5);
    let late = with_context(call(Kind::Client, 4, 60 * MS, 70 * MS, looped), 6);
    let own = with_context(call(Kind::Client, 5, 61 * MS, 70 * MS, looped), 7);
    for call in [&one, &incoming, &other, &late, &own] {
        bench.take(call);
    }
    bench.is_child(&one, &incoming);
    bench.is_child(&late, &other);
    // The application made this span itself: its header says whose child it is.
    assert_eq!(bench.told(&own).ids, own.ids);
    bench.counted(&[(Count::ChainCarried, 2), (Count::ChainOwnSpan, 1)]);
}

#[test]
fn several_bearers_are_none() {
    let mut bench = Bench::new();
    let incoming = [1, 2].map(|n| with_context(call(Kind::Server, n, 10 * MS, 50 * MS, Errand::NONE), 5));
    for call in &incoming {
        bench.begun(call);
    }
    let looped = Errand::of(0, Doubt::LOOP);
    let one = with_context(call(Kind::Client, 3, 20 * MS, 30 * MS, looped), 5);
    bench.take(&one);
    assert_eq!(bench.told(&one).ids.parent, None);
    bench.counted(&[(Count::ChainSeveral, 1)]);
}

#[test]
fn who_was_answered_long_before_is_none() {
    let mut bench = Bench::new();
    let incoming = with_context(call(Kind::Server, 1, 10 * MS, 50 * MS, Errand::NONE), 5);
    bench.begun(&incoming);
    bench.take(&incoming);
    let looped = Errand::of(0, Doubt::LOOP);
    let sent = 50 * MS + AFTERWARDS + 1;
    let after = with_context(call(Kind::Client, 3, sent, sent + 1, looped), 5);
    bench.take(&after);
    bench.chains.tick(sent + 10 * PATIENCE, &mut bench.out);
    let sent = sent + 10 * PATIENCE;
    let long_after = with_context(call(Kind::Client, 4, sent, sent + 1, looped), 5);
    bench.take(&long_after);
    assert_eq!((bench.told(&after).ids.parent, bench.told(&long_after).ids.parent), (None, None));
    bench.counted(&[(Count::ChainEnded, 2)]);
}

#[test]
fn a_request_id_joins_traces_that_no_header_names() {
    let mut bench = Bench::new();
    let incoming = with_request_id(call(Kind::Server, 1, 10 * MS, 50 * MS, Errand::NONE), 99);
    bench.begun(&incoming);
    let looped = Errand::of(0, Doubt::LOOP);
    let mut one = with_request_id(call(Kind::Client, 2, 20 * MS, 30 * MS, looped), 99);
    let far = with_request_id(far_end(&mut one, Errand::NONE), 99);
    bench.take(&far);
    bench.take(&one);
    assert!(bench.out.is_empty(), "the trace id is not settled");
    bench.take(&incoming);
    bench.is_child(&one, &incoming);
    bench.is_child(&far, &one);
    bench.counted(&[(Count::ChainCarried, 1)]);
}

#[test]
fn after_losses_carried_ids_prove_nothing_for_a_while() {
    let mut bench = Bench::new();
    let incoming = with_context(call(Kind::Server, 1, 10 * MS, 50 * MS, Errand::NONE), 5);
    bench.chains.note(Note::Lost { tgid: APP, at: 5 * MS });
    bench.begun(&incoming);
    let looped = Errand::of(0, Doubt::LOOP);
    let one = with_context(call(Kind::Client, 3, 20 * MS, 30 * MS, looped), 5);
    bench.take(&one);
    assert_eq!(bench.told(&one).ids.parent, None);
    let later = with_context(call(Kind::Client, 4, 6 * MS + DOUBT, 7 * MS + DOUBT, looped), 5);
    bench.take(&later);
    assert_eq!(bench.told(&later).ids.parent, Some(incoming.ids.span));
    bench.counted(&[(Count::ChainCarried, 1), (Count::ChainLost, 1)]);
}

#[test]
fn what_waits_too_long_goes_without_a_parent() {
    let mut bench = Bench::new();
    let mut one = call(Kind::Client, 2, 20 * MS, 30 * MS, on(11 * MS));
    let far = far_end(&mut one, Errand::NONE);
    bench.asked(&one);
    bench.take(&far);
    bench.take(&one);
    bench.chains.tick(30 * MS + PATIENCE - 1, &mut bench.out);
    assert!(bench.out.is_empty());
    bench.chains.tick(30 * MS + PATIENCE, &mut bench.out);
    assert_eq!(bench.told(&one).ids, one.ids);
    bench.is_child(&far, &one);
    // The answer that comes after all finds nobody.
    bench.take(&call(Kind::Server, 1, 10 * MS, 50 * MS, on(11 * MS)));
    bench.counted(&[(Count::ChainLate, 1)]);
}

#[test]
fn an_end_that_went_on_alone_keeps_its_call_alone() {
    let mut bench = Bench::new();
    let incoming = call(Kind::Server, 1, 10 * MS, 30 * MS + 2 * PATIENCE, on(11 * MS));
    let mut one = call(Kind::Client, 2, 20 * MS, 20 * MS + 2 * PATIENCE, on(11 * MS));
    let mut far = far_end(&mut one, Errand::NONE);
    far.call.response.as_mut().unwrap().last_at = 30 * MS;
    bench.asked(&one);
    bench.take(&far);
    bench.chains.tick(30 * MS + PATIENCE, &mut bench.out);
    bench.take(&one);
    bench.take(&incoming);
    bench.is_child(&far, &one);
    assert_eq!(bench.told(&one).ids, one.ids);
    bench.counted(&[(Count::ChainLost, 1)]);
}

#[test]
fn what_waits_is_bounded() {
    let mut bench = Bench::new();
    for n in 0..(MOST + 10) as u64 {
        let one = call(Kind::Client, (n % 60_000) as u16, 20 * MS + n, 30 * MS + n, on(11 * MS + n));
        bench.asked(&one);
        bench.take(&one);
    }
    assert_eq!(bench.out.len(), 10);
    bench.counted(&[(Count::ChainFull, 10)]);
    bench.chains.set(false, &mut bench.out);
    assert_eq!(bench.out.len(), MOST + 10);
}

#[test]
fn turned_off_it_changes_nothing() {
    let mut bench = Bench::new();
    bench.chains.set(false, &mut bench.out);
    let one = call(Kind::Client, 2, 20 * MS, 30 * MS, on(11 * MS));
    bench.asked(&one);
    bench.take(&one);
    assert_eq!(bench.told(&one).ids, one.ids);
    bench.counted(&[]);
}
