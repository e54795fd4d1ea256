//! Who calls whom, as service-graph metrics (`traces_service_graph_*`): those names are Tempo's and the Collector's, so
//! that panels which know them fill.
//!
//! Each call counts once: where both its ends are observed by agents of two hosts, the client's tells it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    metric, number_data_point,
};
use prost::Message as _;

use super::delivery::Payload;
use super::resource;
use super::settings::{Node, Temporality};
use crate::clock;
use crate::model::semconv::{self, Value};
use crate::model::{Evidence, Service};

/// Calls between two services.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Relation {
    /// Who calls.
    pub client: Arc<str>,
    /// Who answers.
    pub server: Arc<str>,
    /// First call, nanoseconds since the Unix epoch.
    pub since: u64,
    /// Calls, each once.
    pub calls: u64,
    /// Of them, those that failed.
    pub failed: u64,
    /// Durations that the client's ends told of, then those that the servers' ends did.
    pub seconds: [Seconds; 2],
}

/// Durations in buckets.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seconds {
    /// Bound and number of observations up to it; the last bound is infinite. Empty: nothing was observed.
    pub buckets: Vec<(f64, u64)>,
    /// Sum, seconds.
    pub sum: f64,
}

/// A family of metrics.
pub(super) struct Family {
    /// Its name by OTLP; the Prometheus page leaves `_total` to its format.
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

/// Calls, and those that failed.
pub(super) const COUNTERS: [Family; 2] = [
    Family { name: "traces_service_graph_request_total", help: "Calls between two services, each once." },
    Family { name: "traces_service_graph_request_failed_total", help: "Of them, those that failed." },
];

/// Durations as clients saw them, then as servers did.
pub(super) const HISTOGRAMS: [Family; 2] = [
    Family {
        name: "traces_service_graph_request_client_seconds",
        help: "Duration of calls as their clients saw them.",
    },
    Family {
        name: "traces_service_graph_request_server_seconds",
        help: "Duration of calls as their servers saw them.",
    },
];

/// What a point holds, for [`Family`] of [`COUNTERS`].
pub(super) fn counts(relation: &Relation) -> [u64; 2] {
    [relation.calls, relation.failed]
}

type Source = Box<dyn Fn() -> Vec<Relation> + Send + Sync>;
type Pair = (Arc<str>, Arc<str>);

/// Where relations come from, and what delta temporality has told already.
pub(super) struct Relations {
    source: Source,
    told: Mutex<HashMap<Pair, (Relation, u64)>>,
}

impl std::fmt::Debug for Relations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Relations").field("told", &self.told).finish_non_exhaustive()
    }
}

impl Relations {
    pub(super) fn new(source: Source) -> Self {
        Self { source, told: Mutex::default() }
    }

    /// One request with all of them; none where there is nothing to tell.
    pub(super) fn request(&self, node: &Node, temporality: Temporality) -> Option<Payload> {
        let (now, until) = ((self.source)(), clock::unix_ns());
        let (rows, kind) = match temporality {
            Temporality::Cumulative => (now, AggregationTemporality::Cumulative),
            Temporality::Delta => (self.delta(now, until), AggregationTemporality::Delta),
        };
        let mut metrics = Vec::new();
        let mut items = 0;
        for (which, family) in COUNTERS.iter().enumerate() {
            let count = |relation: &Relation| counts(relation).get(which).copied().unwrap_or_default();
            let data_points: Vec<_> = rows.iter().map(|row| number(row, count(row), until)).collect();
            items += data_points.len() as u64;
            let sum = Sum { data_points, aggregation_temporality: kind as i32, is_monotonic: true };
            metrics.push(one(family, "{call}", metric::Data::Sum(sum)));
        }
        for (side, family) in HISTOGRAMS.iter().enumerate() {
            let told = rows.iter().filter_map(|row| histogram(row, row.seconds.get(side)?, until));
            let data_points: Vec<_> = told.collect();
            items += data_points.len() as u64;
            if !data_points.is_empty() {
                let histogram = Histogram { data_points, aggregation_temporality: kind as i32 };
                metrics.push(one(family, "s", metric::Data::Histogram(histogram)));
            }
        }
        if rows.is_empty() {
            return None;
        }
        let schema_url = semconv::SCHEMA_URL.to_owned();
        let scope = ScopeMetrics { scope: Some(resource::scope()), metrics, schema_url: schema_url.clone() };
        let of_agent = ResourceMetrics { resource: Some(agent(node)), scope_metrics: vec![scope], schema_url };
        let request = ExportMetricsServiceRequest { resource_metrics: vec![of_agent] };
        Some(Payload { body: Bytes::from(request.encode_to_vec()), items })
    }

