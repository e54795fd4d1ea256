//! Metrics as `ExportMetricsServiceRequest`s: a `ResourceMetrics` for every service, and one for who calls whom.

use std::sync::Arc;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Exemplar, HistogramDataPoint, Metric, ResourceMetrics, ScopeMetrics, exemplar, metric,
};
use prost::Message as _;

use super::delivery::Payload;
use super::metrics::{self, Bounds, DURATION, Histogram, Metrics, Point, SIZE};
use super::resource;
use super::settings::{Node, Temporality};
use crate::model::{Kind, Service, semconv};

/// A request is sent when it holds so many data points.
const POINTS: u64 = 2000;

/// One histogram of every series; pairs are for the client's and the server's side.
pub(super) struct Instrument {
    name: [&'static str; 2],
    /// Its name on the Prometheus page.
    pub(super) prometheus: [&'static str; 2],
    unit: &'static str,
    pub(super) prometheus_unit: &'static str,
    pub(super) description: [&'static str; 2],
    pub(super) bounds: &'static Bounds,
    /// Units that are counted, in one that is told.
    pub(super) scale: f64,
    /// Exemplars are kept of it.
    pub(super) exemplars: bool,
    pub(super) of: fn(&Point) -> &Histogram,
}

/// `model/http/metrics.yaml` of the semantic conventions.
pub(super) const INSTRUMENTS: [Instrument; 3] = [
    Instrument {
        name: ["http.client.request.duration", "http.server.request.duration"],
        prometheus: ["http_client_request_duration_seconds", "http_server_request_duration_seconds"],
        unit: "s",
        prometheus_unit: "seconds",
        description: ["Duration of HTTP client requests.", "Duration of HTTP server requests."],
        bounds: &DURATION,
        scale: 1e9,
        exemplars: true,
        of: |point| &point.measures.duration,
    },
    Instrument {
        name: ["http.client.request.body.size", "http.server.request.body.size"],
        prometheus: ["http_client_request_body_size_bytes", "http_server_request_body_size_bytes"],
        unit: "By",
        prometheus_unit: "bytes",
        description: ["Size of HTTP client request bodies.", "Size of HTTP server request bodies."],
        bounds: &SIZE,
        scale: 1.0,
        exemplars: false,
        of: |point| &point.measures.request,
    },
    Instrument {
        name: ["http.client.response.body.size", "http.server.response.body.size"],
        prometheus: ["http_client_response_body_size_bytes", "http_server_response_body_size_bytes"],
        unit: "By",
        prometheus_unit: "bytes",
        description: ["Size of HTTP client response bodies.", "Size of HTTP server response bodies."],
        bounds: &SIZE,
        scale: 1.0,
        exemplars: false,
        of: |point| &point.measures.response,
    },
];

/// Reads the accumulator as requests of bounded size, one after the other.
pub(super) fn requests<'a>(
    metrics: &'a Metrics,
    node: &'a Node,
    temporality: Temporality,
) -> Box<dyn Iterator<Item = Payload> + Send + 'a> {
    let relations = std::iter::once_with(move || metrics.relations()?.request(node, temporality)).flatten();
    match temporality {
        Temporality::Cumulative => {
            Box::new(pack(metrics.cumulative(), node, AggregationTemporality::Cumulative).chain(relations))
        }
        Temporality::Delta => Box::new(pack(metrics.delta(), node, AggregationTemporality::Delta).chain(relations)),
    }
}

fn pack(
    mut services: impl Iterator<Item = (Arc<Service>, Vec<Point>)>,
    node: &Node,
    temporality: AggregationTemporality,
) -> impl Iterator<Item = Payload> {
    std::iter::from_fn(move || {
        let mut request = ExportMetricsServiceRequest::default();
        let mut items = 0;
        while items < POINTS {
            let Some((service, points)) = services.next() else { break };
            let (metrics, n) = of_service(&service, &points, node, temporality);
            request.resource_metrics.push(metrics);
            items += n;
        }
        (items > 0).then(|| Payload { body: Bytes::from(request.encode_to_vec()), items })
    })
}

fn of_service(
    service: &Service,
    points: &[Point],
    node: &Node,
    temporality: AggregationTemporality,
) -> (ResourceMetrics, u64) {
    let mut items = 0;
    let mut metrics = Vec::new();
    for (side, kind) in [Kind::Client, Kind::Server].into_iter().enumerate() {
        for instrument in &INSTRUMENTS {
            let data_points: Vec<_> = points
                .iter()
                .filter(|point| point.label.kind() == kind && (instrument.of)(point).count() > 0)
                .map(|point| instrument.point(point))
                .collect();
            let (Some(name), Some(description)) = (instrument.name.get(side), instrument.description.get(side)) else {
                continue;
            };
            if data_points.is_empty() {
                continue;
            }
            items += data_points.len() as u64;
            let histogram = opentelemetry_proto::tonic::metrics::v1::Histogram {
                data_points,
                aggregation_temporality: temporality as i32,
            };
            metrics.push(Metric {
                name: (*name).to_owned(),
                description: (*description).to_owned(),
                unit: instrument.unit.to_owned(),
                metadata: Vec::new(),
                data: Some(metric::Data::Histogram(histogram)),
            });
        }
    }
    let schema_url = semconv::SCHEMA_URL.to_owned();
    let scope = ScopeMetrics { scope: Some(resource::scope()), metrics, schema_url: schema_url.clone() };
    let resource = Some(resource::of(service, false, node));
    (ResourceMetrics { resource, scope_metrics: vec![scope], schema_url }, items)
}

impl Instrument {
    fn point(&self, point: &Point) -> HistogramDataPoint {
        let histogram = (self.of)(point);
        let mut attributes = Vec::with_capacity(8);
        point.label.tell(&mut |key, value| attributes.push(resource::attribute(key, value)));
        let exemplars = point.exemplars.iter().filter(|_| self.exemplars).map(exemplar).collect();
        HistogramDataPoint {
            attributes,
            start_time_unix_nano: point.since,
            time_unix_nano: point.until,
            count: histogram.count(),
            sum: Some(histogram.sum as f64 / self.scale),
            bucket_counts: histogram.counts.to_vec(),
            explicit_bounds: self.bounds.iter().map(|bound| *bound as f64 / self.scale).collect(),
            exemplars,
            flags: 0,
            min: None,
            max: None,
        }
    }
}

fn exemplar(exemplar: &metrics::Exemplar) -> Exemplar {
    Exemplar {
        filtered_attributes: Vec::new(),
        time_unix_nano: exemplar.at,
        span_id: exemplar.span.to_vec(),
        trace_id: exemplar.trace.to_vec(),
        value: Some(exemplar::Value::AsDouble(exemplar.duration as f64 / 1e9)),
    }
}
