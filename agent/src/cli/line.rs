//! A call on one line, for `weir calls` and `weir run --output live`:
//! time, side, client → server, method and route, status, duration, sizes, and how it ended if not well.

use serde_json::Value;

use super::screen::{Colour, Screen, bytes, columns, duration, fit, harmless};
use crate::model::{Exchange, Kind, Operation, Service, shown::time_of_day};

/// Columns of client, server and what, at least: on a terminal too narrow for them a line takes two.
const NAMES: usize = 20;
/// Columns of the shortest part of an end that says something.
const WORD: usize = 8;
/// Columns of time, side, arrow, status, duration and sizes, with all gaps.
const FIXED: usize = 12 + 3 + 3 + 5 + 8 + 14;

/// What the line shows.
#[derive(Clone, Debug, Default)]
pub(super) struct Line {
    start_unix_ns: u64,
    server_side: bool,
    client: String,
    server: String,
    what: String,
    status: Option<u16>,
    duration_ns: u64,
    request: Option<u64>,
    response: Option<u64>,
    /// Empty where the call is complete and allowed.
    end: String,
}

impl Line {
    /// Of a call.
    pub(super) fn of(exchange: &Exchange) -> Self {
        let Operation::Http(http) = &exchange.call.operation;
        let connection = &exchange.connection;
        let peer = exchange.peer.as_deref();
        let remote = |service: Option<&Service>| {
            service.map_or_else(|| connection.remote.ip().to_string(), |it| it.name.to_string())
        };
        let own = exchange.service.name.to_string();
        let server_side = exchange.kind == Kind::Server;
        let (client, server) = if server_side {
            (remote(peer), format!("{own}:{}", connection.local.port()))
        } else {
            (own, format!("{}:{}", remote(peer), connection.remote.port()))
        };
        let path = http.route.as_deref().or_else(|| path(&http.target)).unwrap_or_default();
        let size = |content: Option<u64>, wire: u64| Some(content.unwrap_or(wire));
        Self {
            start_unix_ns: exchange.start_unix_ns,
            server_side,
            client: harmless(&client),
            server: harmless(&server),
            what: harmless(format!("{} {path}", http.method.as_str()).trim_end()),
            status: http.status,
            duration_ns: exchange.duration_ns(),
            request: size(exchange.call.request.content, exchange.call.request.wire),
            response: exchange.call.response.and_then(|response| size(response.content, response.wire)),
            end: end(exchange.call.end.as_str(), exchange.verdict.as_str(), exchange.call.error),
        }
    }

    /// Of a call as the control socket tells it (CONTRACT "A call").
    pub(super) fn of_json(call: &Value) -> Option<Self> {
        let attributes = call.get("attributes")?;
        let text = |value: &Value, key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        let number = |key: &str| attributes.get(key).and_then(Value::as_u64);
        let peer = call.get("peer")?;
        let peer_name = text(peer, "service.name").or_else(|| text(peer, "address"))?;
        let own = text(call.get("service")?, "service.name")?;
        let port = |end: &str| text(call.get("connection")?, end)?.rsplit_once(':').map(|(_, port)| port.to_owned());
        let server_side = text(call, "kind")? == "server";
        let (client, server) = if server_side {
            (peer_name, format!("{own}:{}", port("local")?))
        } else {
            (own, format!("{peer_name}:{}", port("remote")?))
        };
        let method =
            text(attributes, "http.request.method_original").or_else(|| text(attributes, "http.request.method"));
        let path = text(attributes, "http.route").or_else(|| text(attributes, "url.path")).unwrap_or_default();
        let start = humantime::parse_rfc3339(call.get("start")?.as_str()?).ok()?;
        Some(Self {
            start_unix_ns: start.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos() as u64,
            server_side,
            client: harmless(&client),
            server: harmless(&server),
            what: harmless(format!("{} {path}", method.unwrap_or_default()).trim()),
            status: number("http.response.status_code").and_then(|status| u16::try_from(status).ok()),
            duration_ns: call.get("duration_ns")?.as_u64()?,
            request: number("http.request.body.size").or_else(|| number("weir.request.wire.size")),
            response: number("http.response.body.size").or_else(|| number("weir.response.wire.size")),
            end: {
                let error = text(attributes, "error.type").filter(|error| error.parse::<u16>().is_err());
                end(call.get("end")?.as_str()?, call.get("verdict")?.as_str()?, error.as_deref())
            },
        })
    }