    /// What was added since this was last asked. A relation that counts less than before was forgotten meanwhile, and
    /// began anew.
    fn delta(&self, now: Vec<Relation>, until: u64) -> Vec<Relation> {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let mut then = std::mem::take(&mut *told);
        let mut rows = Vec::new();
        for relation in now {
            let pair = (Arc::clone(&relation.client), Arc::clone(&relation.server));
            let before = then.remove(&pair).filter(|(before, _)| before.calls <= relation.calls);
            match &before {
                Some((before, _)) if before.calls == relation.calls => {}
                Some((before, at)) => rows.push(relation.less(before, *at)),
                None => rows.push(relation.clone()),
            }
            let at = before.filter(|(before, _)| before.calls == relation.calls).map_or(until, |(_, at)| at);
            told.insert(pair, (relation, at));
        }
        rows
    }
}

impl Relation {
    fn less(&self, before: &Self, since: u64) -> Self {
        let mut rest = Self { since, calls: self.calls - before.calls, ..self.clone() };
        rest.failed = self.failed.saturating_sub(before.failed);
        for (seconds, told) in rest.seconds.iter_mut().zip(&before.seconds) {
            for ((_, count), (_, told)) in seconds.buckets.iter_mut().zip(&told.buckets) {
                *count = count.saturating_sub(*told);
            }
            seconds.sum -= told.sum;
            if seconds.buckets.last().is_some_and(|(_, all)| *all == 0) {
                *seconds = Seconds::default();
            }
        }
        rest
    }
}

