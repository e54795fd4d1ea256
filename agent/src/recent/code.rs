//! A call as bytes, for the disk: its fields in order. Whoever changes a field changes [`VERSION`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use weir_common::conn::Owner;

use super::bytes::{In, Out};
use crate::model::{
    Call, Connection, End, Evidence, Exchange, Http, Ids, Kind, Link, Message, Method, Operation, Process, Role,
    Service, Stamp, TraceContext, Verdict, Version,
};

/// Of this layout; part of the table's name.
pub(super) const VERSION: u32 = 3;

/// Appends a call.
pub(super) fn encode(exchange: &Exchange, out: &mut Vec<u8>) {
    let mut out = Out(out);
    out.bytes(&exchange.ids.trace);
    out.bytes(&exchange.ids.span);
    out.option(exchange.ids.parent.as_ref(), |out, parent| out.bytes(parent));
    out.option(exchange.ids.link, |out, link| {
        out.bytes(&link.trace);
        out.bytes(&link.span);
    });
    out.flag(exchange.kind == Kind::Server);
    encode_call(&exchange.call, &mut out);
    encode_connection(&exchange.connection, &mut out);
    out.thread(exchange.by);
    encode_service(&exchange.service, &mut out);
    out.option(exchange.mirror.as_deref(), |out, mirror| encode_connection(mirror, out));
    out.option(exchange.peer.as_deref(), |out, peer| encode_service(peer, out));
    out.option(exchange.via.as_deref(), |out, via| encode_service(via, out));
    out.option(exchange.client, |out, client| out.address(SocketAddr::new(client, 0)));
    out.number(exchange.start_unix_ns);
    match &exchange.verdict {
        Verdict::Allowed => out.number(0),
        Verdict::WouldDrop { rule, reason } | Verdict::Dropped { rule, reason } => {
            out.number(if matches!(exchange.verdict, Verdict::Dropped { .. }) { 2 } else { 1 });
            out.text(rule);
            out.text(reason);
        }
    }
}

/// Takes a call from the front of `bytes`; `None`: they are not one.
pub(super) fn decode(bytes: &mut &[u8]) -> Option<Exchange> {
    let mut from = In(bytes);
    Some(Exchange {
        ids: Ids {
            trace: from.array()?,
            span: from.array()?,
            parent: from.option(In::array)?,
            link: from.option(|from| Some(Link { trace: from.array()?, span: from.array()? }))?,
        },
        kind: if from.flag()? { Kind::Server } else { Kind::Client },
        call: decode_call(&mut from)?,
        connection: Arc::new(decode_connection(&mut from)?),
        by: from.thread()?,
        service: Arc::new(decode_service(&mut from)?),
        mirror: from.option(decode_connection)?.map(Arc::new),
        elsewhere: false,
        peer: from.option(decode_service)?.map(Arc::new),
        via: from.option(decode_service)?.map(Arc::new),
        client: from.option(In::address)?.map(|client| client.ip()),
        start_unix_ns: from.number()?,
        verdict: match from.number()? {
            0 => Verdict::Allowed,
            1 => Verdict::WouldDrop { rule: from.text()?.into(), reason: from.text()?.into() },
            2 => Verdict::Dropped { rule: from.text()?.into(), reason: from.text()?.into() },
            _ => return None,
        },
    })
}

fn encode_call(call: &Call, out: &mut Out<'_>) {
    let Operation::Http(http) = &call.operation;
    out.flag(matches!(http.method, Method::Known(_)));
    out.text(http.method.as_str());
    out.text(&http.target);
    out.option(http.route.as_deref(), Out::text);
    out.option(http.host.as_deref(), Out::text);
    out.flag(http.version == Version::Http11);
    out.number(u64::from(http.status.unwrap_or(0)));
    out.option(http.context.as_ref(), |out, context| {
        out.bytes(&context.trace);
        out.bytes(&context.span);
        out.bytes(&[context.flags]);
    });
    out.option(http.user_agent.as_deref(), Out::text);
    out.number(http.unclear.into());
    encode_message(&call.request, out);
    out.option(call.response.as_ref(), |out, response| encode_message(response, out));
    out.text(call.end.as_str());
    if let End::Lost(reason) = call.end {
        out.text(reason);
    }
    out.option(call.error, Out::text);
    out.flag(call.truncated);
}

