//! The shard: records in, exchanges out.

use std::sync::Arc;

use weir_common::conn::{Known, Owner};
use weir_common::errand::Errand;
use weir_common::record::{Closed, Ended, Head, Opened};

use super::chains::Note;
use super::dialect::Tally;
use super::exchange::Seen;
use super::live::{self, Live, Work};
use super::mirror::Mirror;
use super::settings::Settings;
use super::stream::Room;
use super::table::Table;
use crate::clock::Offset;
use crate::meter::{Count, Meter};
use crate::model::{
    Call, Connection, EndedConnection, Event, Exchange, Hosts, OpenConnection, Role, Service, Thread, Visibility,
};
use crate::proto::{Close, STOPPED, Side};

/// `error.type` and `lost_reason` of calls whose connection left the table for another.
const TABLE_FULL: &str = "connection_table_full";

/// What a worker gives. The caller takes what is in it; a worker only adds.
#[derive(Debug, Default)]
pub struct Output {
    /// Calls, each as soon as it ended.
    pub calls: Vec<Arc<Exchange>>,
    /// Calls that nobody needs any more, given by the caller: new ones take their place, so that whoever made their
    /// texts also frees them, and an allocator has nothing to do between threads.
    pub spare: Vec<Arc<Exchange>>,
    /// Connections that ended without a call.
    pub ended: Vec<EndedConnection>,
    /// Cookies of connections of which records still come though nobody reads them, each once.
    pub foreign: Vec<u64>,
    /// Connections whose client exports spans by gRPC, each once.
    pub exporting: Vec<Arc<Connection>>,
    /// What [`super::Chains`] is to be told, each with the number of `calls` that come before it.
    pub notes: Vec<(usize, Note)>,
}

impl Output {
    fn add(&mut self, exchange: Exchange) {
        if let Some(mut spare) = self.spare.pop()
            && let Some(place) = Arc::get_mut(&mut spare)
        {
            *place = exchange;
            self.calls.push(spare);
        } else {
            self.calls.push(Arc::new(exchange));
        }
    }
}

/// Assembles calls from the records of its connections. Synchronous, without I/O; whoever feeds it must feed all
/// records of a connection to the same worker, in order.
#[derive(Debug)]
pub struct Worker {
    own_pid: u32,
    table: Table,
    mirror: Mirror,
    desk: Desk,
}

/// All of a worker but its tables.
#[derive(Debug)]
struct Desk {
    room: Room,
    meter: Arc<Meter>,
    clock: Arc<Offset>,
    unknown: Arc<Service>,
    /// Other hosts with an agent.
    hosts: Arc<Hosts>,
    /// Calls of the record at hand; empty between records.
    calls: Vec<Call>,
    /// Notes of the record at hand; empty between records.
    notes: Vec<Note>,
    /// Cookies of connections that need time to pass.
    listed: Vec<u64>,
}

impl Desk {
    /// What a connection may use.
    fn work(&mut self) -> Work<'_> {
        Work { room: &mut self.room, calls: &mut self.calls }
    }

    /// Counts what a connection gave up and hands over its calls.
    fn settle(&mut self, live: &mut Live, out: &mut Output) {
        if self.room.given_up > 0 {
            self.meter.add(Count::LostReorder, std::mem::take(&mut self.room.given_up));
        }
        let Tally { skipped, malformed } = live.newly_counted();
        if skipped > 0 {
            self.meter.add(Count::Skipped, skipped);
        }
        if malformed > 0 {
            self.meter.add(Count::MalformedContext, malformed);
        }
        if live.newly_exports() {
            out.exporting.push(Arc::clone(&live.connection));
        }
        live.notes(&self.calls, &mut self.notes);
        out.notes.extend(self.notes.drain(..).map(|note| (out.calls.len(), note)));
        if self.calls.is_empty() {
            return;
        }
        live.calls += self.calls.len() as u64;
        if live.own {
            self.meter.add(Count::FilteredSelf, self.calls.len() as u64);
            self.calls.clear();
            return;
        }
        let elsewhere = live.mirror.is_none() && self.hosts.has(live.connection.remote.ip());
        for call in self.calls.drain(..) {
            let start_unix_ns = self.clock.unix_ns(call.request.first.at);
            let Live { connection, mirror, .. } = live;
            let seen = Seen { connection, mirror, elsewhere, service: &self.unknown, start_unix_ns };
            if let Some(exchange) = seen.exchange(call) {
                out.add(exchange);
            }
        }
    }

    /// Remembers a connection that needs time to pass.
    fn list(&mut self, live: &mut Live) {
        if !live.listed && live.waits() {
            live.listed = true;
            self.listed.push(live.connection.cookie);
        }
    }
}

