//! What comes from outside does no harm: neither to the terminal nor to this process.

use super::super::page::{Calls, Name, TABS};
use super::*;

/// A text that a terminal would obey.
const OBEYED: &str = "a\x1b]0;owned\x07\x1b[2J\r\n\u{9b}31m\u{202e}b";

fn spoil(value: &mut Value) {
    match value {
        Value::String(text) if !["server", "client", "kept", "lost"].contains(&text.as_str()) => *text += OBEYED,
        Value::Array(list) => list.iter_mut().for_each(spoil),
        Value::Object(map) => map.values_mut().for_each(spoil),
        _ => {}
    }
}

fn every_page() -> Vec<Page> {
    let name = |name: &str| Name { name: format!("{name}{OBEYED}"), namespace: None };
    let mut pages = TABS.to_vec();
    pages.push(Page::Service(name("shop")));
    pages.push(Page::Calls(Calls::Edge { client: name("curl"), server: name("shop"), port: 8080, by_server: true }));
    let (service, method, route) = (name("shop"), Some("GET".to_owned()), Some(format!("/orders{OBEYED}")));
    pages.push(Page::Calls(Calls::Endpoint { service, server_side: true, method, route }));
    pages
}

#[test]
fn nothing_that_a_terminal_obeys_reaches_it() {
    let mut user = User::at(200, 50);
    for (_, rows) in &mut user.agent.answers {
        rows.iter_mut().for_each(spoil);
    }
    user.keys("/\u{9b}");
    user.press(KeyCode::Enter);
    update(&mut user.state, Event::Away(OBEYED.into()));
    for page in every_page() {
        user.state.deeper = vec![super::super::state::Visit::to(page)];
        for away in [true, false] {
            if away {
                update(&mut user.state, Event::Away(OBEYED.into()));
            } else {
                user.look();
            }
            let text = user.screen().concat();
            let obeyed = text.chars().find(|c| c.is_control() || *c == '\u{202e}');
            assert_eq!(obeyed, None, "{text}");
            assert!(text.contains("owned"), "it is shown all the same: {text}");
        }
    }
}

#[test]
fn answers_of_any_shape_are_survived() {
    let long = Value::String("x".repeat(100_000));
    let odd = [
        Value::Null,
        json!(7),
        json!("text"),
        json!([]),
        json!([[], {}, null]),
        json!({}),
        json!({"service": 7, "edges": 7, "calls": {}, "attributes": [], "recent": [], "programs": {"a": 1}}),
        json!({"service": {"service.name": null}, "client": {"service.name": 7}, "id": 7, "kind": []}),
        json!({"service": {"service.name": long}, "kind": "server", "method": long, "calls": u64::MAX, "seconds": 1e300}),
        json!({"edges": [7, {"client": {"service.name": "a"}, "server": {"service.name": "b"}, "server_port": u64::MAX,
                         "calls": -1, "latency_seconds": 7, "last_seen": "9999-12-31T23:59:59Z"}]}),
        json!({"calls": [{"stage": "kept", "count": u64::MAX}, {"stage": "kept", "count": u64::MAX}], "uptime_seconds": -1,
               "cpu_seconds": 1e308, "programs": [{"runs": {"count": 1, "ns": u64::MAX}}], "messages": [7, null]}),
        json!({"id": "r", "until": "0000-00-00", "last_hit": "1970-01-01T00:00:00Z", "client.address": {"a": []}}),
    ];
    for document in odd {
        let mut user = User::at(80, 24);
        for (_, rows) in &mut user.agent.answers {
            *rows = vec![document.clone(), Value::Null];
        }
        for page in every_page() {
            user.state.deeper = vec![super::super::state::Visit::to(page)];
            for _ in 0..2 {
                user.look();
                user.keys("sS");
                user.press(KeyCode::End);
                assert_eq!(user.screen().len(), 24);
            }
            user.press(KeyCode::Enter);
            user.screen();
        }
    }
}

#[test]
fn rows_that_can_not_be_told_apart_can_all_be_gone_to() {
    let mut user = User::at(80, 24);
    let mut same = call("/orders/{id}", 8080);
    same["span_id"] = Value::Null;
    user.agent.set("/v1/calls", vec![same; 3]);
    user.press(KeyCode::Char('3'));
    user.press(KeyCode::Enter);
    assert_eq!(user.state.counts(), (3, 3));
    for at in [1, 2, 2] {
        user.press(KeyCode::Down);
        assert_eq!(user.state.visit().unwrap().at, at);
    }
}

#[test]
fn lines_that_are_no_json_are_said() {
    let mut user = User::at(80, 24);
    let Event::News(mut news) = user.agent.news(&Page::Services) else { unreachable!() };
    news.unreadable = 2;
    update(&mut user.state, Event::News(news));
    assert_eq!(user.screen()[2], "Services: 3, by IN; 2 lines of the agent's could not be read");
}
