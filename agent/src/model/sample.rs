//! The example call with names: `curl` asks `shop`, which is nginx.

use std::sync::Arc;

use super::{Evidence, Exchange, Http, Kind, Operation, Process, Service, example};

/// 2026-11-23T10:00:00Z.
pub(crate) const START_UNIX_NS: u64 = 1_795_428_000_000_000_000;

/// The call as one of its ends sees it; it takes 8 µs.
pub(crate) fn exchange(kind: Kind) -> Exchange {
    let (shop, curl) = (service("shop", "nginx", 712), service("curl", "curl", 901));
    let (service, peer) = match kind {
        Kind::Server => (shop, curl),
        Kind::Client => (curl, shop),
    };
    Exchange {
        service: Arc::new(service),
        mirror: None,
        elsewhere: false,
        peer: Some(Arc::new(peer)),
        start_unix_ns: START_UNIX_NS,
        ..example::exchange(kind)
    }
}

/// The HTTP part, to be changed.
pub(crate) fn http(exchange: &mut Exchange) -> &mut Http {
    let Operation::Http(http) = &mut exchange.call.operation;
    http
}

fn service(name: &str, executable: &str, pid: u32) -> Service {
    Service {
        name: name.into(),
        evidence: Evidence::Executable,
        process: Some(Process { pid, executable_name: Some(executable.into()), ..Process::default() }),
        ..Service::unknown()
    }
}
