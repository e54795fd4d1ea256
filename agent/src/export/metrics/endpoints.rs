//! The accumulator as endpoints: series by method and route, whatever their status.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::histogram::{DURATION, Histogram};
use super::{Metrics, Point};
use crate::model::{Endpoint, Kind};

/// Name, namespace, server's side first, method, route.
type Key = (Arc<str>, Option<Arc<str>>, bool, Option<&'static str>, Option<Arc<str>>);

#[derive(Default)]
struct Sums {
    duration: Histogram,
    errors: u64,
    request: u128,
    response: u128,
}

impl Metrics {
    /// Every endpoint by name of its service, its containers taken together. Counts are since the agent started, but for
    /// series that nobody used for an hour and whose place was given away.
    #[must_use]
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let mut sums: BTreeMap<Key, Sums> = BTreeMap::new();
        for (service, points) in self.cumulative() {
            for Point { label, measures, .. } in points {
                let (method, route) = label.endpoint();
                let client = label.kind() == Kind::Client;
                let key = (Arc::clone(&service.name), service.namespace.clone(), client, method, route.cloned());
                let sum = sums.entry(key).or_default();
                sum.duration.add(&measures.duration);
                sum.errors += if label.is_error() { measures.duration.count() } else { 0 };
                sum.request += measures.request.sum;
                sum.response += measures.response.sum;
            }
        }
        let endpoints = sums.into_iter().map(|((service, namespace, client, method, route), sum)| Endpoint {
            service,
            namespace,
            kind: if client { Kind::Client } else { Kind::Server },
            method,
            route,
            calls: sum.duration.count(),
            errors: sum.errors,
            request_bytes: sum.request,
            response_bytes: sum.response,
            duration_ns: sum.duration.sum,
            p99_bound_ns: sum.duration.bound(&DURATION, 99),
        });
        endpoints.collect()
    }
}
