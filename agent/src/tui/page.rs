//! Pages: what each asks the agent, and what it shows of the answers.

use std::fmt::Write as _;

use super::pages::{calls, connections, drops, edges, endpoints, ledger, services};
use super::rates::Rates;
use super::table::{Sort, Table};
use super::wire::{self, Answer};
use crate::model::shown::harmless;

/// A service, as the agent names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Name {
    /// semconv `service.name`.
    pub(super) name: String,
    /// semconv `service.namespace`.
    pub(super) namespace: Option<String>,
}

impl Name {
    /// Of an object with `service.name` and `service.namespace` at a JSON pointer.
    pub(super) fn at(value: &serde_json::Value, pointer: &str) -> Option<Self> {
        let value = value.pointer(pointer)?;
        let text = |key| wire::text(value, key).map(str::to_owned);
        Some(Self { name: text("/service.name")?, namespace: text("/service.namespace") })
    }

    /// Whether it is a service, and not somebody known by address or not at all (CONTRACT "An edge").
    pub(super) fn is_service(&self) -> bool {
        self.name != "unknown" && !self.name.starts_with("external:")
    }
}

/// Which calls.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Calls {
    /// Those of an edge.
    Edge {
        client: Name,
        server: Name,
        port: u64,
        /// The server's end is observed: its side of the calls is shown, else the client's.
        by_server: bool,
    },
    /// Those of an endpoint.
    Endpoint { service: Name, server_side: bool, method: Option<String>, route: Option<String> },
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Page {
    Services,
    Endpoints,
    Edges,
    Connections,
    Drops,
    Ledger,
    /// Endpoints and edges of a service.
    Service(Name),
    /// Calls.
    Calls(Calls),
}

/// Pages that have a key of their own, in order.
pub(super) const TABS: [Page; 6] =
    [Page::Services, Page::Endpoints, Page::Edges, Page::Connections, Page::Drops, Page::Ledger];

/// When and on what it is looked.
pub(super) struct Look<'a> {
    /// Nanoseconds since the Unix epoch.
    pub(super) now_unix_ns: u64,
    /// Counts at the last look.
    pub(super) rates: &'a mut Rates,
}

impl Page {
    /// What it is called.
    pub(super) fn title(&self) -> String {
        match self {
            Self::Services => "Services".into(),
            Self::Endpoints => "Endpoints".into(),
            Self::Edges => "Edges".into(),
            Self::Connections => "Connections".into(),
            Self::Drops => "Drops".into(),
            Self::Ledger => "Ledger".into(),
            Self::Service(name) => harmless(&name.name),
            Self::Calls(which) => harmless(&which.title()),
        }
    }

    /// What is asked for it, beside `/v1/stats`.
    pub(super) fn targets(&self) -> Vec<String> {
        let targets: &[&str] = match self {
            Self::Services => &["/v1/services", "/v1/endpoints"],
            Self::Endpoints => &["/v1/endpoints"],
            Self::Edges => &["/v1/graph"],
            Self::Connections => &["/v1/connections"],
            Self::Drops => &["/v1/blocks", "/v1/mode"],
            Self::Ledger => &[],
            Self::Service(_) => &["/v1/endpoints", "/v1/graph"],
            Self::Calls(which) => return vec![which.target()],
        };
        targets.iter().map(|&target| target.to_owned()).collect()
    }

    /// What it shows of the answers to [`Page::targets`] and to `/v1/stats`.
    pub(super) fn tables(&self, answers: &[Answer], stats: &Answer, look: &mut Look<'_>) -> Vec<Table> {
        let nothing = Answer::default();
        let answer = |place: usize| answers.get(place).unwrap_or(&nothing);
        let mut tables = match self {
            Self::Services => vec![services::table(answer(0), answer(1), look)],
            Self::Endpoints => vec![endpoints::table(answer(0), None, look)],
            Self::Edges => vec![edges::table(answer(0), None, look)],
            Self::Connections => vec![connections::table(answer(0), look)],
            Self::Drops => drops::tables(answer(0), answer(1), look),
            Self::Ledger => ledger::tables(stats.document(), look),
            Self::Service(name) => {
                vec![endpoints::table(answer(0), Some(name), look), edges::table(answer(1), Some(name), look)]
            }
            Self::Calls(which) => vec![calls::table(answer(0), which)],
        };
        tables.iter_mut().for_each(Table::tell_apart);
        tables
    }

    /// How it is ordered until its user wants otherwise; `None`: as it comes.
    pub(super) fn sort(&self) -> Option<Sort> {
        let heading = match self {
            Self::Services => "IN",
            Self::Endpoints | Self::Edges | Self::Connections | Self::Service(_) => "CALLS",
            Self::Drops => "HITS",
            Self::Ledger | Self::Calls(_) => return None,
        };
        Some(Sort { heading, reverse: false })
    }

    /// What is said where there are no rows.
    pub(super) fn empty(&self) -> &'static str {
        match self {
            Self::Services => "no service was seen yet",
            Self::Endpoints | Self::Edges | Self::Service(_) => "no call was seen yet",
            Self::Connections => "no connection is open",
            Self::Drops => "no rules; weir block add makes one",
            Self::Ledger => "nothing is told",
            Self::Calls(_) => "no such call is kept; only HTTP/1 calls are kept, the newest of them",
        }
    }
}

/// Calls that are asked for at most.
const LAST: usize = 1000;

impl Calls {
    fn title(&self) -> String {
        match self {
            Self::Edge { client, server, port, .. } => format!("{} → {}:{port}", client.name, server.name),
            Self::Endpoint { service, server_side, method, route } => {
                let side = if *server_side { "←" } else { "→" };
                let method = method.as_deref().unwrap_or("others");
                format!("{} {side} {method} {}", service.name, route.as_deref().unwrap_or_default()).trim_end().into()
            }
        }
    }

    /// What the agent is asked; what it gives is looked through again (`calls::table`), as `*` stands for any text there.
    fn target(&self) -> String {
        let mut target = format!("/v1/calls?last={LAST}");
        let mut add = |key: &str, value: &str| {
            let _ = write!(target, "&{key}=");
            for byte in value.bytes() {
                let _ = write!(target, "%{byte:02X}");
            }
        };
        match self {
            Self::Edge { client, server, by_server, .. } => {
                let (own, peer, kind) =
                    if *by_server { (server, client, "server") } else { (client, server, "client") };
                add("kind", kind);
                add("service", &own.name);
                if peer.is_service() {
                    add("peer", &peer.name);
                }
            }
            Self::Endpoint { service, server_side, method, route } => {
                add("kind", if *server_side { "server" } else { "client" });
                add("service", &service.name);
                // Methods that are not standard are counted together, and kept by their own name.
                if let Some(method) = method.as_deref().filter(|method| *method != "_OTHER") {
                    add("method", method);
                }
                if let Some(route) = route {
                    add("route", route);
                }
            }
        }
        target
    }
}