impl Worker {
    /// A worker without connections. `own_pid`: the agent's process id in the initial pid namespace, whose calls are
    /// left out.
    #[must_use]
    pub fn new(settings: Settings, own_pid: u32, meter: Arc<Meter>, clock: Arc<Offset>) -> Self {
        Self {
            own_pid,
            table: Table::new(),
            mirror: Mirror::default(),
            desk: Desk {
                room: Room { settings, used: 0, given_up: 0 },
                meter,
                clock,
                unknown: Arc::new(Service::unknown()),
                hosts: Arc::default(),
                calls: Vec::new(),
                notes: Vec::new(),
                listed: Vec::new(),
            },
        }
    }

    /// What is at the other end of its connections when that is on one of these hosts is observed there.
    #[must_use]
    pub fn beside(mut self, hosts: Arc<Hosts>) -> Self {
        self.desk.hosts = hosts;
        self
    }

    /// Takes a record.
    pub fn event(&mut self, event: Event<'_>, out: &mut Output) {
        match event {
            Event::Opened(opened) => self.opened(opened, out),
            Event::Bytes(bytes, kept) => {
                let by = Thread { tgid: bytes.tgid, tid: bytes.tid, errand: Errand(bytes.errand) };
                let lost = bytes.head.lost > 0;
                // A FIN without payload may come behind the end of its connection: two processors met the peer's FIN
                // and the acknowledgement of this end's. No message loses a byte by that.
                let payload = u64::from(bytes.segment.len > 0);
                self.run(&bytes.head, payload, out, |live, work| {
                    live.segment(&bytes.segment, kept, by, lost, work);
                });
            }
            Event::Pair(pair, request, response) => {
                let by = Thread { tgid: pair.tgid, tid: pair.tid, errand: Errand(pair.errand) };
                let lost = pair.head.lost > 0;
                self.run(&pair.head, 2, out, |live, work| {
                    if lost {
                        live.catch_up([&pair.request, &pair.response], work);
                    }
                    live.segment(&pair.request, request, by, lost, work);
                    live.segment(&pair.response, response, by, lost, work);
                });
            }
            Event::Closed(closed) => self.closed(closed, out),
            Event::Read(read) => self.run(&read.head, 0, out, |live, _| live.read_by(read.tgid)),
            Event::Asked(asked) => {
                let live = self.table.get_mut(asked.head.conn);
                let note = live.and_then(|live| live.asked(asked.seq, asked.head.at));
                out.notes.extend(note.map(|note| (out.calls.len(), note)));
            }
            Event::Exec(..) | Event::Exit(_) | Event::Dns(..) | Event::Refused(_) => {}
        }
    }

    /// Time passes; to be told a few times a second. `now` is `CLOCK_MONOTONIC` nanoseconds.
    pub fn tick(&mut self, now: u64, out: &mut Output) {
        self.mirror.forget_before(now.saturating_sub(self.desk.room.settings.grace_ns));
        for cookie in std::mem::take(&mut self.desk.listed) {
            if let Some(live) = self.table.get_mut(cookie) {
                live.listed = false;
                live.tick(now, &mut self.desk.work());
                self.desk.settle(live, out);
                self.desk.list(live);
            }
        }
    }

    /// Asks of every connection whether more has become known of who holds it, and of which end it is.
    pub fn correct(&mut self, mut known: impl FnMut(&Connection) -> Option<(Owner, Role)>) {
        for cookie in self.table.cookies() {
            if let Some(live) = self.table.get_mut(cookie)
                && let Some((owner, role)) = known(&live.connection)
            {
                live.correct(owner, role);
            }
        }
    }

    /// The agent stops: calls that are still running end as `in_flight`.
    pub fn finish(&mut self, now: u64, out: &mut Output) {
        for cookie in self.table.cookies() {
            self.end(cookie, Close::Forgotten(STOPPED), now, out);
        }
    }

    /// Every connection as it stands.
    #[must_use]
    pub fn snapshot(&self) -> Vec<OpenConnection> {
        self.table.iter().map(Live::row).collect()
    }

