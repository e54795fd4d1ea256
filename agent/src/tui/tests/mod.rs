//! The whole of it without a terminal: answers in, keys in, screens out.

mod draw;
mod hostile;
mod keys;

use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use serde_json::{Value, json};

use super::ask::header;
use super::draw::draw;
use super::page::{self, Page};
use super::paper::Look;
use super::rates::Rates;
use super::state::{Event, News, State};
use super::update::{Then, update};
use super::wire::Answer;

/// 2026-11-23T10:00:00Z.
const NOW: u64 = 1_795_428_000_000_000_000;

/// An agent that answers from a table.
struct Agent {
    answers: Vec<(&'static str, Vec<Value>)>,
    rates: Rates,
    now: f64,
}

fn name(name: &str) -> Value {
    json!({"service.name": name, "service.namespace": null})
}

fn endpoint(service: &str, kind: &str, method: &str, route: &str, calls: u64, errors: u64) -> Value {
    json!({
        "service": name(service), "kind": kind, "protocol": "http", "method": method, "route": route,
        "calls": calls, "errors": errors, "request_bytes": 2048, "response_bytes": 345_000,
        "seconds": 0.002 * calls as f64, "p99_at_most_seconds": 0.005,
    })
}

fn edge(client: &str, server: &str, calls: u64) -> Value {
    json!({
        "client": name(client), "server": name(server), "protocol": "http", "server_port": 8080, "calls": calls,
        "errors": 3, "aborted": 0, "dropped": 0, "connections": 0, "failed_connections": 1, "request_bytes": 0,
        "response_bytes": 345_000, "tls": false, "calls_per_second": 12.5,
        "latency_seconds": {"p50": 0.001, "p90": 0.002, "p99": 0.004}, "observed_by": ["client", "server"],
        "first_seen": "2026-11-23T09:00:00Z", "last_seen": "2026-11-23T09:59:58Z",
    })
}

fn call(route: &str, port: u16) -> Value {
    json!({
        "span_id": format!("{route}{port}"), "kind": "server", "start": "2026-11-23T09:59:59Z", "duration_ns": 812_345,
        "service": name("shop"), "peer": {"service.name": "curl", "address": "10.1.0.7", "port": 51234},
        "connection": {"local": format!("10.1.0.2:{port}"), "remote": "10.1.0.7:51234"},
        "attributes": {"http.request.method": "GET", "http.route": route, "http.response.status_code": 200,
                       "http.request.body.size": 0, "http.response.body.size": 345},
        "end": "complete", "verdict": "allowed",
    })
}

impl Agent {
    fn new() -> Self {
        let service = |service: &str, evidence: &str, processes: u64| json!({"service": name(service), "evidence": evidence, "unit": null, "processes": processes, "pids": [7]});
        let connection = |port: u16, reason: Option<&str>| {
            json!({
                "service": name("shop"), "peer": {"service.name": "curl", "address": "10.1.0.7"}, "cookie": port,
                "role": "server", "local": "10.1.0.2:8080", "remote": format!("10.1.0.7:{port}"), "protocol": "http",
                "visibility": if reason.is_some() { "opaque" } else { "plaintext" }, "weir.opaque.reason": reason,
                "bytes_received": 80, "bytes_sent": 1536, "calls": 2, "opened": "2026-11-23T09:58:30Z",
            })
        };
        let messages = json!([
            {"stage": "seen", "reason": "", "count": 1234}, {"stage": "delivered", "reason": "", "count": 1200},
            {"stage": "lost", "reason": "ring_full", "count": 34},
        ]);
        let answers = vec![
            (
                "/v1/stats",
                vec![json!({
                    "version": "0.1.0", "pid": 7, "uptime_seconds": 90.0, "cpu_seconds": 0.5,
                    "resident_bytes": 20 << 20, "messages": messages,
                    "calls": [{"stage": "kept", "reason": "", "count": 1010}],
                    "events": [{"stage": "opened", "reason": "", "count": 12}],
                    "recent": {"calls": 1010, "bytes": 65_536, "limit": 1 << 20, "oldest": null, "disk": null},
                    "exported": [{"signal": "traces", "result": "sent", "count": 0}],
                    "programs": [{"program": "weir_ingress", "state": "attached", "runs": {"count": 1000, "ns": 250_000}}],
                })],
            ),
            (
                "/v1/services",
                vec![service("curl", "executable", 12), service("shop", "executable", 2), service("idle", "script", 1)],
            ),
            (
                "/v1/endpoints",
                vec![
                    endpoint("shop", "server", "GET", "/orders/{id}", 1000, 3),
                    endpoint("shop", "server", "POST", "/orders", 10, 0),
                    endpoint("curl", "client", "GET", "/orders/{id}", 1000, 30),
                    endpoint("shop", "client", "GET", "/stock/{id}/of/the/warehouse/that/is/far/away", 5, 0),
                ],
            ),
            ("/v1/graph", vec![json!({"edges": [edge("curl", "shop", 1010), edge("shop", "external:stock.test", 5)]})]),
            ("/v1/connections", vec![connection(51234, None), connection(51235, Some("rustls"))]),
            (
                "/v1/blocks",
                vec![json!({
                    "id": "scan", "action": "deny", "effective_mode": "monitor", "hits": 7, "source": "cli",
                    "last_hit": "2026-11-23T09:59:30Z", "until": "2026-11-23T11:00:00Z", "reason": "ticket 17",
                    "client.address": ["203.0.113.0/24"], "server.port": [8080, 8081],
                })],
            ),
            (
                "/v1/mode",
                vec![json!({
                    "mode": "monitor", "gate": {"dropped": 41, "odd": "x"}, "allow_list": [{"address": "127.0.0.0/8", "what": "loopback", "saved": 3}],
                })],
            ),
            ("/v1/calls", vec![call("/orders/{id}", 8080), call("/orders", 8080), call("/orders", 9090)]),
        ];
        Self { answers, rates: Rates::default(), now: 0.0 }
    }