fn decode_call(from: &mut In<'_, '_>) -> Option<Call> {
    let known = from.flag()?;
    let method = from.text()?;
    let http = Http {
        method: if known { Method::Known(word(method)) } else { Method::Other(method.into()) },
        target: from.text()?.into(),
        route: from.option(In::text)?.map(Arc::from),
        host: from.option(In::text)?.map(Box::from),
        version: if from.flag()? { Version::Http11 } else { Version::Http10 },
        status: u16::try_from(from.number()?).ok().filter(|status| *status != 0),
        context: from.option(|from| {
            let (trace, span, [flags]) = (from.array()?, from.array()?, from.array()?);
            Some(TraceContext { trace, span, flags })
        })?,
        forwarded: None,
        way: None,
        user_agent: from.option(In::text)?.map(Box::from),
        request_id: None,
        sent: None,
        unclear: u16::try_from(from.number()?).ok()?,
    };
    Some(Call {
        operation: Operation::Http(http),
        request: decode_message(from)?,
        response: from.option(decode_message)?,
        end: match from.text()? {
            "lost" => End::Lost(word(from.text()?)),
            text => *[End::Complete, End::ClientAborted, End::ServerAborted, End::Reset, End::Upgraded, End::InFlight]
                .iter()
                .find(|end| end.as_str() == text)?,
        },
        error: from.option(In::text)?.map(word),
        pipelined: false,
        truncated: from.flag()?,
    })
}

fn encode_message(message: &Message, out: &mut Out<'_>) {
    out.number(message.first.at);
    out.number(u64::from(message.first.seq));
    out.thread(message.first.by);
    // Last bytes follow first ones closely.
    out.number(message.last_at.wrapping_sub(message.first.at));
    out.number(message.wire);
    out.option(message.content, Out::number);
}

fn decode_message(from: &mut In<'_, '_>) -> Option<Message> {
    let first = Stamp { at: from.number()?, seq: from.number()?.try_into().ok()?, by: from.thread()? };
    Some(Message {
        first,
        last_at: from.number()?.wrapping_add(first.at),
        wire: from.number()?,
        content: from.option(In::number)?,
    })
}

fn encode_connection(connection: &Connection, out: &mut Out<'_>) {
    out.number(connection.cookie);
    out.address(connection.local);
    out.address(connection.remote);
    out.number(match connection.role {
        Role::Unknown => 0,
        Role::Client => 1,
        Role::Server => 2,
    });
    let owner = &connection.owner;
    for number in [owner.tgid, owner.tid, owner.uid, u32::from(owner.known)] {
        out.number(u64::from(number));
    }
    out.number(owner.cgroup);
    out.bytes(&owner.comm);
    out.number(connection.netns);
    out.number(connection.opened_at);
    out.flag(connection.midway);
}

fn decode_connection(from: &mut In<'_, '_>) -> Option<Connection> {
    Some(Connection {
        cookie: from.number()?,
        local: from.address()?,
        remote: from.address()?,
        role: match from.number()? {
            0 => Role::Unknown,
            1 => Role::Client,
            2 => Role::Server,
            _ => return None,
        },
        owner: Owner {
            tgid: from.number()?.try_into().ok()?,
            tid: from.number()?.try_into().ok()?,
            uid: from.number()?.try_into().ok()?,
            known: from.number()?.try_into().ok()?,
            reserved: [0; 3],
            cgroup: from.number()?,
            comm: from.array()?,
        },
        netns: from.number()?,
        opened_at: from.number()?,
        midway: from.flag()?,
    })
}

fn encode_service(service: &Service, out: &mut Out<'_>) {
    out.text(&service.name);
    out.option(service.namespace.as_deref(), Out::text);
    out.text(service.evidence.as_str());
    out.option(service.process.as_ref(), |out, process| {
        out.number(u64::from(process.pid));
        out.number(u64::from(process.ppid));
        out.option(process.uid, |out, uid| out.number(u64::from(uid)));
        out.option(process.executable_name.as_deref(), Out::text);
        out.option(process.executable_path.as_deref(), Out::text);
        out.option(process.command_line.as_deref(), Out::text);
        out.option(process.cgroup.as_deref(), Out::text);
    });
    out.option(service.container_id.as_deref(), Out::text);
    out.option(service.unit.as_deref(), Out::text);
    out.number(service.attributes.len() as u64);
    for (key, value) in &service.attributes {
        out.text(key);
        out.text(value);
    }
}

