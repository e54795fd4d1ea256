//! Applications that export spans of their own: what Weir tells beside them, so that no call is there twice.
//!
//! A process is known as one by its own OTLP traffic in clear: a `POST …/v1/traces`, or the first `Export` of a connection of
//! gRPC, that was accepted. One that also receives such requests passes on what others say, and says nothing of itself.

use std::collections::{HashMap, HashSet};
use std::hash::Hasher as _;
use std::sync::Arc;

use siphasher::sip128::{Hasher128 as _, SipHasher13};

use crate::config::Instrumented;
use crate::model::{Exchange, Http, Kind, Link, Operation, Process, Role, Service};

/// Processes that are known at once; when there are more, all are learned anew.
const PROCESSES: usize = 4096;
/// Paths of OTLP over HTTP (OTLP specification, "OTLP/HTTP Request").
const TRACES: &str = "/v1/traces";
const SIGNALS: [&str; 3] = [TRACES, "/v1/metrics", "/v1/logs"];
const LINKED: &[u8; 16] = b"weir linked tr01";

/// What becomes of a call's span.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// It is exported as it is.
    AsIs,
    /// The application tells it.
    ByApplication,
    /// It is exported under another parent: its own is told by the application, or by nobody.
    Under(Option<[u8; 8]>),
    /// It is exported in this trace, under this parent, with a link to the span that the request names.
    Beside([u8; 16], Option<[u8; 8]>),
}

/// Who exports spans of their own.
#[derive(Debug, Default)]
pub(super) struct Instruments {
    exporting: HashMap<u32, Process>,
    forwarding: HashSet<u32>,
}

impl Instruments {
    /// Looks at a call before anything is taken out of it.
    pub(super) fn heed(&mut self, exchange: &Exchange) {
        let Operation::Http(http) = &exchange.call.operation;
        if http.method.as_str() != "POST" || !goes_to(http, &[TRACES]) {
            return;
        }
        match exchange.kind {
            Kind::Server => self.takes(&exchange.service),
            Kind::Client if http.status.is_some_and(|status| (200..300).contains(&status)) => {
                self.sends(&exchange.service);
            }
            Kind::Client => {}
        }
    }

    /// Takes that an export by gRPC was accepted, as one end of its connection saw it.
    pub(super) fn exports_by_grpc(&mut self, role: Role, service: &Service) {
        match role {
            Role::Server => self.takes(service),
            Role::Client => self.sends(service),
            Role::Unknown => {}
        }
    }

    fn takes(&mut self, service: &Service) {
        let Some(process) = numbered(service) else { return };
        if self.forwarding.len() >= PROCESSES {
            self.forwarding.clear();
        }
        self.forwarding.insert(process.pid);
    }

    fn sends(&mut self, service: &Service) {
        let Some(process) = numbered(service) else { return };
        if self.exporting.len() >= PROCESSES {
            self.exporting.clear();
        }
        self.exporting.insert(process.pid, process.clone());
    }

    /// What becomes of a call's span.
    pub(super) fn told(&self, exchange: &Exchange, how: Instrumented) -> Told {
        let Operation::Http(http) = &exchange.call.operation;
        let outside = http.context.map(|context| context.span);
        match how {
            Instrumented::Parent => Told::AsIs,
            Instrumented::Link => http.context.map_or(Told::AsIs, |context| {
                Told::Beside(beside(context.trace), exchange.ids.parent.filter(|parent| Some(*parent) != outside))
            }),
            Instrumented::Silent => {
                // Without a context, the application's library does not tell this call.
                let by_client = outside.is_some() || goes_to(http, &SIGNALS);
                let own = self.exports(&exchange.service);
                match exchange.kind {
                    Kind::Server if own => Told::ByApplication,
                    Kind::Client if own && by_client => Told::ByApplication,
                    Kind::Client if own && exchange.ids.parent.is_some() => Told::Under(None),
                    Kind::Server
                        if exchange.mirror.is_some()
                            && by_client
                            && exchange.peer.as_ref().is_some_and(|peer| self.exports(peer)) =>
                    {
                        Told::Under(outside)
                    }
                    Kind::Client | Kind::Server => Told::AsIs,
                }
            }
        }
    }

    fn exports(&self, service: &Service) -> bool {
        let Some(process) = &service.process else { return false };
        // A number that another program has now is not the same process.
        let same = |known: &Process| {
            known.ppid == process.ppid
                && known.executable_path == process.executable_path
                && known.command_line == process.command_line
        };
        !self.forwarding.contains(&process.pid) && self.exporting.get(&process.pid).is_some_and(same)
    }
}

impl Told {
    /// The call as it is exported.
    pub(super) fn apply(self, call: &Arc<Exchange>) -> Option<Arc<Exchange>> {
        let changed = |change: &dyn Fn(&mut Exchange)| {
            let mut exchange = Exchange::clone(call);
            change(&mut exchange);
            Arc::new(exchange)
        };
        match self {
            Self::AsIs => Some(Arc::clone(call)),
            Self::ByApplication => None,
            Self::Under(parent) => Some(changed(&|exchange| exchange.ids.parent = parent)),
            Self::Beside(trace, parent) => Some(changed(&|exchange| {
                exchange.ids.trace = trace;
                exchange.ids.parent = parent;
                let Operation::Http(http) = &exchange.call.operation;
                exchange.ids.link = http.context.map(|context| Link { trace: context.trace, span: context.span });
            })),
        }
    }
}

