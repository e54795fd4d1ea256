use std::time::Instant;

use super::*;
use crate::model::{Http, Operation, example};

fn http(call: &mut Exchange) -> &mut Http {
    let Operation::Http(http) = &mut call.call.operation;
    http
}

fn route(service: &Arc<Service>, route: &str) -> Arc<Exchange> {
    let mut call = example::exchange(Kind::Server);
    call.service = Arc::clone(service);
    http(&mut call).route = Some(route.into());
    Arc::new(call)
}

fn named(name: &str) -> Arc<Service> {
    Arc::new(Service { name: name.into(), ..Service::unknown() })
}

/// Calls by service, and `*` behind overflow series.
fn told(metrics: &Metrics) -> Vec<(String, u64)> {
    let mut told = Vec::new();
    for (service, points) in metrics.cumulative() {
        for point in points {
            let mark = if matches!(point.label, Label::Overflow(_)) { "*" } else { "" };
            told.push((format!("{}{mark}", service.name), point.measures.duration.count()));
        }
    }
    told.sort();
    told
}

#[test]
fn every_difference_is_a_series_of_its_own() {
    let shop = named("shop");
    let vary: [fn(&mut Exchange); 8] = [
        |_| {},
        |call| call.kind = Kind::Client,
        |call| http(call).method = crate::model::Method::Other("BREW".into()),
        |call| http(call).route = None,
        |call| http(call).status = Some(201),
        |call| http(call).status = None,
        |call| call.call.error = Some("timeout"),
        |call| http(call).version = crate::model::Version::Http10,
    ];
    let calls: Vec<_> = vary
        .iter()
        .map(|vary| {
            let mut call = example::exchange(Kind::Server);
            call.service = Arc::clone(&shop);
            vary(&mut call);
            Arc::new(call)
        })
        .collect();
    let metrics = Metrics::new(Bound::default());
    metrics.record(&calls);
    metrics.record(&calls);
    assert_eq!(told(&metrics), vec![("shop".to_owned(), 2); vary.len()]);
}

#[test]
fn a_client_tells_servers_apart_and_a_server_does_not_believe_host() {
    for (kind, expected) in [(Kind::Client, 3), (Kind::Server, 1)] {
        let metrics = Metrics::new(Bound::default());
        for host in [Some("a"), Some("b"), None] {
            let mut call = example::exchange(kind);
            http(&mut call).host = host.map(Into::into);
            metrics.record(&[Arc::new(call)]);
        }
        assert_eq!(told(&metrics).len(), expected);
    }
}

#[test]
fn processes_of_a_service_are_one_and_containers_are_not() {
    let metrics = Metrics::new(Bound::default());
    let service = |pid: u32, container: Option<&str>| {
        let process = crate::model::Process { pid, ..crate::model::Process::default() };
        Arc::new(Service {
            name: "shop".into(),
            process: Some(process),
            container_id: container.map(Into::into),
            ..Service::unknown()
        })
    };
    for pid in 0..1000 {
        metrics.record(&[route(&service(pid, None), "/"), route(&service(pid, Some("c")), "/")]);
    }
    assert_eq!(told(&metrics), [("shop".to_owned(), 1000), ("shop".to_owned(), 1000)]);
}

#[test]
fn sums_stay_true_when_there_is_no_place() {
    let metrics = Metrics::new(Bound { services: 3, series: 4, total: 7 });
    let (a, b) = (named("a"), named("b"));
    for i in 0..10 {
        metrics.record(&[route(&a, &format!("/{i}")), route(&b, &format!("/{i}"))]);
        // Finds no place: the unknown service takes it.
        metrics.record(&[route(&named(&format!("late{i}")), "/")]);
        metrics.record(&[route(&a, "/0")]);
    }
    let one = |name: &str| (name.to_owned(), 1);
    let expected = [
        vec![one("a"), one("a"), one("a"), ("a".to_owned(), 11), ("a*".to_owned(), 6)],
        vec![one("b"), one("b"), one("b"), ("b*".to_owned(), 7)],
        vec![("unknown*".to_owned(), 10)],
    ];
    assert_eq!(told(&metrics), expected.concat());
    assert_eq!(metrics.fill(), (6 + 7 + 10, 7));
}