    /// The line, without its end.
    pub(super) fn show(&self, screen: Screen) -> String {
        // How it ended is cut before the names are, where that leaves a word of it.
        let room = screen.width.saturating_sub(FIXED + NAMES + 1);
        let end = if room < WORD || columns(&self.end) <= room {
            self.end.clone()
        } else {
            fit(&self.end, room).trim_end().to_owned()
        };
        let fixed = FIXED + columns(&end) + usize::from(!end.is_empty());
        let left = screen.width.saturating_sub(fixed).max(NAMES);
        // Client, server and what share what is left.
        let client = (left / 4).min(18);
        let server = (left / 4).min(24);
        let what = left.saturating_sub(client + server);
        let status = self.status.map_or("  -".to_owned(), |status| format!("{status:>3}"));
        let size = |size: Option<u64>| size.map_or("-".to_owned(), bytes);
        let sizes = format!("{}/{}", size(self.request), size(self.response));
        let line = format!(
            "{} {} {} → {} {} {} {:>7} {:>13}",
            screen.paint(Colour::Dim, &time_of_day(self.start_unix_ns)),
            if self.server_side { '←' } else { '→' },
            fit(&self.client, client),
            fit(&self.server, server),
            fit(&self.what, what),
            screen.paint(self.colour(), &status),
            duration(self.duration_ns),
            sizes,
        );
        if end.is_empty() { line } else { format!("{line} {}", screen.paint(Colour::Yellow, &end)) }
    }

    fn colour(&self) -> Colour {
        match self.status {
            Some(500..) => Colour::Red,
            Some(400..) => Colour::Yellow,
            Some(300..) => Colour::Cyan,
            Some(_) => Colour::Green,
            None => Colour::Dim,
        }
    }
}

/// A target's path, without its query.
fn path(target: &str) -> Option<&str> {
    target.split('?').next().filter(|path| !path.is_empty())
}

fn end(end: &str, verdict: &str, error: Option<&str>) -> String {
    let words = [
        Some(end).filter(|end| *end != "complete"),
        Some(verdict).filter(|verdict| *verdict != "allowed"),
        error.filter(|error| *error != end),
    ];
    words.into_iter().flatten().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        End, Verdict,
        json::CallJson,
        sample::{exchange, http},
    };

    const SCREEN: Screen = Screen { width: 100, colours: false };

    /// Without the time of day, which is local.
    fn shown(exchange: &Exchange) -> String {
        let line = Line::of(exchange).show(SCREEN);
        let json = serde_json::to_value(CallJson(exchange)).unwrap();
        assert_eq!(Line::of_json(&json).unwrap().show(SCREEN), line, "both ways say the same");
        line.chars().skip(13).collect()
    }

    #[test]
    fn a_call_fits_100_columns() {
        let mut call = exchange(Kind::Server);
        let line = shown(&call);
        assert_eq!(line, "← curl          → shop:8080     GET /orders/{id}              200     8µs       0B/345B");
        http(&mut call).status = None;
        call.call.response = None;
        call.call.end = End::Reset;
        call.call.error = Some("connection_reset");
        call.verdict = Verdict::WouldDrop { rule: "b".into(), reason: "r".into() };
        call.peer = None;
        http(&mut call).route = Some("/a/very/long/route/that/does/not/fit/into/its/column/at/all".into());
        let line = Line::of(&call).show(SCREEN);
        assert_eq!(line.chars().count(), 100);
        assert!(line.ends_with("reset would_drop connection_reset"), "{line}");
    }

    #[test]
    fn a_narrow_terminal_shows_who_all_the_same() {
        let line = Line::of(&exchange(Kind::Server)).show(Screen { width: 40, colours: false });
        assert!(line.contains("curl") && line.contains("shop") && line.contains("GET /or"), "{line}");
    }

    #[test]
    fn hostile_names_do_not_reach_the_terminal() {
        let mut call = exchange(Kind::Client);
        http(&mut call).route = None;
        http(&mut call).target = "/\x1b]0;owned\x07?q=1".into();
        let line = shown(&call);
        assert!(!line.contains(['\x1b', '\x07', '?']) && line.contains("GET /\u{fffd}]0;owned"), "{line}");
    }

    #[test]
    fn colours_tell_the_class() {
        let screen = Screen { width: 100, colours: true };
        let mut call = exchange(Kind::Server);
        for (status, colour) in [(204, "32"), (301, "36"), (404, "33"), (503, "31")] {
            http(&mut call).status = Some(status);
            let line = Line::of(&call).show(screen);
            assert!(line.contains(&format!("\x1b[{colour}m{status}\x1b[0m")), "{line:?}");
        }
    }
}
