//! What each path answers.

use std::{sync::Arc, time::Duration};

use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    header::{ALLOW, HeaderValue},
};
use tokio::sync::watch;

use super::{
    Backend, Change, Form,
    body::{self, Lines, Reply},
};
use crate::{
    clock,
    model::{Filter, json::CallJson},
};

/// Calls of an answer when `last` is not given.
const LAST: usize = 100;
/// Calls of an answer at most.
const LAST_MOST: usize = 1_000_000;
/// Bytes of a rule.
const RULE: usize = 1 << 20;
/// What there is, for who asks for something else.
const PATHS: &str =
    "/v1/calls, connections, services, endpoints, graph, stats, doctor, blocks, blocks/{id}, mode and reload";
/// How often a follower looks for new calls.
const LOOK: Duration = Duration::from_millis(100);

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    /// May change things: root, or the user that the agent runs as.
    pub(super) may_change: bool,
    /// User id, as the kernel says it.
    pub(super) uid: Option<u32>,
    /// Process id, as the kernel says it.
    pub(super) pid: Option<i32>,
}

impl Caller {
    fn name(self) -> String {
        let number = |number: Option<i64>| number.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
        format!("uid {} pid {}", number(self.uid.map(i64::from)), number(self.pid.map(i64::from)))
    }
}

/// What a request is answered from.
#[derive(Clone)]
pub(super) struct Context {
    pub(super) backend: Arc<dyn Backend>,
    /// Becomes `true` when the agent stops: followers end.
    pub(super) stopping: watch::Receiver<bool>,
}

/// Answers a request.
pub(super) async fn answer(context: &Context, caller: Caller, request: Request<Incoming>) -> Response<Reply> {
    let (method, uri) = (request.method(), request.uri());
    let reading = method == Method::GET || method == Method::HEAD;
    let path = uri.path();
    let Some(methods) = methods(path) else {
        return body::error(StatusCode::NOT_FOUND, &format!("there is no {path}; there is {PATHS}"));
    };
    if !methods.split(", ").any(|known| known == method.as_str()) {
        let text = format!("{path} does not take {method}; it takes {methods}");
        let mut refused = body::error(StatusCode::METHOD_NOT_ALLOWED, &text);
        refused.headers_mut().insert(ALLOW, HeaderValue::from_static(methods));
        return refused;
    }
    if !reading && !caller.may_change {
        return body::error(StatusCode::FORBIDDEN, "only root may change things; reading needs no more than the group");
    }
    let query = uri.query().unwrap_or_default();
    if !reading && path != "/v1/reload" {
        return change(context, caller, request).await;
    }
    if path == "/v1/calls" {
        return match Calls::parse(query) {
            Ok(calls) => self::calls(context, calls),
            Err(text) => body::error(StatusCode::BAD_REQUEST, &text),
        };
    }
    if path == "/v1/graph" {
        let asked = match graph(query) {
            Ok(asked) => asked,
            Err(text) => return body::error(StatusCode::BAD_REQUEST, &text),
        };
        let backend = Arc::clone(&context.backend);
        let answer = tokio::task::spawn_blocking(move || backend.graph(asked.0, asked.1, asked.2)).await;
        let kind = if asked.0 == Form::Json { "application/json" } else { "text/plain; charset=utf-8" };
        return match answer {
            Ok(Ok(text)) => body::text(kind, text),
            Ok(Err(error)) => body::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()),
            Err(_) => body::error(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made"),
        };
    }
    if !query.is_empty() {
        return body::error(StatusCode::BAD_REQUEST, &format!("{path} takes no parameters"));
    }
    let path = path.to_owned();
    let backend = Arc::clone(&context.backend);
    let answer = tokio::task::spawn_blocking(move || other(&*backend, caller, &path)).await;
    answer.unwrap_or_else(|_| body::error(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made"))
}

/// Methods that a path takes, as they stand in `Allow`; `None`: there is no such path.
fn methods(path: &str) -> Option<&'static str> {
    Some(match path {
        "/v1/calls" | "/v1/connections" | "/v1/services" | "/v1/endpoints" | "/v1/graph" | "/v1/stats"
        | "/v1/doctor" => "GET, HEAD",
        "/v1/reload" => "POST",
        "/v1/blocks" => "GET, HEAD, POST",
        "/v1/mode" => "GET, HEAD, PUT",
        _ if rule(path).is_some() => "GET, HEAD, DELETE",
        _ => return None,
    })
}

/// Everything but calls. Runs where it may wait.
fn other(backend: &dyn Backend, caller: Caller, path: &str) -> Response<Reply> {
    if let Some(id) = rule(path) {
        return told(backend.explain(id));
    }
    let answer = match path {
        "/v1/connections" => backend.connections().map(|rows| listed(rows, super::rows::ConnectionRow::json)),
        "/v1/services" => backend.services().map(|rows| listed(rows, super::rows::ServiceRow::json)),
        "/v1/endpoints" => Ok(listed(backend.endpoints(), super::rows::endpoint)),
        "/v1/blocks" => Ok(listed(backend.blocks(), serde_json::Value::clone)),
        "/v1/mode" => Ok(body::document(StatusCode::OK, &backend.mode())),
        "/v1/stats" => backend.stats().map(|stats| body::document(StatusCode::OK, &stats)),
        "/v1/doctor" => backend.doctor().map(|report| body::document(StatusCode::OK, &report)),
        _ => match backend.reload(&caller.name()) {
            Ok(warnings) => Ok(body::document(StatusCode::OK, &serde_json::json!({ "warnings": warnings }))),
            Err(text) => return body::error(StatusCode::UNPROCESSABLE_ENTITY, &text),
        },
    };
    answer.unwrap_or_else(|error| body::error(StatusCode::SERVICE_UNAVAILABLE, &error.to_string()))
}

/// A line a row. Each is made when its turn comes: all documents at once would take ten times the rows' memory.
fn listed<T: Send + 'static>(rows: Vec<T>, document: fn(&T) -> serde_json::Value) -> Response<Reply> {
    let (mut lines, response) = body::lines();
    // The reader comes later than this: lines are made beside it.
    tokio::task::spawn_blocking(move || {
        let _ = rows.iter().all(|row| lines.add(&document(row))) && lines.flush();
    });
    response
}

