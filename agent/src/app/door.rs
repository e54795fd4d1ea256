//! What the control socket is answered from.

use std::path::Path;
use std::sync::{Arc, PoisonError};

use serde_json::{Value, json};
use tokio::runtime::Handle;

use super::{Core, Error, blocks, feeds};
use crate::clock::Offset;
use crate::control::rows::{ConnectionRow, ServiceRow};
use crate::control::{self, Backend, Change, Form, Holder, News, NotMade, Server, Unavailable};
use crate::graph::Format;
use crate::model::json::time;
use crate::model::{Endpoint, Exchange, Filter, Service};
use crate::policy::set::SetError;

/// Takes the right to the control socket, so that a second agent is refused before it attaches anything. `None`: it is
/// turned off, or can't be had on this node; the agent does without.
pub(super) fn take(socket: &Path) -> Result<Option<Holder>, Error> {
    if socket.as_os_str().is_empty() {
        return Ok(None);
    }
    match Holder::take(socket) {
        Ok(holder) => Ok(Some(holder)),
        // A read-only or missing place is no reason not to watch; it is said.
        Err(error @ control::Error::Io { .. }) => {
            tracing::warn!(
                "{error}; weir calls and the other verbs will not find this agent: set control.socket to a place that can be written"
            );
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Answers on the socket.
pub(super) fn open(holder: Holder, core: &Arc<Core>) -> Result<Server, Error> {
    let door = Door { core: Arc::clone(core), runtime: Handle::current() };
    Ok(Server::start(holder, Arc::new(door))?)
}

struct Door {
    core: Arc<Core>,
    /// What a reload starts lives here, not on the server's own runtime.
    runtime: Handle,
}

impl Door {
    /// A service as the privacy level allows.
    fn shown(&self, service: &Arc<Service>) -> Arc<Service> {
        let bench = self.core.bench.read().unwrap_or_else(PoisonError::into_inner);
        bench.redactor.service(service)
    }
}

impl Door {
    /// The node's mode, with where rules come from.
    fn shown_mode(&self, mut told: Value) -> Value {
        told["sources"] = self.core.feeds.rows().iter().map(feeds::Row::document).collect();
        told
    }
}

fn unavailable(error: &Error) -> Unavailable {
    Unavailable(error.to_string())
}

fn not_made(refused: &blocks::Refused) -> NotMade {
    let unknown = matches!(refused, blocks::Refused::Set(SetError::Unknown(_)));
    NotMade { unknown, why: refused.to_string(), field: refused.field() }
}

impl Backend for Door {
    fn before(&self, place: u64, filter: &Filter, last: usize) -> Vec<Arc<Exchange>> {
        self.core.recent().before(place, filter, last)
    }

    fn end(&self) -> u64 {
        self.core.recent().end()
    }

    fn since(&self, place: u64, filter: &Filter) -> News {
        let news = self.core.recent().since(place, filter);
        News { calls: news.calls, next: news.next, missed: news.missed }
    }

    fn connections(&self) -> Result<Vec<ConnectionRow>, Unavailable> {
        let clock = Offset::new();
        let rows = self.core.connections().map_err(|error| unavailable(&error))?.into_iter();
        let rows = rows.filter(|open| !open.connection.own).map(|open| ConnectionRow {
            opened_unix_ns: clock.unix_ns(open.connection.connection.opened_at),
            last_unix_ns: clock.unix_ns(open.connection.last_at),
            connection: open.connection,
            service: self.shown(&open.service),
            peer: open.peer.map(|peer| self.shown(&peer)),
            ambiguous: open.ambiguous,
        });
        Ok(rows.collect())
    }

    fn services(&self) -> Result<Vec<ServiceRow>, Unavailable> {
        let clock = Offset::new();
        let (services, _) = self.core.services().map_err(|error| unavailable(&error))?;
        let rows = services.into_iter().map(|seen| ServiceRow {
            service: self.shown(&seen.service),
            processes: seen.processes,
            pids: seen.pids.into_iter().collect(),
            first_unix_ns: clock.unix_ns(seen.first),
            last_unix_ns: clock.unix_ns(seen.last),
        });
        Ok(rows.collect())
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        self.core.metrics.endpoints()
    }

    fn graph(&self, form: Form, since: Option<u64>, width: Option<usize>) -> Result<String, Unavailable> {
        let form = match form {
            Form::Text => return Ok(self.core.graph_now(since).text(width)),
            Form::Json => Format::Json,
            Form::Dot => Format::Dot,
            Form::Mermaid => Format::Mermaid,
        };
        self.core.graph_now(since).render(form).map_err(|error| Unavailable(error.to_string()))
    }

    fn stats(&self) -> Result<Value, Unavailable> {
        let mut stats = serde_json::to_value(self.core.stats()).map_err(|error| Unavailable(error.to_string()))?;
        let recent = self.core.recent().stats();
        let exported = self.core.exported.iter().map(
            |(signal, outcome, count)| json!({ "signal": signal.as_str(), "result": outcome.as_str(), "count": count }),
        );
        if let Some(document) = stats.as_object_mut() {
            document.insert("version".into(), env!("CARGO_PKG_VERSION").into());
            document.insert("pid".into(), std::process::id().into());
            document.insert("exported".into(), exported.collect());
            document.insert(
                "recent".into(),
                json!({
                    "calls": recent.calls,
                    "bytes": recent.bytes,
                    "limit": recent.limit,
                    "oldest": recent.oldest_unix_ns.map(time),
                    "disk": recent.disk.map(|disk| json!({
                        "path": disk.path, "calls": disk.calls, "bytes": disk.bytes, "limit": disk.limit,
                        "lost": disk.lost, "error": disk.error,
                    })),
                }),
            );
        }
        Ok(stats)
    }

    fn doctor(&self) -> Result<Value, Unavailable> {
        serde_json::to_value(self.core.doctor()).map_err(|error| Unavailable(error.to_string()))
    }

    fn blocks(&self) -> Vec<Value> {
        self.core.blocks.list()
    }

    fn explain(&self, id: &str) -> Result<Value, NotMade> {
        self.core.blocks.explain(id, self.core.recent()).map_err(|refused| not_made(&refused))
    }

    fn mode(&self) -> Value {
        self.shown_mode(self.core.blocks.mode())
    }

    fn change(&self, who: &str, pid: Option<u32>, change: Change) -> Result<Value, NotMade> {
        let blocks = &self.core.blocks;
        if matches!(change, Change::Add(_) | Change::Mode(_)) {
            blocks.admin(pid);
        }
        let made = match change {
            Change::Add(rule) => blocks.add(who, rule),
            Change::Rehearse(rule) => blocks.rehearse(who, rule, self.core.recent()),
            Change::Remove(id) => blocks.remove(who, &id),
            Change::Mode(mode) => blocks.set_mode(who, &mode).map(|told| self.shown_mode(told)),
        };
        if made.is_ok() {
            blocks.settle();
        }
        made.map_err(|refused| not_made(&refused))
    }

    fn reload(&self, who: &str) -> Result<Vec<String>, String> {
        let reloaded = self.runtime.block_on(self.core.reload(who));
        reloaded
            .map(|warnings| warnings.iter().map(ToString::to_string).collect())
            .map_err(|refused| format!("configuration refused, everything stays as it was:\n{refused}"))
    }
}
