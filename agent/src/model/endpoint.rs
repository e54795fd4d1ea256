//! What a service is asked, and what it asks: its calls by method and route, counted.

use std::sync::Arc;

use super::Kind;

/// Calls of one side of a service that share method and route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The observed service.
    pub service: Arc<str>,
    /// Its namespace.
    pub namespace: Option<Arc<str>>,
    /// Whether it answers these calls or makes them.
    pub kind: Kind,
    /// semconv `http.request.method`; absent for all those that found no place of their own.
    pub method: Option<&'static str>,
    /// Route template, where one is known.
    pub route: Option<Arc<str>>,
    /// How many calls.
    pub calls: u64,
    /// Of them, those that are errors for their side (semconv `error.type`).
    pub errors: u64,
    /// Content of requests, of calls where it is known.
    pub request_bytes: u128,
    /// Content of responses, of calls where it is known.
    pub response_bytes: u128,
    /// How long all of them took together, nanoseconds.
    pub duration_ns: u128,
    /// 99 of 100 calls took no longer, nanoseconds; absent where that is longer than the histogram's last bound.
    pub p99_bound_ns: Option<u64>,
}
