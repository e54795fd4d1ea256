//! Metrics over OTLP.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, ResourceMetrics, metric};

use super::*;
use crate::model::{Operation, Service};

fn named(name: &str) -> Arc<Service> {
    Arc::new(Service { name: name.into(), ..Service::unknown() })
}

fn call(kind: Kind, service: &Arc<Service>, status: u16, ms: u64) -> Arc<Exchange> {
    let mut call = example::exchange(kind);
    call.service = Arc::clone(service);
    let Operation::Http(http) = &mut call.call.operation;
    http.status = Some(status);
    let response = call.call.response.as_mut().unwrap();
    response.last_at = call.call.request.first.at + ms * 1_000_000;
    Arc::new(call)
}

fn text(attributes: &[KeyValue]) -> String {
    let told = attributes.iter().map(|attribute| {
        let value = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            Some(Value::BoolValue(truth)) => truth.to_string(),
            other => panic!("{other:?}"),
        };
        format!("{}={value}", attribute.key)
    });
    told.collect::<Vec<_>>().join(" ")
}

/// Data points of all histograms: service, name, temporality, point.
fn points(metrics: &[ResourceMetrics]) -> Vec<(String, String, i32, HistogramDataPoint)> {
    let mut points = Vec::new();
    for of_service in metrics {
        let service = text(&of_service.resource.as_ref().unwrap().attributes[..1]);
        for metric in of_service.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
            let Some(metric::Data::Histogram(histogram)) = &metric.data else { panic!("{metric:?}") };
            for point in &histogram.data_points {
                let name = format!("{} [{}]", metric.name, metric.unit);
                points.push((service.clone(), name, histogram.aggregation_temporality, point.clone()));
            }
        }
    }
    points
}

async fn exported(protocol: Protocol, temporality: Temporality, calls: &[&[Arc<Exchange>]]) -> Vec<ResourceMetrics> {
    let desk = Desk::default();
    let receiver = receiver(&desk, protocol).await;
    let url = Endpoint::url_of(&format!("http://{}", receiver.address), protocol, Signal::Metrics);
    let to = Endpoint { url, protocol, ..Endpoint::default() };
    // Long enough that nothing but the end of each exporter makes a reading.
    let settings =
        Settings { metrics: Some(to), interval: Duration::from_hours(1), temporality, ..Settings::default() };
    let metrics = Arc::new(Metrics::new(Bound::default()));
    let ledger = Arc::new(Ledger::default());
    for calls in calls {
        let exporter = Exporter::start(&settings, &metrics, Arc::clone(&ledger)).unwrap();
        metrics.record(calls);
        exporter.stop(FLUSH).await;
    }
    let told = desk.metrics();
    assert_eq!(points(&told).len() as u64, ledger.get(Signal::Metrics, Outcome::Ok));
    told
}