    fn answer(&self, target: &str) -> Answer {
        let path = target.split('?').next().unwrap();
        let (_, rows) = self.answers.iter().find(|(of, _)| *of == path).expect(target);
        Answer { rows: rows.clone(), unreadable: 0 }
    }

    fn set(&mut self, path: &str, rows: Vec<Value>) {
        self.answers.iter_mut().find(|(of, _)| *of == path).unwrap().1 = rows;
    }

    /// A second later it answers for a page.
    fn news(&mut self, page: &Page) -> Event {
        self.now += 1.0;
        self.rates.look(self.now);
        let stats = self.answer("/v1/stats");
        let answers: Vec<Answer> = page.targets().iter().map(|target| self.answer(target)).collect();
        let header = header(stats.document(), &mut self.rates);
        let mut look = page::Look { now_unix_ns: NOW, rates: &mut self.rates };
        let tables = page.tables(&answers, &stats, &mut look);
        Event::News(Box::new(News { page: page.clone(), header, tables, unreadable: 0 }))
    }
}

/// A user in front of a screen.
struct User {
    agent: Agent,
    state: State,
}

impl User {
    /// The first page is there.
    fn at(columns: u16, lines: u16) -> Self {
        let mut user = Self { agent: Agent::new(), state: State::new((columns, lines)) };
        user.look();
        user
    }

    /// The agent answers for the page in view.
    fn look(&mut self) {
        let page = self.state.visit().unwrap().page.clone();
        let news = self.agent.news(&page);
        assert_eq!(update(&mut self.state, news), Then::Draw);
    }

    fn press(&mut self, code: KeyCode) -> Then {
        let then = update(&mut self.state, Event::Key(KeyEvent::new(code, KeyModifiers::NONE)));
        if then == Then::Ask {
            self.look();
        }
        then
    }

    /// Types characters.
    fn keys(&mut self, text: &str) {
        for c in text.chars() {
            self.press(KeyCode::Char(c));
        }
    }

    fn terminal(&self, colours: bool) -> Terminal<TestBackend> {
        let (columns, lines) = self.state.size;
        let mut terminal = Terminal::new(TestBackend::new(columns, lines)).unwrap();
        terminal.draw(|frame| draw(&self.state, Look { colours }, frame)).unwrap();
        terminal
    }

    /// What is on the screen, line by line, without spaces at their ends.
    fn screen(&self) -> Vec<String> {
        let terminal = self.terminal(true);
        let buffer = terminal.backend().buffer();
        let columns = usize::from(buffer.area.width);
        let lines = buffer.content.chunks(columns);
        lines
            .map(|cells| cells.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned())
            .collect()
    }

    /// The text under the cursor, if there is one.
    fn chosen(&self) -> String {
        let at = self.state.visit().unwrap().at;
        self.state.row(at).map(|(_, row)| row.cells[0].text.clone()).unwrap_or_default()
    }
}