    fn opened(&mut self, opened: &Opened, out: &mut Output) {
        let (cookie, now) = (opened.head.conn, opened.head.at);
        if let Some(live) = self.table.get_mut(cookie) {
            live.learn(opened);
            return;
        }
        while self.table.len() >= self.desk.room.settings.connections.max(1)
            && let Some(idle) = self.table.longest_idle()
        {
            self.desk.meter.add(Count::EvictedConnection, 1);
            self.end(idle, Close::Forgotten(TABLE_FULL), now, out);
        }
        let mut live = Live::new(opened);
        live.own = opened.owner.known != Known::NO.0 && opened.owner.tgid == self.own_pid;
        if let Some(mirror) = self.mirror.enter(&live.connection, live.start, live.own) {
            live.own |= mirror.own;
            if let Some(other) = self.table.get_mut(mirror.connection.cookie) {
                other.mirror = Some(Arc::clone(&live.connection));
                other.own |= mirror.own;
            }
            live.mirror = Some(mirror.connection);
        }
        self.table.insert(cookie, live, now);
    }

    fn closed(&mut self, closed: &Closed, out: &mut Output) {
        let ended = Ended(closed.ended);
        let Some(live) = self.table.get_mut(closed.head.conn) else {
            if ended == Ended::FAILED {
                out.ended.extend(self.failed(closed));
            }
            return;
        };
        if closed.head.lost > 0 {
            live.doubt();
        }
        let role = live.connection.role;
        let close = if ended == Ended::RESET { Close::Reset(reset_by(closed.reset_by, role)) } else { Close::Gone };
        if let Some(live) = self.end(closed.head.conn, close, closed.head.at, out)
            && live.calls == 0
            && !live.own
        {
            let row = live.row();
            out.ended.push(EndedConnection {
                connection: row.connection,
                established: true,
                mirror: row.mirror,
                protocol: row.protocol,
                visibility: row.visibility,
                server_name: row.server_name,
                bytes: closed.bytes,
                ended_at: closed.head.at,
                error: (ended == Ended::RESET).then_some("connection_reset"),
            });
        }
    }

    /// A connection that was never established.
    fn failed(&self, closed: &Closed) -> Option<EndedConnection> {
        if closed.owner.known != Known::NO.0 && closed.owner.tgid == self.own_pid {
            return None;
        }
        let connection = live::connection(&closed.head, &closed.ends, closed.owner, closed.role, closed.netns);
        let error = match (connection.role, closed.reset_by) {
            (Role::Server, _) => "not_established",
            (_, 1) => "connection_refused",
            _ => "no_answer",
        };
        Some(EndedConnection {
            connection: Arc::new(connection),
            established: false,
            mirror: None,
            protocol: None,
            visibility: Visibility::Opaque("not_established"),
            server_name: None,
            bytes: closed.bytes,
            ended_at: closed.head.at,
            error: Some(error),
        })
    }

    /// Feeds a record to its connection; `segments` is what is lost of it where there is none.
    fn run(&mut self, head: &Head, segments: u64, out: &mut Output, feed: impl FnOnce(&mut Live, &mut Work<'_>)) {
        let Some(live) = self.table.using(head.conn, head.at) else {
            self.desk.meter.add(Count::LostUnannounced, segments);
            return;
        };
        if head.lost > 0 {
            live.doubt();
        }
        if live.is_newly_foreign() {
            out.foreign.push(head.conn);
        }
        feed(live, &mut self.desk.work());
        self.desk.settle(live, out);
        self.desk.list(live);
    }

    /// Takes a connection out of the table, with the calls that this ends.
    fn end(&mut self, cookie: u64, close: Close, now: u64, out: &mut Output) -> Option<Live> {
        let mut live = self.table.remove(cookie)?;
        live.close(close, now, &mut self.desk.work());
        self.desk.settle(&mut live, out);
        self.mirror.leave(&live.connection, live.start, now);
        Some(live)
    }
}

/// Who reset a connection, as `Closed.reset_by` says it from this end's view.
fn reset_by(told: u8, role: Role) -> Option<Side> {
    match (told, role) {
        (1, Role::Server) | (2, Role::Client) => Some(Side::Client),
        (1, Role::Client) | (2, Role::Server) => Some(Side::Server),
        _ => None,
    }
}