fn decode_service(from: &mut In<'_, '_>) -> Option<Service> {
    Some(Service {
        name: from.text()?.into(),
        namespace: from.option(In::text)?.map(Arc::from),
        evidence: evidence(from.text()?),
        process: from.option(|from| {
            Some(Process {
                pid: from.number()?.try_into().ok()?,
                ppid: from.number()?.try_into().ok()?,
                uid: from.option(In::number)?.map(u32::try_from).transpose().ok()?,
                executable_name: from.option(In::text)?.map(Arc::from),
                executable_path: from.option(In::text)?.map(Arc::from),
                command_line: from.option(In::text)?.map(Arc::from),
                cgroup: from.option(In::text)?.map(Arc::from),
            })
        })?,
        container_id: from.option(In::text)?.map(Arc::from),
        unit: from.option(In::text)?.map(Arc::from),
        attributes: {
            let count = from.number()?;
            let mut attributes = Vec::new();
            for _ in 0..count {
                attributes.push((from.text()?.into(), from.text()?.into()));
            }
            attributes
        },
    })
}

/// Evidence of another version of Weir is none that this one knows.
fn evidence(text: &str) -> Evidence {
    use Evidence::{
        Comm, Executable, External, KubernetesNode, KubernetesService, OtelResourceAttributes, OtelServiceName,
        PodAnnotation, PodLabel, Rule, Script, Unit, Unknown, Workload,
    };
    [
        Rule,
        OtelServiceName,
        OtelResourceAttributes,
        PodAnnotation,
        PodLabel,
        Workload,
        KubernetesService,
        KubernetesNode,
        Unit,
        Script,
        Executable,
        Comm,
        External,
    ]
    .into_iter()
    .find(|evidence| evidence.as_str() == text)
    .unwrap_or(Unknown)
}

/// The words that were read from disk and that the model holds as `'static` (methods, reasons, error types): a set of
/// the program's own, so it is small. Each is made static once; beyond 256 of them, which no Weir ever wrote, they are
/// all `other`.
fn word(text: &str) -> &'static str {
    static WORDS: Mutex<Vec<&'static str>> = Mutex::new(Vec::new());
    let mut words = WORDS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(word) = words.iter().find(|word| **word == text) {
        return word;
    }
    if words.len() >= 256 || text.len() > 64 {
        return "other";
    }
    let word: &'static str = Box::leak(text.into());
    words.push(word);
    word
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::sample::{exchange, http};

    fn round_trip(exchange: &Exchange) {
        let mut bytes = Vec::new();
        encode(exchange, &mut bytes);
        let decoded = decode(&mut bytes.as_slice()).unwrap();
        assert_eq!(format!("{decoded:?}"), format!("{exchange:?}"));
        for len in 0..bytes.len() {
            assert!(decode(&mut bytes.get(..len).unwrap()).is_none(), "cut at {len}");
        }
    }

    #[test]
    fn calls_survive() {
        round_trip(&exchange(Kind::Server));
        let mut call = exchange(Kind::Client);
        call.ids.parent = Some([7; 8]);
        call.peer = None;
        call.verdict = Verdict::WouldDrop { rule: "b1".into(), reason: "test".into() };
        call.call.response = None;
        call.call.end = End::Lost("ring_full");
        call.call.error = Some("timeout");
        call.call.truncated = true;
        call.start_unix_ns = u64::MAX;
        http(&mut call).method = Method::Other("BREW".into());
        http(&mut call).context = Some(TraceContext { trace: [1; 16], span: [2; 8], flags: 1 });
        http(&mut call).status = None;
        Arc::make_mut(&mut call.service).attributes = vec![("k8s.pod.name".into(), "shop-0".into())];
        round_trip(&call);
        call.verdict = Verdict::Dropped { rule: "b2".into(), reason: String::new().into() };
        Arc::make_mut(&mut call.service).process = None;
        round_trip(&call);
    }

    proptest! {
        #[test]
        fn hostile_bytes_are_refused_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let mut rest = bytes.as_slice();
            let _ = decode(&mut rest);
        }

        #[test]
        fn changed_bytes_are_refused_or_another_call(at in 0usize..400, byte: u8) {
            let mut bytes = Vec::new();
            encode(&exchange(Kind::Server), &mut bytes);
            if let Some(target) = bytes.get_mut(at) {
                *target = byte;
            }
            let _ = decode(&mut bytes.as_slice());
        }
    }
}
