//! Reading the accumulator: service by service, so that those who record wait for one service at most.

use std::sync::Arc;

use super::series::{Exemplar, Label, Measures, Series};
use super::{ENDS, Metrics, Slot};
use crate::clock;
use crate::model::Service;

/// What makes two services one for metrics: not their processes, or every restart and every worker would be a stream of
/// its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::export) struct Identity<'a> {
    pub(in crate::export) name: &'a str,
    pub(in crate::export) namespace: Option<&'a str>,
    pub(in crate::export) container: Option<&'a str>,
}

impl<'a> Identity<'a> {
    pub(in crate::export) fn of(service: &'a Service) -> Self {
        Self {
            name: &service.name,
            namespace: service.namespace.as_deref(),
            container: service.container_id.as_deref(),
        }
    }
}

/// A series as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::export) struct Point {
    pub(in crate::export) label: Label,
    pub(in crate::export) measures: Measures,
    pub(in crate::export) exemplars: Vec<Exemplar>,
    /// Nanoseconds since the Unix epoch.
    pub(in crate::export) since: u64,
    /// Nanoseconds since the Unix epoch.
    pub(in crate::export) until: u64,
}

impl Metrics {
    /// Reads every series since it began, service by service.
    pub(in crate::export) fn cumulative(&self) -> impl Iterator<Item = (Arc<Service>, Vec<Point>)> {
        self.read(|series, until| Some(point(series, &series.measures, series.since, until)))
    }

    /// Reads what was added to every series since this was last asked.
    pub(in crate::export) fn delta(&self) -> impl Iterator<Item = (Arc<Service>, Vec<Point>)> {
        self.read(|series, until| {
            let (before, since) = series.told.as_deref().copied().unwrap_or((Measures::default(), series.since));
            if before.duration.count() == series.measures.duration.count() {
                return None;
            }
            let rest = Measures {
                duration: series.measures.duration.since(&before.duration),
                request: series.measures.request.since(&before.request),
                response: series.measures.response.since(&before.response),
            };
            series.told = Some(Box::new((series.measures, until)));
            let mut point = point(series, &rest, since, until);
            point.exemplars.retain(|exemplar| exemplar.at >= since);
            Some(point)
        })
    }

    fn read(
        &self,
        read: impl Fn(&mut Series, u64) -> Option<Point>,
    ) -> impl Iterator<Item = (Arc<Service>, Vec<Point>)> {
        let (now, until) = (clock::monotonic_ns(), clock::unix_ns());
        let places = {
            let mut state = self.lock();
            state.sweep(now);
            state.services.len()
        };
        (0..places).filter_map(move |place| {
            let mut state = self.lock();
            let slot = state.services.get_mut(place)?.as_mut()?;
            let Slot { service, series, overflow, .. } = slot;
            let all = series.iter_mut().chain(overflow.iter_mut().flatten());
            let points: Vec<_> = all.filter_map(|series| read(series, until)).collect();
            (!points.is_empty()).then(|| (Arc::clone(service), points))
        })
    }

    /// `weir_calls_total` by kind and end, those that did not happen left out.
    pub(in crate::export) fn calls(&self) -> Vec<(&'static str, &'static str, u64)> {
        let calls = self.lock().calls;
        let of = |kind, counts: [u64; ENDS.len()]| ENDS.into_iter().zip(counts).map(move |(end, n)| (kind, end, n));
        let [client, server] = calls;
        of("client", client).chain(of("server", server)).filter(|(.., n)| *n > 0).collect()
    }

    /// Calls that were counted in an overflow series, and series that are kept now.
    pub(in crate::export) fn fill(&self) -> (u64, usize) {
        let state = self.lock();
        (state.overflowed, state.series)
    }
}

fn point(series: &Series, measures: &Measures, since: u64, until: u64) -> Point {
    let exemplars = series.exemplars.iter().copied().filter(|exemplar| exemplar.at > 0).collect();
    // A wall clock that stepped back must not make an interval end before it began.
    Point { label: series.label.clone(), measures: *measures, exemplars, since, until: until.max(since) }
}