#[tokio::test]
async fn histograms_of_each_service() {
    let (shop, curl) = (named("shop"), named("curl"));
    let calls = [
        call(Kind::Server, &shop, 200, 1),
        call(Kind::Server, &shop, 200, 30),
        call(Kind::Server, &shop, 500, 20_000),
        call(Kind::Client, &curl, 404, 5),
    ];
    for protocol in [Protocol::Grpc, Protocol::Http] {
        let told = exported(protocol, Temporality::Cumulative, &[&calls]).await;
        assert_eq!(told.len(), 2);
        assert_eq!(
            text(&told[0].resource.as_ref().unwrap().attributes),
            format!(
                "service.name=shop telemetry.distro.name=weir telemetry.distro.version={}",
                env!("CARGO_PKG_VERSION")
            )
        );
        let mut seen = BTreeMap::new();
        for (service, name, temporality, point) in points(&told) {
            assert_eq!(temporality, 2, "cumulative");
            assert_eq!(point.explicit_bounds.len() + 1, point.bucket_counts.len());
            assert_eq!(point.bucket_counts.iter().sum::<u64>(), point.count);
            assert!(point.time_unix_nano >= point.start_time_unix_nano);
            let filled =
                point.bucket_counts.iter().enumerate().filter(|(_, n)| **n > 0).map(|(at, n)| format!("{at}:{n}"));
            let filled = filled.collect::<Vec<_>>().join(" ");
            let key = format!("{service} {name} {}", text(&point.attributes));
            let value = format!("{} {} {filled} {}", point.count, point.sum.unwrap(), point.exemplars.len());
            assert_eq!(seen.insert(key, value), None);
        }
        let server = "http.request.method=GET http.route=/orders/{id} http.response.status_code";
        let client = "http.request.method=GET url.template=/orders/{id} http.response.status_code";
        let ok = "=200 network.protocol.version=1.1 url.scheme=http";
        let failed = "=500 error.type=500 network.protocol.version=1.1 url.scheme=http";
        let missing = "=404 error.type=404 network.protocol.version=1.1 url.scheme=http server.address=shop.test server.port=8080";
        let expected = [
            ("service.name=curl http.client.request.body.size [By]", client, missing, "1 0 0:1 0"),
            ("service.name=curl http.client.request.duration [s]", client, missing, "1 0.005 0:1 1"),
            ("service.name=curl http.client.response.body.size [By]", client, missing, "1 345 3:1 0"),
            ("service.name=shop http.server.request.body.size [By]", server, ok, "2 0 0:2 0"),
            ("service.name=shop http.server.request.body.size [By]", server, failed, "1 0 0:1 0"),
            ("service.name=shop http.server.request.duration [s]", server, ok, "2 0.031 0:1 3:1 2"),
            ("service.name=shop http.server.request.duration [s]", server, failed, "1 20 14:1 1"),
            ("service.name=shop http.server.response.body.size [By]", server, ok, "2 690 3:2 0"),
            ("service.name=shop http.server.response.body.size [By]", server, failed, "1 345 3:1 0"),
        ];
        let expected = expected.map(|(name, route, rest, value)| (format!("{name} {route}{rest}"), value.to_owned()));
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), expected);
    }
}

#[tokio::test]
async fn cumulative_goes_on_and_delta_starts_anew() {
    let shop = named("shop");
    let once = [call(Kind::Server, &shop, 200, 1)];
    let twice = [call(Kind::Server, &shop, 200, 1), call(Kind::Server, &shop, 200, 1)];
    let durations = |told: &[ResourceMetrics]| -> Vec<_> {
        points(told)
            .into_iter()
            .filter(|(_, name, ..)| name.ends_with("duration [s]"))
            .map(|(.., point)| point)
            .collect()
    };
    let told = durations(&exported(Protocol::Grpc, Temporality::Cumulative, &[&once, &twice, &[]]).await);
    assert_eq!(told.iter().map(|point| point.count).collect::<Vec<_>>(), [1, 3, 3]);
    assert!(told.iter().all(|point| point.start_time_unix_nano == told[0].start_time_unix_nano));
    let told = durations(&exported(Protocol::Grpc, Temporality::Delta, &[&once, &twice, &[]]).await);
    assert_eq!(told.iter().map(|point| point.count).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(told[1].start_time_unix_nano, told[0].time_unix_nano);
}

#[tokio::test]
async fn a_thousand_services_come_in_requests_of_bounded_size() {
    let calls: Vec<_> = (0..1000).map(|i| call(Kind::Server, &named(&format!("s{i}")), 200, 1)).collect();
    let told = exported(Protocol::Grpc, Temporality::Cumulative, &[&calls]).await;
    assert_eq!(told.len(), 1000);
    assert_eq!(points(&told).len(), 3000);
}

#[tokio::test]
async fn a_dead_receiver_of_metrics_is_given_up_until_the_next_reading() {
    let desk = Desk::default();
    let address = receiver(&desk, Protocol::Grpc).await.address;
    let to = Endpoint { url: format!("http://{address}"), ..Endpoint::default() };
    let mut settings = settings(Endpoint::default());
    (settings.traces, settings.metrics, settings.interval) = (None, Some(to), Duration::from_millis(200));
    let metrics = Arc::new(Metrics::new(Bound::default()));
    let ledger = Arc::new(Ledger::default());
    metrics.record(&[call(Kind::Server, &named("shop"), 200, 1)]);
    let exporter = Exporter::start(&settings, &metrics, Arc::clone(&ledger)).unwrap();
    while ledger.get(Signal::Metrics, Outcome::Expired) < 6 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let _back = receiver::grpc(&desk, &address.to_string(), None).await;
    exporter.stop(FLUSH).await;
    let told = points(&desk.metrics());
    assert_eq!(told.len() as u64, ledger.get(Signal::Metrics, Outcome::Ok));
    assert!(told.iter().all(|(.., point)| point.count == 1) && !told.is_empty());
}
