//! Calls written one behind the other: plain rows, their texts, and once each what several of them share.

use std::{net::IpAddr, ops::Range, sync::Arc};

use super::memory::Places;
use crate::model::{
    Call, Connection, End, Exchange, Http, Ids, Kind, Message, Method, Operation, Process, Service, Thread,
    TraceContext, Verdict, Version,
};

/// What the allocator adds to a block, and what a reference-counted block begins with: two words each.
const BLOCK: usize = 16;
/// The index of nothing.
const NONE: u32 = u32::MAX;

/// Calls, by consecutive numbers.
#[derive(Debug)]
pub(super) struct Rows {
    /// Number of the first.
    first: u64,
    calls: Vec<Row>,
    /// Method (unless known), target, host and user agent of each call.
    texts: String,
    connections: Vec<Arc<Connection>>,
    services: Vec<Arc<Service>>,
    routes: Vec<Arc<str>>,
    /// Of calls that a rule met, by their place.
    verdicts: Vec<(u32, Verdict)>,
    /// Bytes of what is shared.
    shared: usize,
}

/// A call but for its texts and what it shares. Nothing of it is to be freed.
#[derive(Debug)]
struct Row {
    ids: Ids,
    request: Message,
    response: Option<Message>,
    start_unix_ns: u64,
    by: Thread,
    context: Option<TraceContext>,
    client: Option<IpAddr>,
    end: End,
    error: Option<&'static str>,
    /// Absent: in the texts.
    method: Option<&'static str>,
    /// Where its texts start.
    texts: usize,
    /// Bytes of its method, target, host and user agent; [`NONE`]: it has none.
    lengths: [u32; 4],
    connection: u32,
    mirror: u32,
    service: u32,
    peer: u32,
    via: u32,
    route: u32,
    status: Option<u16>,
    unclear: u16,
    kind: Kind,
    version: Version,
    pipelined: bool,
    truncated: bool,
    elsewhere: bool,
}

impl Rows {
    /// Without calls; with room for a little more than is in one `like` it.
    pub(super) fn new(first: u64, like: Option<&Self>) -> Self {
        let room = |of: fn(&Self) -> usize| like.map_or(0, |like| of(like) + of(like) / 8);
        Self {
            first,
            calls: Vec::with_capacity(room(|like| like.calls.len())),
            texts: String::with_capacity(room(|like| like.texts.len())),
            connections: Vec::with_capacity(room(|like| like.connections.len())),
            services: Vec::with_capacity(room(|like| like.services.len())),
            routes: Vec::with_capacity(room(|like| like.routes.len())),
            verdicts: Vec::new(),
            shared: 0,
        }
    }

    /// Nothing is added any more: room that is left is given back.
    pub(super) fn close(&mut self) {
        self.calls.shrink_to_fit();
        self.texts.shrink_to_fit();
        self.connections.shrink_to_fit();
        self.services.shrink_to_fit();
        self.routes.shrink_to_fit();
        self.verdicts.shrink_to_fit();
    }

    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Number of the call behind the last.
    pub(super) fn end(&self) -> u64 {
        self.first + self.calls.len() as u64
    }

    pub(super) fn oldest_unix_ns(&self) -> Option<u64> {
        self.calls.first().map(|row| row.start_unix_ns)
    }

    /// Bytes in use, with what the allocator adds.
    pub(super) fn bytes(&self) -> usize {
        // Of the ring of blocks, which doubles when it grows.
        2 * size_of::<Self>()
            + heap(self.calls.capacity() * size_of::<Row>())
            + heap(self.texts.capacity())
            + heap(self.connections.capacity() * size_of::<usize>())
            + heap(self.services.capacity() * size_of::<usize>())
            + heap(self.routes.capacity() * size_of::<Arc<str>>())
            + heap(self.verdicts.capacity() * size_of::<(u32, Verdict)>())
            + self.shared
    }

