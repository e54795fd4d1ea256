//! Calls counted and measured, by service and by what they were: what OTLP metrics and the Prometheus page are made of.
//!
//! Bounded: services, series of a service, series in all. What finds no place is counted in its service's overflow
//! series, so that sums stay true.

mod collect;
mod endpoints;
mod histogram;
mod series;

use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use hashbrown::{DefaultHashBuilder, HashTable};

pub(super) use self::collect::{Identity, Point};
pub(super) use self::histogram::{Bounds, DURATION, Histogram, SIZE};
pub(super) use self::series::{Exemplar, Label};
use self::series::{Seen, Series};
use super::relations::{Relation, Relations};
use super::sample::Sampler;
use crate::clock;
use crate::model::{End, Exchange, Kind, Service};

/// A series or service that was not used for so long may give its place to a new one.
const IDLE: u64 = 3600 * 1_000_000_000;

/// Time between two searches for places that can be given away.
const SEARCH: u64 = 10 * 1_000_000_000;

/// Services whose place is remembered by their address.
const REMEMBERED: usize = 256;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Services, at least 1; calls of further ones are counted as those of an unknown service.
    pub services: usize,
    /// Series of one service, but for its overflow series.
    pub series: usize,
    /// Series of all services, about 1.3 KiB each.
    pub total: usize,
}

impl Default for Bound {
    fn default() -> Self {
        Self { services: 2000, series: 200, total: 10_000 }
    }
}

/// The accumulator. It lives as long as the agent: a reload does not reset it.
#[derive(Debug)]
pub struct Metrics {
    state: Mutex<State>,
    bound: Bound,
    hasher: DefaultHashBuilder,
    relations: OnceLock<Relations>,
}

#[derive(Debug)]
struct State {
    sampler: Sampler,
    /// The first is the unknown service, which also takes the calls of services that find no place.
    services: Vec<Option<Slot>>,
    /// Places in `services`, by identity.
    places: HashTable<usize>,
    /// Places in `services`, by a service's address; holding the service keeps its address its own.
    remembered: Vec<Option<(Arc<Service>, usize)>>,
    series: usize,
    swept: u64,
    calls: [[u64; ENDS.len()]; 2],
    overflowed: u64,
}

#[derive(Debug)]
struct Slot {
    /// As it was seen last: what is not its identity may change.
    service: Arc<Service>,
    hash: u64,
    series: HashTable<Box<Series>>,
    overflow: [Option<Box<Series>>; 2],
}

/// Label `end` of `weir_calls_total`.
const ENDS: [&str; 7] = ["complete", "client_aborted", "server_aborted", "reset", "upgraded", "lost", "in_flight"];

fn end_place(end: End) -> usize {
    match end {
        End::Complete => 0,
        End::ClientAborted => 1,
        End::ServerAborted => 2,
        End::Reset => 3,
        End::Upgraded => 4,
        End::Lost(_) => 5,
        End::InFlight => 6,
    }
}

fn kind_place(kind: Kind) -> usize {
    match kind {
        Kind::Client => 0,
        Kind::Server => 1,
    }
}

impl Metrics {
    /// An empty accumulator.
    #[must_use]
    pub fn new(bound: Bound) -> Self {
        let hasher = DefaultHashBuilder::default();
        let unknown = Arc::new(Service::unknown());
        let hash = hasher.hash_one(Identity::of(&unknown));
        let mut places = HashTable::new();
        places.insert_unique(hash, 0, |_| hash);
        let state = State {
            sampler: Sampler::new(1.0),
            services: vec![Some(Slot::new(unknown, hash))],
            places,
            remembered: vec![None; REMEMBERED],
            series: 0,
            swept: 0,
            calls: [[0; ENDS.len()]; 2],
            overflowed: 0,
        };
        Self { state: Mutex::new(state), bound, hasher, relations: OnceLock::new() }
    }

    /// Where service-graph metrics for OTLP come from; asked at each reading. Only the first source counts.
    pub fn relate(&self, source: impl Fn() -> Vec<Relation> + Send + Sync + 'static) {
        self.relations.get_or_init(|| Relations::new(Box::new(source)));
    }

    pub(super) fn relations(&self) -> Option<&Relations> {
        self.relations.get()
    }

    /// Which calls may become exemplars: those whose spans are exported, so that an exemplar leads somewhere.
    pub fn sample(&self, sampler: Sampler) {
        self.lock().sampler = sampler;
    }

    /// Counts calls.
    pub fn record(&self, calls: &[Arc<Exchange>]) {
        let (now, unix) = (clock::monotonic_ns(), clock::unix_ns());
        let mut state = self.lock();
        for call in calls {
            self.count(&mut state, call, now, unix);
        }
    }

