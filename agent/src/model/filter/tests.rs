use super::*;
use crate::model::sample::{START_UNIX_NS, exchange, http};

fn filter(pairs: &[(&str, &str)]) -> Filter {
    let mut filter = Filter::default();
    for (name, value) in pairs {
        assert_eq!(filter.set(name, value, START_UNIX_NS + 60_000_000_000), Ok(true), "{name}={value}");
    }
    filter
}

#[test]
fn each_filter_takes_and_leaves() {
    let server = exchange(Kind::Server);
    for (name, takes, leaves) in [
        ("service", "shop", "curl"),
        ("service", "s*", "shops"),
        ("peer", "curl", "shop"),
        ("peer", "10.1.0.7", "10.1.0.2"),
        ("peer", "10.1.0.7:51234", "10.1.0.7:51235"),
        ("protocol", "http", "redis"),
        ("method", "get", "GE"),
        ("route", "/orders/{id}", "/orders/17"),
        ("route", "/orders/*", "/*/orders"),
        ("status", "200", "201"),
        ("status", "5xx,2xx", "4xx,5xx"),
        ("slower-than", "7999ns", "8us"),
        ("since", "1m", "59s"),
        ("since", "2026-11-23T10:00:00Z", "2026-11-23T10:00:01Z"),
        ("kind", "server", "client"),
        ("errors", "0", "1"),
    ] {
        assert!(filter(&[(name, takes)]).takes(&server), "{name}={takes}");
        assert!(!filter(&[(name, leaves)]).takes(&server), "{name}={leaves}");
    }
    assert!(filter(&[]).takes(&server));
    assert!(!filter(&[("service", "shop"), ("status", "404")]).takes(&server), "all must be true");
}

#[test]
fn errors_are_those_of_the_side() {
    let mut client = exchange(Kind::Client);
    let mut server = exchange(Kind::Server);
    http(&mut client).status = Some(404);
    http(&mut server).status = Some(404);
    let errors = filter(&[("errors", "")]);
    assert_eq!((errors.takes(&client), errors.takes(&server)), (true, false));
}

#[test]
fn what_is_not_known_fits_no_condition() {
    let mut call = exchange(Kind::Server);
    http(&mut call).status = None;
    http(&mut call).route = None;
    call.peer = None;
    for (name, value) in [("status", "1xx,2xx,3xx,4xx,5xx,6xx,7xx,8xx,9xx"), ("route", "*"), ("peer", "*")] {
        assert!(!filter(&[(name, value)]).takes(&call), "{name}");
    }
}

#[test]
fn wrong_values_say_what_belongs_there() {
    for (name, value, said) in [
        ("status", "5x", "status: write 404, 5xx or 4xx,5xx"),
        ("status", "", "status: write 404, 5xx or 4xx,5xx"),
        ("status", "0xx", "status: write 404, 5xx or 4xx,5xx"),
        ("kind", "both", "kind: write client or server"),
        ("slower-than", "fast", "slower-than: write a time, as 100ms or 2s"),
        ("since", "yesterday", "since: write how long ago, as 5m, or a time, as 2026-11-23T10:00:00Z"),
        ("service", "", "service: is empty"),
        ("errors", "maybe", "errors: write 1 or 0"),
    ] {
        assert_eq!(Filter::default().set(name, value, 0).unwrap_err().to_string(), said);
    }
    assert_eq!(Filter::default().set("statsu", "200", 0), Ok(false));
}