/// A service's process, where it is known.
fn numbered(service: &Service) -> Option<&Process> {
    service.process.as_ref().filter(|process| process.pid != 0)
}

fn goes_to(http: &Http, paths: &[&str]) -> bool {
    let path = http.target.split(['?', '#']).next().unwrap_or_default();
    paths.iter().any(|known| path.ends_with(known))
}

/// The trace beside one of an application: the same for all of its calls, on every node.
fn beside(trace: [u8; 16]) -> [u8; 16] {
    let mut hasher = SipHasher13::new_with_key(LINKED);
    hasher.write(&trace);
    match hasher.finish128().as_bytes() {
        // An id of zeros is none (W3C Trace Context §3.2.2.3).
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0] => [1; 16],
        id => id,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Method, TraceContext, example};

    fn service(pid: u32) -> Arc<Service> {
        let process = Process { pid, command_line: Some(format!("app {pid}").into()), ..Process::default() };
        Arc::new(Service { process: Some(process), ..Service::unknown() })
    }

    fn call(kind: Kind, pid: u32, peer: u32, context: bool) -> Exchange {
        let mut call = example::exchange(kind);
        (call.service, call.peer) = (service(pid), Some(service(peer)));
        call.mirror = Some(Arc::clone(&call.connection));
        let Operation::Http(http) = &mut call.call.operation;
        http.context = context.then_some(TraceContext { trace: [7; 16], span: [9; 8], flags: 1 });
        call.ids.parent = match kind {
            Kind::Server => Some([3; 8]),
            Kind::Client => context.then_some([9; 8]),
        };
        call
    }

    fn export(kind: Kind, pid: u32, status: u16) -> Exchange {
        let mut call = call(kind, pid, 99, false);
        let Operation::Http(http) = &mut call.call.operation;
        (http.method, http.target, http.status) = (Method::Known("POST"), "/otlp/v1/traces".into(), Some(status));
        call
    }

    #[test]
    fn who_exports_is_not_told_twice() {
        let mut all = Instruments::default();
        let silent = |all: &Instruments, call: &Exchange| all.told(call, Instrumented::Silent);
        all.heed(&export(Kind::Client, 5, 503));
        assert_eq!(silent(&all, &call(Kind::Server, 5, 6, false)), Told::AsIs);
        all.heed(&export(Kind::Client, 5, 200));
        for (call, told) in [
            (call(Kind::Server, 5, 6, false), Told::ByApplication),
            (call(Kind::Client, 5, 6, true), Told::ByApplication),
            (export(Kind::Client, 5, 200), Told::ByApplication),
            // Its library does not tell this one; whom it calls is told under its span, or alone.
            (call(Kind::Client, 5, 6, false), Told::AsIs),
            (call(Kind::Server, 6, 5, true), Told::Under(Some([9; 8]))),
            (call(Kind::Server, 6, 5, false), Told::AsIs),
            (export(Kind::Server, 6, 200), Told::AsIs),
            (call(Kind::Client, 6, 5, true), Told::AsIs),
        ] {
            assert_eq!(silent(&all, &call), told, "{call:?}");
        }
        let mut received = export(Kind::Server, 6, 200);
        received.peer = Some(service(5));
        assert_eq!(silent(&all, &received), Told::Under(None));
        // Another program under the same number; one that passes on what it receives.
        let mut other = call(Kind::Server, 5, 6, false);
        other.service =
            Arc::new(Service { process: Some(Process { pid: 5, ..Process::default() }), ..Service::unknown() });
        assert_eq!(silent(&all, &other), Told::AsIs);
        all.heed(&export(Kind::Server, 5, 200));
        assert_eq!(silent(&all, &call(Kind::Server, 5, 6, false)), Told::AsIs);
        // The same by gRPC.
        all.exports_by_grpc(Role::Client, &service(7));
        assert_eq!(silent(&all, &call(Kind::Server, 7, 6, false)), Told::ByApplication);
        all.exports_by_grpc(Role::Server, &service(7));
        assert_eq!(silent(&all, &call(Kind::Server, 7, 6, false)), Told::AsIs);
    }

    #[test]
    fn linked_calls_stand_beside_the_application_s_trace() {
        let all = Instruments::default();
        let trace = beside([7; 16]);
        let link = |call: &Exchange| all.told(call, Instrumented::Link);
        assert_eq!(link(&call(Kind::Client, 5, 6, true)), Told::Beside(trace, None));
        assert_eq!(link(&call(Kind::Server, 6, 5, true)), Told::Beside(trace, Some([3; 8])));
        assert_eq!(link(&call(Kind::Server, 6, 5, false)), Told::AsIs);
        assert_eq!(all.told(&call(Kind::Client, 5, 6, true), Instrumented::Parent), Told::AsIs);
    }

    #[test]
    fn the_table_is_bounded() {
        let mut all = Instruments::default();
        for pid in 1..3 * PROCESSES as u32 {
            all.heed(&export(Kind::Client, pid, 200));
            all.heed(&export(Kind::Server, pid + 100_000, 200));
        }
        assert!(all.exporting.len() <= PROCESSES && all.forwarding.len() <= PROCESSES);
    }
}