    fn count(&self, state: &mut State, call: &Exchange, now: u64, unix: u64) {
        if let Some(count) =
            state.calls.get_mut(kind_place(call.kind)).and_then(|ends| ends.get_mut(end_place(call.call.end)))
        {
            *count += 1;
        }
        let exemplar = state.sampler.keeps(&call.ids.trace);
        let known = self.place(state, &call.service, now);
        let Some(Some(slot)) = state.services.get_mut(known.unwrap_or(0)) else { return };
        if known.is_some() {
            let seen = Seen::of(call);
            let hash = self.hasher.hash_one(seen);
            let same = |series: &Series| matches!(&series.label, Label::Alike(key) if seen.is(key));
            if let Some(series) = slot.series.find_mut(hash, |series| same(series)) {
                return series.add(call, exemplar, now);
            }
            if slot.series.len() < self.bound.series && state.series < self.bound.total {
                state.series += 1;
                let mut series = Box::new(Series::new(Label::Alike(seen.key()), hash, unix));
                series.add(call, exemplar, now);
                slot.series.insert_unique(hash, series, |series| series.hash);
                return;
            }
        }
        state.overflowed += 1;
        if let Some(overflow) = slot.overflow.get_mut(kind_place(call.kind)) {
            let series = overflow.get_or_insert_with(|| Box::new(Series::new(Label::Overflow(call.kind), 0, unix)));
            series.add(call, exemplar, now);
        }
        state.sweep(now);
    }

    /// Place of a service, made where there is room; none when there is not.
    fn place(&self, state: &mut State, service: &Arc<Service>, now: u64) -> Option<usize> {
        // Allocations are aligned to 16 bytes at least: the lowest bits tell nothing.
        let corner = (Arc::as_ptr(service) as usize >> 4) % REMEMBERED;
        if let Some(Some((known, place))) = state.remembered.get(corner)
            && Arc::ptr_eq(known, service)
        {
            return Some(*place);
        }
        let identity = Identity::of(service);
        let hash = self.hasher.hash_one(identity);
        let State { services, places, .. } = state;
        let same = |place: &usize| {
            let slot = services.get(*place).and_then(Option::as_ref);
            slot.is_some_and(|slot| Identity::of(&slot.service) == identity)
        };
        let place = match places.find(hash, same).copied() {
            Some(place) => {
                if let Some(Some(slot)) = services.get_mut(place) {
                    slot.service = Arc::clone(service);
                }
                place
            }
            None => self.settle(state, service, hash, now)?,
        };
        if let Some(corner) = state.remembered.get_mut(corner) {
            *corner = Some((Arc::clone(service), place));
        }
        Some(place)
    }

    fn settle(&self, state: &mut State, service: &Arc<Service>, hash: u64, now: u64) -> Option<usize> {
        if state.places.len() >= self.bound.services {
            state.sweep(now);
        }
        if state.places.len() >= self.bound.services {
            return None;
        }
        let slot = Some(Slot::new(Arc::clone(service), hash));
        let place = state.services.iter().position(Option::is_none).unwrap_or(state.services.len());
        match state.services.get_mut(place) {
            Some(free) => *free = slot,
            None => state.services.push(slot),
        }
        let State { services, places, .. } = state;
        places.insert_unique(hash, place, |place| services.get(*place).and_then(Option::as_ref).map_or(0, |s| s.hash));
        Some(place)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Gives up what has not been used for long.
    fn sweep(&mut self, now: u64) {
        if now < self.swept + SEARCH {
            return;
        }
        self.swept = now;
        let fresh = |series: &Series| now < series.used + IDLE;
        for (place, entry) in self.services.iter_mut().enumerate() {
            let Some(slot) = entry else { continue };
            let before = slot.series.len();
            slot.series.retain(|series| fresh(series));
            self.series -= before - slot.series.len();
            let empty = slot.series.is_empty() && !slot.overflow.iter().flatten().any(|series| fresh(series));
            if !empty || place == 0 {
                continue;
            }
            if let Ok(entry) = self.places.find_entry(slot.hash, |other| *other == place) {
                entry.remove();
            }
            for corner in &mut self.remembered {
                if corner.as_ref().is_some_and(|(_, other)| *other == place) {
                    *corner = None;
                }
            }
            *entry = None;
        }
    }
}

impl Slot {
    fn new(service: Arc<Service>, hash: u64) -> Self {
        Self { service, hash, series: HashTable::new(), overflow: [None, None] }
    }
}

#[cfg(test)]
mod tests;
