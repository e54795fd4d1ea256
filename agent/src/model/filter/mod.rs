//! Which calls are asked for: the filters of `weir calls` and of `GET /v1/calls`.

use std::{net::IpAddr, time::Duration};

use super::{Exchange, Http, Kind, Operation, fits, semconv};

/// Conditions on a call; all that are given must be true of it. Names may hold `*` for any text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Observed service's name.
    pub service: Option<String>,
    /// Other end: its service's name, its address, or address and port.
    pub peer: Option<String>,
    /// semconv `network.protocol.name`.
    pub protocol: Option<String>,
    /// Request method, in any case.
    pub method: Option<String>,
    /// `http.route`.
    pub route: Option<String>,
    /// Status codes; a call without one fits no set.
    pub status: Option<Statuses>,
    /// Only calls that are errors for their side (semconv `error.type`).
    pub errors: bool,
    /// Only calls that took longer.
    pub slower_than: Option<Duration>,
    /// Only calls that started at or after this, nanoseconds since the Unix epoch.
    pub since_unix_ns: Option<u64>,
    /// Only calls seen from this side.
    pub kind: Option<Kind>,
}

/// Status codes as written: `404`, `5xx`, or several, separated by commas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statuses(Vec<(u16, u16)>);

/// A filter that can't be used; the text names it and says what belongs there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name}: {text}")]
pub struct FilterError {
    /// The filter.
    pub name: String,
    /// What is wrong with its value.
    pub text: String,
}

impl Filter {
    /// Sets a filter by the name it has in a query (`slower-than`); `now_unix_ns` is what `since` counts back from.
    /// `Ok(false)`: there is no such filter.
    pub fn set(&mut self, name: &str, value: &str, now_unix_ns: u64) -> Result<bool, FilterError> {
        let wrong = |text: &str| FilterError { name: name.to_owned(), text: text.to_owned() };
        let text = || if value.is_empty() { Err(wrong("is empty")) } else { Ok(Some(value.to_owned())) };
        match name {
            "service" => self.service = text()?,
            "peer" => self.peer = text()?,
            "protocol" => self.protocol = text()?,
            "method" => self.method = text()?,
            "route" => self.route = text()?,
            "status" => self.status = Some(value.parse().map_err(|()| wrong("write 404, 5xx or 4xx,5xx"))?),
            "errors" => {
                self.errors = match value {
                    "" | "1" | "true" => true,
                    "0" | "false" => false,
                    _ => return Err(wrong("write 1 or 0")),
                }
            }
            "slower-than" => {
                let time = humantime::parse_duration(value).map_err(|_| wrong("write a time, as 100ms or 2s"))?;
                self.slower_than = Some(time);
            }
            "since" => {
                self.since_unix_ns = Some(
                    since(value, now_unix_ns)
                        .ok_or_else(|| wrong("write how long ago, as 5m, or a time, as 2026-11-23T10:00:00Z"))?,
                );
            }
            "kind" => {
                self.kind = Some(match value {
                    "client" => Kind::Client,
                    "server" => Kind::Server,
                    _ => return Err(wrong("write client or server")),
                });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether a call fits.
    #[must_use]
    pub fn takes(&self, exchange: &Exchange) -> bool {
        let Operation::Http(http) = &exchange.call.operation;
        self.since_unix_ns.is_none_or(|since| exchange.start_unix_ns >= since)
            && self.kind.is_none_or(|kind| exchange.kind == kind)
            && self.slower_than.is_none_or(|least| Duration::from_nanos(exchange.duration_ns()) > least)
            && self.takes_http(http)
            && (!self.errors || semconv::is_error(exchange))
            && self.service.as_deref().is_none_or(|service| fits(service, &exchange.service.name))
            && self.peer.as_deref().is_none_or(|peer| is_peer(peer, exchange))
    }

    fn takes_http(&self, http: &Http) -> bool {
        self.protocol.as_deref().is_none_or(|protocol| fits(protocol, "http"))
            && self.method.as_deref().is_none_or(|method| method.eq_ignore_ascii_case(http.method.as_str()))
            && self.status.as_ref().is_none_or(|statuses| http.status.is_some_and(|status| statuses.has(status)))
            && self.route.as_deref().is_none_or(|route| http.route.as_deref().is_some_and(|told| fits(route, told)))
    }
}

fn is_peer(asked: &str, exchange: &Exchange) -> bool {
    let remote = exchange.connection.remote;
    if let Ok(address) = asked.parse::<IpAddr>() {
        return remote.ip() == address;
    }
    if let Ok(address) = asked.parse() {
        return remote == address;
    }
    exchange.peer.as_ref().is_some_and(|peer| fits(asked, &peer.name))
}

/// `5m` ago, or a point in time (RFC 3339).
fn since(text: &str, now_unix_ns: u64) -> Option<u64> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Some(now_unix_ns.saturating_sub(u64::try_from(ago.as_nanos()).unwrap_or(u64::MAX)));
    }
    let time = humantime::parse_rfc3339(text).ok()?;
    u64::try_from(time.duration_since(std::time::UNIX_EPOCH).ok()?.as_nanos()).ok()
}

impl Statuses {
    /// Whether a status code is one of them.
    #[must_use]
    pub fn has(&self, status: u16) -> bool {
        self.0.iter().any(|(least, most)| (*least..=*most).contains(&status))
    }
}

impl std::str::FromStr for Statuses {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let range = |part: &str| {
            if let Some(class) = part.strip_suffix("xx").or_else(|| part.strip_suffix("XX")) {
                let class: u16 = class.parse().ok().filter(|class| (1..=9).contains(class))?;
                return Some((class * 100, class * 100 + 99));
            }
            let status: u16 = part.parse().ok().filter(|status| (100..=999).contains(status))?;
            Some((status, status))
        };
        text.split(',').map(|part| range(part.trim())).collect::<Option<Vec<_>>>().map(Self).ok_or(())
    }
}

#[cfg(test)]
mod tests;