fn one(family: &Family, unit: &str, data: metric::Data) -> Metric {
    Metric {
        name: family.name.to_owned(),
        description: family.help.to_owned(),
        unit: unit.to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

fn attributes(relation: &Relation) -> Vec<KeyValue> {
    let pairs = [("client", &*relation.client), ("server", &*relation.server), ("connection_type", "")];
    pairs.into_iter().map(|(key, value)| resource::attribute(key, Value::Str(value))).collect()
}

fn number(relation: &Relation, count: u64, until: u64) -> NumberDataPoint {
    NumberDataPoint {
        attributes: attributes(relation),
        start_time_unix_nano: relation.since,
        time_unix_nano: until.max(relation.since),
        exemplars: Vec::new(),
        flags: 0,
        value: Some(number_data_point::Value::AsInt(i64::try_from(count).unwrap_or(i64::MAX))),
    }
}

fn histogram(relation: &Relation, seconds: &Seconds, until: u64) -> Option<HistogramDataPoint> {
    let (_, count) = *seconds.buckets.last()?;
    let mut below = 0;
    let each = seconds.buckets.iter().map(|(_, up_to)| up_to - std::mem::replace(&mut below, *up_to));
    Some(HistogramDataPoint {
        attributes: attributes(relation),
        start_time_unix_nano: relation.since,
        time_unix_nano: until.max(relation.since),
        count,
        sum: Some(seconds.sum),
        bucket_counts: each.collect(),
        explicit_bounds: seconds.buckets.iter().map(|(bound, _)| *bound).filter(|bound| bound.is_finite()).collect(),
        exemplars: Vec::new(),
        flags: 0,
        min: None,
        max: None,
    })
}

/// The agent as a Resource. Agents of several nodes tell the same pairs of services: their instances keep them apart.
fn agent(node: &Node) -> opentelemetry_proto::tonic::resource::v1::Resource {
    let own = Service { name: Arc::from("weir"), evidence: Evidence::Executable, ..Service::unknown() };
    let mut resource = resource::of(&own, false, node);
    if let Some(instance) = node.name.as_ref().or(node.id.as_ref())
        && !resource.attributes.iter().any(|told| told.key == "service.instance.id")
    {
        resource.attributes.push(resource::attribute("service.instance.id", Value::Str(instance)));
    }
    resource
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `calls` calls of which each third failed; the server's end told of all, the client's of none.
    fn relation(client: &str, calls: u64) -> Relation {
        let observed = Seconds { buckets: vec![(0.1, calls / 2), (f64::INFINITY, calls)], sum: calls as f64 / 4.0 };
        Relation {
            client: client.into(),
            server: "shop".into(),
            since: 7,
            calls,
            failed: calls / 3,
            seconds: [Seconds::default(), observed],
        }
    }

    /// Lines `NAME CLIENT VALUE SINCE` of a request, and how many points it says it has.
    fn told(relations: &Relations, temporality: Temporality) -> (Vec<String>, u64) {
        let node = Node { name: Some("n1".to_owned()), ..Node::default() };
        let Some(payload) = relations.request(&node, temporality) else { return (Vec::new(), 0) };
        let request = ExportMetricsServiceRequest::decode(payload.body).unwrap();
        let [of_agent] = &request.resource_metrics[..] else { panic!("{request:?}") };
        let resource = format!("{:?}", of_agent.resource);
        for part in ["service.name", "\"weir\"", "service.instance.id", "\"n1\""] {
            assert!(resource.contains(part), "{resource}");
        }
        let mut lines = Vec::new();
        for metric in &of_agent.scope_metrics[0].metrics {
            let name = metric.name.strip_prefix("traces_service_graph_request_").unwrap();
            let client = |attributes: &[KeyValue]| {
                let text = format!("{:?}", attributes[0].value);
                text.split('"').nth(1).map(str::to_owned).unwrap()
            };
            match metric.data.as_ref().unwrap() {
                metric::Data::Sum(sum) => {
                    assert!(sum.is_monotonic);
                    lines.extend(sum.data_points.iter().map(|point| {
                        let Some(number_data_point::Value::AsInt(value)) = point.value else { panic!("{point:?}") };
                        format!("{name} {} {value} {}", client(&point.attributes), point.start_time_unix_nano)
                    }));
                }
                metric::Data::Histogram(histogram) => lines.extend(histogram.data_points.iter().map(|point| {
                    assert_eq!((point.explicit_bounds.len(), point.bucket_counts.iter().sum()), (1, point.count));
                    let sum = point.sum.unwrap();
                    format!("{name} {} {:?} {sum}", client(&point.attributes), point.bucket_counts)
                })),
                other => panic!("{other:?}"),
            }
        }
        (lines, payload.items)
    }

    #[test]
    fn each_pair_is_a_point_of_each_family() {
        let relations = Relations::new(Box::new(|| vec![relation("curl", 10), relation("wget", 3)]));
        for _ in 0..2 {
            let (lines, items) = told(&relations, Temporality::Cumulative);
            assert_eq!(
                lines,
                [
                    "total curl 10 7",
                    "total wget 3 7",
                    "failed_total curl 3 7",
                    "failed_total wget 1 7",
                    "server_seconds curl [5, 5] 2.5",
                    "server_seconds wget [1, 2] 0.75",
                ]
            );
            assert_eq!(items, 6);
        }
        assert_eq!(told(&Relations::new(Box::new(Vec::new)), Temporality::Cumulative).1, 0);
    }

    #[test]
    fn delta_tells_what_was_added_and_begins_anew_where_an_edge_was_forgotten() {
        let counts = Arc::new(Mutex::new(vec![10, 10, 16, 2]));
        let source = Arc::clone(&counts);
        let relations = Relations::new(Box::new(move || vec![relation("curl", source.lock().unwrap().remove(0))]));
        let (first, _) = told(&relations, Temporality::Delta);
        assert_eq!(first, ["total curl 10 7", "failed_total curl 3 7", "server_seconds curl [5, 5] 2.5"]);
        assert_eq!(told(&relations, Temporality::Delta).1, 0);
        let (more, _) = told(&relations, Temporality::Delta);
        assert!(more[0].starts_with("total curl 6 ") && !more[0].ends_with(" 7"), "{more:?}");
        assert_eq!(more[2], "server_seconds curl [3, 3] 1.5");
        let (anew, _) = told(&relations, Temporality::Delta);
        assert_eq!(anew[0], "total curl 2 7");
        assert!(counts.lock().unwrap().is_empty());
    }
}
