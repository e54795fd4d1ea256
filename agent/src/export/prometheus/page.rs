//! What stands on the page.

use std::io;

use super::own::{self, Snapshot};
use super::text::{Bucket, Format, Kind, Labels, Text, name};
use crate::export::ledger::Ledger;
use crate::export::metrics::{Histogram, Identity, Metrics, Point};
use crate::export::points::{INSTRUMENTS, Instrument};
use crate::export::settings::Node;
use crate::model::semconv::Value;
use crate::model::{self, Service, semconv};

/// Writes the page.
pub(super) fn write<W: io::Write>(
    out: W,
    format: Format,
    metrics: &Metrics,
    ledger: &Ledger,
    snapshot: &Snapshot,
    node: &Node,
) -> io::Result<W> {
    let mut text = Text::new(out, format);
    own::write(&mut text, metrics, ledger, snapshot)?;
    target(&mut text, metrics, node)?;
    for (side, kind) in [model::Kind::Client, model::Kind::Server].into_iter().enumerate() {
        for instrument in &INSTRUMENTS {
            calls(&mut text, metrics, side, kind, instrument)?;
        }
    }
    text.finish()
}

/// Attributes of Resources, and the labels that join them with the series of their service.
fn target<W: io::Write>(text: &mut Text<W>, metrics: &Metrics, node: &Node) -> io::Result<()> {
    let mut head = false;
    for (service, _) in metrics.cumulative() {
        if !std::mem::replace(&mut head, true) {
            text.family("target", Kind::Info, "", "Resource attributes of an observed service.")?;
        }
        let mut labels = Labels::new();
        let mut told: Vec<String> = Vec::new();
        let mut add = |key: &str, value: Value<'_>| {
            let name = name(key);
            if !told.contains(&name) {
                labels.add(&name, value);
                told.push(name);
            }
        };
        semconv::resource(&service, false, &mut |key, value| add(key, value));
        for (key, value) in [("host.name", &node.name), ("host.id", &node.id)] {
            if let Some(value) = value {
                add(key, Value::Str(value));
            }
        }
        for (key, value) in &node.attributes {
            add(key, Value::Str(value));
        }
        text.sample(&labels, 1)?;
    }
    Ok(())
}

fn calls<W: io::Write>(
    text: &mut Text<W>,
    metrics: &Metrics,
    side: usize,
    kind: model::Kind,
    instrument: &Instrument,
) -> io::Result<()> {
    let (Some(family), Some(help)) = (instrument.prometheus.get(side), instrument.description.get(side)) else {
        return Ok(());
    };
    let mut head = false;
    let mut labels = Labels::new();
    for (service, points) in metrics.cumulative() {
        for point in points.iter().filter(|point| point.label.kind() == kind && (instrument.of)(point).count() > 0) {
            if !std::mem::replace(&mut head, true) {
                text.family(family, Kind::Histogram, instrument.prometheus_unit, help)?;
            }
            labels.clear();
            identity(&mut labels, &service);
            point.label.tell(&mut |key, value| labels.add(&name(key), value));
            let histogram = (instrument.of)(point);
            let buckets = buckets(instrument, histogram, point);
            text.histogram(&labels, buckets, histogram.sum as f64 / instrument.scale, histogram.count())?;
        }
    }
    Ok(())
}

fn identity(labels: &mut Labels, service: &Service) {
    let identity = Identity::of(service);
    labels.add("service_name", Value::Str(identity.name));
    if let Some(namespace) = identity.namespace {
        labels.add("service_namespace", Value::Str(namespace));
    }
    if let Some(container) = identity.container {
        labels.add("container_id", Value::Str(container));
    }
}

fn buckets<'a>(
    instrument: &'a Instrument,
    histogram: &'a Histogram,
    point: &'a Point,
) -> impl Iterator<Item = Bucket<'a>> {
    let bounds = instrument.bounds.iter().map(|bound| (*bound, *bound as f64 / instrument.scale));
    let mut below = None;
    let mut sum = 0;
    bounds.chain([(u64::MAX, f64::INFINITY)]).zip(histogram.counts).map(move |((limit, bound), count)| {
        sum += count;
        let within = |value: u64| value <= limit && below.is_none_or(|below| value > below);
        let exemplar = point.exemplars.iter().find(|exemplar| instrument.exemplars && within(exemplar.duration));
        below = Some(limit);
        let exemplar = exemplar.map(|exemplar| {
            (&exemplar.trace, &exemplar.span, exemplar.duration as f64 / instrument.scale, exemplar.at as f64 / 1e9)
        });
        Bucket { bound, count: sum, exemplar }
    })
}