    /// Writes a call. `places` are those of this block.
    pub(super) fn push(&mut self, exchange: &Exchange, places: &mut Places) {
        let Call { operation: Operation::Http(http), request, response, end, error, pipelined, truncated } =
            &exchange.call;
        let method = match &http.method {
            Method::Known(name) => (Some(*name), None),
            Method::Other(name) => (None, Some(&**name)),
        };
        let texts = self.texts.len();
        let lengths =
            [method.1, Some(&*http.target), http.host.as_deref(), http.user_agent.as_deref()].map(|text| match text {
                None => NONE,
                Some(text) => {
                    self.texts.push_str(text);
                    text.len() as u32
                }
            });
        let Self { connections, services, routes, shared, .. } = self;
        let mut connection = |it: &Arc<Connection>| place(it, connections, places, shared, connection_bytes);
        let (connection, mirror) =
            (connection(&exchange.connection), exchange.mirror.as_ref().map_or(NONE, &mut connection));
        let mut service = |it: &Arc<Service>| place(it, services, places, shared, service_bytes);
        let mut some = |other: &Option<Arc<Service>>| other.as_ref().map_or(NONE, &mut service);
        let (peer, via) = (some(&exchange.peer), some(&exchange.via));
        let service = service(&exchange.service);
        let route = http.route.as_ref().map_or(NONE, |route| place(route, routes, places, shared, text_bytes));
        if exchange.verdict != Verdict::Allowed {
            self.verdicts.push((self.calls.len() as u32, exchange.verdict.clone()));
        }
        self.calls.push(Row {
            ids: exchange.ids,
            request: *request,
            response: *response,
            start_unix_ns: exchange.start_unix_ns,
            by: exchange.by,
            context: http.context,
            client: exchange.client,
            end: *end,
            error: *error,
            method: method.0,
            texts,
            lengths,
            connection,
            mirror,
            service,
            peer,
            via,
            route,
            status: http.status,
            unclear: http.unclear,
            kind: exchange.kind,
            version: http.version,
            pipelined: *pipelined,
            truncated: *truncated,
            elsewhere: exchange.elsewhere,
        });
    }

    /// Calls numbered below `before`, newest first, each with its number.
    pub(super) fn below(&self, before: u64) -> impl Iterator<Item = (u64, Exchange)> {
        self.numbered(self.first..before.clamp(self.first, self.end())).rev()
    }

    /// Calls numbered from `from`, oldest first, each with its number.
    pub(super) fn from(&self, from: u64) -> impl Iterator<Item = (u64, Exchange)> {
        self.numbered(from.clamp(self.first, self.end())..self.end())
    }

    fn numbered(&self, numbers: Range<u64>) -> impl DoubleEndedIterator<Item = (u64, Exchange)> {
        numbers.filter_map(|number| Some((number, self.exchange((number - self.first) as usize)?)))
    }

    /// The call at a place.
    fn exchange(&self, at: usize) -> Option<Exchange> {
        let row = self.calls.get(at)?;
        let mut rest = self.texts.get(row.texts..)?;
        let [method, target, host, user_agent] = row.lengths.map(|length| {
            // What is absent has more bytes than there are.
            let (text, more) = rest.split_at_checked(length as usize)?;
            rest = more;
            Some(Box::<str>::from(text))
        });
        let http = Http {
            method: row.method.map_or_else(|| Method::Other(method.unwrap_or_default()), Method::Known),
            target: target.unwrap_or_default(),
            route: self.routes.get(row.route as usize).cloned(),
            host,
            version: row.version,
            status: row.status,
            context: row.context,
            forwarded: None,
            way: None,
            user_agent,
            request_id: None,
            sent: None,
            unclear: row.unclear,
        };
        let verdict = self.verdicts.binary_search_by_key(&(at as u32), |(at, _)| *at).ok();
        Some(Exchange {
            ids: row.ids,
            kind: row.kind,
            call: Call {
                operation: Operation::Http(http),
                request: row.request,
                response: row.response,
                end: row.end,
                error: row.error,
                pipelined: row.pipelined,
                truncated: row.truncated,
            },
            connection: self.connections.get(row.connection as usize)?.clone(),
            by: row.by,
            service: self.services.get(row.service as usize)?.clone(),
            mirror: self.connections.get(row.mirror as usize).cloned(),
            elsewhere: row.elsewhere,
            peer: self.services.get(row.peer as usize).cloned(),
            via: self.services.get(row.via as usize).cloned(),
            client: row.client,
            start_unix_ns: row.start_unix_ns,
            verdict: verdict.and_then(|at| self.verdicts.get(at)).map_or(Verdict::Allowed, |(_, it)| it.clone()),
        })
    }
}