/// The id in `/v1/blocks/{id}`.
fn rule(path: &str) -> Option<&str> {
    path.strip_prefix("/v1/blocks/").filter(|id| !id.is_empty() && !id.contains('/'))
}

fn told(answer: Result<serde_json::Value, super::NotMade>) -> Response<Reply> {
    match answer {
        Ok(value) => body::document(StatusCode::OK, &value),
        Err(error) if error.unknown => body::error(StatusCode::NOT_FOUND, &error.why),
        Err(error) => body::refused(&error),
    }
}

/// A change of drop decisions.
async fn change(context: &Context, caller: Caller, request: Request<Incoming>) -> Response<Reply> {
    let (path, query) = (request.uri().path().to_owned(), request.uri().query().unwrap_or_default().to_owned());
    let bad = |text: &str| body::error(StatusCode::BAD_REQUEST, text);
    let change = if let Some(id) = rule(&path) {
        if !query.is_empty() {
            return bad(&format!("{path} takes no parameters"));
        }
        Change::Remove(id.to_owned())
    } else {
        let bytes = match Limited::new(request.into_body(), RULE).collect().await {
            Ok(bytes) => bytes,
            Err(error) if error.is::<LengthLimitError>() => {
                return body::error(StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 1 MiB");
            }
            Err(_) => return bad("the body broke off"),
        };
        let value: serde_json::Value = match serde_json::from_slice(&bytes.to_bytes()) {
            Ok(value) => value,
            Err(error) => return bad(&format!("the body is not JSON: {error}")),
        };
        if !value.is_object() {
            return bad("the body is JSON, but no object");
        }
        match (path.as_str(), query.as_str()) {
            ("/v1/blocks", "") => Change::Add(value),
            ("/v1/blocks", "dry_run" | "dry_run=1") => Change::Rehearse(value),
            ("/v1/mode", "") => match value.get("mode").and_then(serde_json::Value::as_str) {
                Some(mode) if value.as_object().is_some_and(|written| written.len() == 1) => {
                    Change::Mode(mode.to_owned())
                }
                _ => return bad("write {\"mode\":\"monitor\"} or {\"mode\":\"enforce\"}"),
            },
            _ => return bad("the only parameter is dry_run of /v1/blocks"),
        }
    };
    let backend = Arc::clone(&context.backend);
    let answer = tokio::task::spawn_blocking(move || {
        told(backend.change(&caller.name(), caller.pid.and_then(|pid| u32::try_from(pid).ok()), change))
    })
    .await;
    answer.unwrap_or_else(|_| body::error(StatusCode::INTERNAL_SERVER_ERROR, "the answer could not be made"))
}

/// Parameters of `GET /v1/graph`: how, since when, and into how many columns of a terminal.
fn graph(query: &str) -> Result<(Form, Option<u64>, Option<usize>), String> {
    let (mut form, mut filter, mut width) = (Form::Json, Filter::default(), None);
    for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(pair) {
        match (name.as_str(), value.as_str()) {
            ("format", "text") => form = Form::Text,
            ("format", "json") => form = Form::Json,
            ("format", "dot") => form = Form::Dot,
            ("format", "mermaid") => form = Form::Mermaid,
            ("format", _) => return Err(format!("format: `{value}` is none of text, json, dot, mermaid")),
            ("since", _) => {
                filter.set("since", &value, clock::unix_ns()).map_err(|error| error.to_string())?;
            }
            ("width", _) => match value.parse() {
                Ok(columns @ 40..=1000) => width = Some(columns),
                _ => return Err(format!("width: `{value}` is not a number from 40 to 1000")),
            },
            _ => return Err(format!("there is no parameter `{name}`")),
        }
    }
    Ok((form, filter.since_unix_ns, width))
}

/// `GET /v1/calls`.
#[derive(Debug, PartialEq, Eq)]
struct Calls {
    filter: Filter,
    last: usize,
    follow: bool,
}

impl Calls {
    fn parse(query: &str) -> Result<Self, String> {
        let now = clock::unix_ns();
        let mut calls = Self { filter: Filter::default(), last: LAST, follow: false };
        let mut last = None;
        for (name, value) in query.split('&').filter(|pair| !pair.is_empty()).map(pair) {
            match name.as_str() {
                "last" => {
                    let number = value.parse().ok().filter(|number| *number <= LAST_MOST);
                    last = Some(number.ok_or_else(|| format!("last: write a number up to {LAST_MOST}"))?);
                }
                "follow" => {
                    calls.follow = match value.as_str() {
                        "" | "1" | "true" => true,
                        "0" | "false" => false,
                        _ => return Err("follow: write 1 or 0".to_owned()),
                    }
                }
                _ => {
                    if !calls.filter.set(&name, &value, now).map_err(|error| error.to_string())? {
                        return Err(format!("there is no parameter `{name}`"));
                    }
                }
            }
        }
        // Who follows wants what comes.
        calls.last = last.unwrap_or(if calls.follow { 0 } else { LAST });
        Ok(calls)
    }
}

fn pair(text: &str) -> (String, String) {
    let (name, value) = text.split_once('=').unwrap_or((text, ""));
    (decode(name), decode(value))
}

/// `application/x-www-form-urlencoded`.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |n: usize| after.get(n).and_then(|digit| char::from(*digit).to_digit(16));
        rest = after;
        bytes.push(match (first, digit(0), digit(1)) {
            (b'%', Some(high), Some(low)) => {
                rest = after.get(2..).unwrap_or_default();
                (high * 16 + low) as u8
            }
            (b'+', ..) => b' ',
            _ => first,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn calls(context: &Context, calls: Calls) -> Response<Reply> {
    let (lines, response) = body::lines();
    let backend = Arc::clone(&context.backend);
    let stopping = context.stopping.clone();
    tokio::task::spawn_blocking(move || tell(&*backend, &calls, lines, &stopping));
    response
}

/// Tells calls, oldest first, and then those that come, until the reader is gone or the agent stops.
fn tell(backend: &dyn Backend, calls: &Calls, mut lines: Lines, stopping: &watch::Receiver<bool>) {
    let mut place = backend.end();
    let mut past = if calls.last == 0 { Vec::new() } else { backend.before(place, &calls.filter, calls.last) };
    while let Some(call) = past.pop() {
        if !lines.add(&CallJson(&call)) {
            return;
        }
    }
    if !lines.flush() || !calls.follow {
        return;
    }
    while !*stopping.borrow() {
        let news = backend.since(place, &calls.filter);
        let idle = news.next == place;
        place = news.next;
        if news.missed > 0 && !lines.add(&serde_json::json!({ "missed": news.missed })) {
            return;
        }
        if !news.calls.iter().all(|call| lines.add(&CallJson(call))) || !lines.flush() {
            return;
        }
        if idle {
            std::thread::sleep(LOOK);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_filters() {
        let calls = Calls::parse("service=a%20b+c&status=5xx&last=7&follow=1").unwrap();
        let mut filter = Filter::default();
        filter.set("service", "a b c", 0).unwrap();
        filter.set("status", "5xx", 0).unwrap();
        assert_eq!(calls, Calls { filter, last: 7, follow: true });
        assert_eq!(Calls::parse("").unwrap(), Calls { filter: Filter::default(), last: 100, follow: false });
        assert_eq!(Calls::parse("follow=1").unwrap().last, 0);
        assert_eq!(Calls::parse("follow=0").unwrap(), Calls::parse("").unwrap());
        for (query, said) in [
            ("last=many", "last: write a number up to 1000000"),
            ("last=1000001", "last: write a number up to 1000000"),
            ("lasd=1", "there is no parameter `lasd`"),
            ("status=x", "status: write 404, 5xx or 4xx,5xx"),
            ("follow=maybe", "follow: write 1 or 0"),
        ] {
            assert_eq!(Calls::parse(query).unwrap_err(), said);
        }
    }

    #[test]
    fn percent_signs_decode_or_stay() {
        for (text, decoded) in [("a%2Fb", "a/b"), ("100%", "100%"), ("%zz", "%zz"), ("%+5", "% 5"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(decode(text), decoded);
        }
    }
}