#[test]
fn what_was_not_used_for_long_gives_up_its_place() {
    let metrics = Metrics::new(Bound { services: 2, series: 10, total: 10 });
    let (old, new) = (named("old"), named("new"));
    metrics.record(&[route(&old, "/")]);
    let later = clock::monotonic_ns() + IDLE + 1;
    metrics.lock().sweep(later);
    assert_eq!((told(&metrics), metrics.fill()), (vec![], (0, 0)));
    metrics.record(&[route(&new, "/"), route(&old, "/")]);
    assert_eq!(told(&metrics), [("new".to_owned(), 1), ("unknown*".to_owned(), 1)]);
}

#[test]
fn calls_by_how_they_ended() {
    let metrics = Metrics::new(Bound::default());
    let ends = [
        End::Complete,
        End::ClientAborted,
        End::ServerAborted,
        End::Reset,
        End::Upgraded,
        End::Lost("gap"),
        End::InFlight,
    ];
    for (n, end) in (1..).zip(ends) {
        assert_eq!(ENDS[end_place(end)], end.as_str());
        let mut call = example::exchange(Kind::Client);
        call.call.end = end;
        (0..n).for_each(|_| metrics.record(&[Arc::new(call.clone())]));
    }
    let expected: Vec<_> = (1..).zip(ENDS).map(|(n, end)| ("client", end, n)).collect();
    assert_eq!(metrics.calls(), expected);
}

#[test]
fn exemplars_are_of_sampled_calls_and_their_bucket() {
    let metrics = Metrics::new(Bound::default());
    let mut call = example::exchange(Kind::Server);
    call.ids.trace = [0; 16];
    let unsampled = Arc::new(call.clone());
    call.ids.trace = [0xff; 16];
    call.call.response.as_mut().unwrap().last_at = 30_000_000 + call.call.request.first.at;
    metrics.sample(Sampler::new(0.5));
    metrics.record(&[unsampled, Arc::new(call)]);
    let (_, points) = metrics.cumulative().next().unwrap();
    let at = 1_700_000_000_000_000_000 + 30_000_000;
    assert_eq!(points[0].exemplars, [Exemplar { trace: [0xff; 16], span: [2; 8], duration: 30_000_000, at }]);
}

/// Not a promise by itself: prints what one call costs. `cargo test --release -p weir -- --ignored cost_of --nocapture`
#[test]
#[ignore = "a measurement, of release builds"]
fn cost_of_a_call() {
    let metrics = Metrics::new(Bound::default());
    let services: Vec<_> = (0..20).map(|i| named(&format!("service-{i}"))).collect();
    let calls: Vec<_> =
        (0..1000).map(|i| route(&services[i % 20], &format!("/orders/{}/items/{{id}}", i % 10))).collect();
    metrics.record(&calls);
    let started = Instant::now();
    for _ in 0..1000 {
        metrics.record(&calls);
    }
    println!("{} ns a call", started.elapsed().as_nanos() / 1_000_000);
}

#[test]
fn an_endpoint_is_a_method_and_a_route_of_one_side() {
    let metrics = Metrics::new(Bound { services: 9, series: 5, total: 9 });
    let shop = named("shop");
    let call = |route: Option<&str>, status: u16, kind| {
        let mut call = example::exchange(kind);
        call.service = Arc::clone(&shop);
        http(&mut call).route = route.map(Into::into);
        http(&mut call).status = Some(status);
        metrics.record(&[Arc::new(call)]);
    };
    for (route, status, kind) in [
        (Some("/a"), 200, Kind::Server),
        (Some("/a"), 503, Kind::Server),
        (Some("/a"), 404, Kind::Server),
        (None, 200, Kind::Server),
        (Some("/a"), 404, Kind::Client),
        // The sixth series has no place.
        (Some("/z"), 500, Kind::Server),
    ] {
        call(route, status, kind);
    }
    let told: Vec<_> = metrics.endpoints();
    let rows: Vec<_> =
        told.iter().map(|it| (&*it.service, it.kind, it.method, it.route.as_deref(), it.calls, it.errors)).collect();
    assert_eq!(
        rows,
        [
            ("shop", Kind::Server, None, None, 1, 0),
            ("shop", Kind::Server, Some("GET"), None, 1, 0),
            ("shop", Kind::Server, Some("GET"), Some("/a"), 3, 1),
            ("shop", Kind::Client, Some("GET"), Some("/a"), 1, 1),
        ]
    );
    let all = told.iter().find(|it| it.calls == 3).unwrap();
    assert_eq!((all.duration_ns, all.p99_bound_ns), (24_000, Some(5_000_000)));
    assert_eq!(all.response_bytes, 3 * 345);
}