/// Where something shared is in its list; it is added where it is not there yet.
fn place<T: ?Sized>(
    it: &Arc<T>,
    list: &mut Vec<Arc<T>>,
    places: &mut Places,
    shared: &mut usize,
    bytes: fn(&T) -> usize,
) -> u32 {
    *places.entry(Arc::as_ptr(it).addr()).or_insert_with(|| {
        list.push(Arc::clone(it));
        *shared += 2 * BLOCK + bytes(it);
        (list.len() - 1) as u32
    })
}

/// Bytes of a heap block that holds `len` bytes; none for an empty one.
fn heap(len: usize) -> usize {
    if len == 0 { 0 } else { BLOCK + len }
}

/// Bytes of a reference-counted text.
fn arc(text: Option<&Arc<str>>) -> usize {
    text.map_or(0, |text| 2 * BLOCK + text.len())
}

fn text_bytes(text: &str) -> usize {
    text.len()
}

fn connection_bytes(_: &Connection) -> usize {
    size_of::<Connection>()
}

fn service_bytes(service: &Service) -> usize {
    let process = |process: &Process| {
        arc(process.executable_name.as_ref())
            + arc(process.executable_path.as_ref())
            + arc(process.command_line.as_ref())
            + arc(process.cgroup.as_ref())
    };
    size_of::<Service>()
        + arc(Some(&service.name))
        + arc(service.namespace.as_ref())
        + arc(service.container_id.as_ref())
        + arc(service.unit.as_ref())
        + service.process.as_ref().map_or(0, process)
        + service.attributes.capacity() * size_of::<(Arc<str>, Arc<str>)>()
        + service.attributes.iter().map(|(key, value)| arc(Some(key)) + arc(Some(value))).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{
        Link,
        sample::{exchange, http},
    };

    #[test]
    fn calls_come_back_as_they_were() {
        let first = exchange(Kind::Server);
        let mut bare = exchange(Kind::Client);
        (bare.peer, bare.client, bare.call.response, bare.call.error) = (None, None, None, Some("timeout"));
        bare.call.end = End::Lost("ring_full");
        bare.verdict = Verdict::WouldDrop { rule: "b1".into(), reason: "test".into() };
        (http(&mut bare).route, http(&mut bare).host, http(&mut bare).user_agent) = (None, None, None);
        (http(&mut bare).target, http(&mut bare).status) = ("".into(), None);
        let mut full = Exchange { mirror: Some(first.connection.clone()), via: first.peer.clone(), ..first.clone() };
        full.ids.link = Some(Link { trace: [3; 16], span: [4; 8] });
        (full.call.pipelined, full.call.truncated, full.elsewhere) = (true, true, true);
        full.verdict = Verdict::Dropped { rule: "b2".into(), reason: String::new().into() };
        http(&mut full).method = Method::Other("BREW".into());
        http(&mut full).host = Some("".into());
        http(&mut full).user_agent = Some("curl/8 \u{e4}".into());
        http(&mut full).unclear = 9;
        let calls = [first, bare, full];
        let (mut rows, mut places) = (Rows::new(7, None), Places::default());
        for call in &calls {
            rows.push(call, &mut places);
        }
        let told = |calls: &[Exchange]| calls.iter().map(|call| format!("{call:?}")).collect::<Vec<_>>();
        let (numbers, all): (Vec<_>, Vec<_>) = rows.from(0).unzip();
        assert_eq!((numbers, told(&all)), (vec![7, 8, 9], told(&calls)));
        assert_eq!(rows.below(9).map(|(number, _)| number).collect::<Vec<_>>(), [8, 7]);
        assert_eq!(rows.from(9).map(|(number, _)| number).collect::<Vec<_>>(), [9]);
        // The last one shares the first one's connection and services, also as its other ends.
        assert_eq!((rows.connections.len(), rows.services.len(), rows.verdicts.len()), (2, 3, 2));
    }
}
