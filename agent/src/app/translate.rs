//! The configuration as usable → each layer's own settings.

use std::sync::Arc;

use super::feeds;
use crate::config::{self, Level, Otlp, Protocol};
use crate::export::prometheus;
use crate::{export, flow, graph, identity, kernel, redact};

/// Settings of the redactor.
pub(super) fn redact(settings: &config::Settings) -> redact::Settings {
    redact::Settings {
        level: match settings.privacy.level {
            Level::Strict => redact::Level::Strict,
            Level::Standard => redact::Level::Standard,
            Level::Inspect => redact::Level::Inspect,
        },
        query: settings.privacy.query.clone(),
        user_agent: settings.privacy.user_agent,
        templates: settings.routes.templates.clone(),
        limit: settings.routes.limit,
    }
}

/// What the loader is told; `own`: the agent's process id.
pub(super) fn load(settings: &config::Settings, own: u32) -> kernel::load::Settings {
    let (kernel, traces) = (&settings.kernel, &settings.traces);
    let cgroup = kernel.cgroup.clone();
    let (chains, go) = (traces.chains, traces.go);
    kernel::load::Settings { ring: kernel.ring, window: kernel.window, cgroup, own, chains, go }
}

/// Settings of the flow worker.
pub(super) fn flow(settings: &config::Settings) -> flow::Settings {
    flow::Settings {
        connections: settings.flow.connections as usize,
        total_bytes: usize::try_from(settings.flow.reorder).unwrap_or(usize::MAX),
        ..flow::Settings::default()
    }
}

/// Settings of the resolver.
pub(super) fn identity(settings: &config::Settings) -> identity::Settings {
    let text = |text: &Option<String>| text.as_deref().map(Arc::from);
    let rules = settings.identity.rules.iter().map(|rule| identity::Rule {
        when: identity::When {
            executable: text(&rule.executable),
            command_line: text(&rule.command_line),
            unit: text(&rule.unit),
            container: text(&rule.container),
            port: rule.port,
        },
        name: text(&rule.name),
        namespace: text(&rule.namespace),
    });
    identity::Settings {
        processes: settings.identity.processes as usize,
        rules: rules.collect(),
        hosts: Arc::clone(&settings.hosts),
        ..identity::Settings::default()
    }
}

/// The node, as it stands in every Resource.
pub(super) fn node(otlp: Option<&Otlp>) -> export::Node {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    export::Node {
        name: read("/proc/sys/kernel/hostname"),
        id: read("/etc/machine-id"),
        attributes: otlp.map_or_else(Vec::new, |otlp| otlp.resource.clone().into_iter().collect()),
    }
}

/// Settings of the OTLP exporter; `None`: nothing is exported.
pub(super) fn export(settings: &config::Settings) -> Option<export::Settings> {
    let otlp = settings.otlp.as_ref()?;
    let endpoint = |kind, signal: &config::Signal| {
        let protocol = protocol(signal.protocol);
        let common = otlp.endpoint.as_ref().map(|base| export::Endpoint::url_of(base, protocol, kind));
        signal.endpoint.clone().or(common).filter(|_| signal.wanted).map(|url| export::Endpoint {
            url,
            protocol,
            headers: signal.headers.clone().into_iter().collect(),
            gzip: signal.gzip,
            tls: export::Tls { ca: signal.certificate.clone(), client: signal.client.clone() },
            timeout: signal.timeout,
        })
    };
    Some(export::Settings {
        traces: endpoint(export::Signal::Traces, &otlp.traces),
        metrics: endpoint(export::Signal::Metrics, &otlp.metrics),
        logs: endpoint(export::Signal::Logs, &otlp.logs),
        node: node(Some(otlp)),
        sample: settings.traces.sample,
        queue: otlp.queue,
        interval: otlp.interval,
        temporality: match otlp.temporality {
            config::Temporality::Cumulative => export::Temporality::Cumulative,
            config::Temporality::Delta => export::Temporality::Delta,
        },
        ..export::Settings::default()
    })
}

fn protocol(protocol: Protocol) -> export::Protocol {
    match protocol {
        Protocol::Grpc => export::Protocol::Grpc,
        Protocol::Http => export::Protocol::Http,
    }
}

/// A pair of services for service-graph metrics.
pub(super) fn relation(relation: &graph::Relation) -> export::Relation {
    let seconds = |buckets: &graph::Buckets| {
        if buckets.count() == 0 {
            return export::Seconds::default();
        }
        let mut sum = 0;
        let bounds = graph::BOUNDS_SECONDS.iter().copied().chain([f64::INFINITY]);
        let up_to = bounds.zip(buckets.counts).map(|(bound, count)| {
            sum += count;
            (bound, sum)
        });
        export::Seconds { buckets: up_to.collect(), sum: buckets.sum_ns as f64 / 1e9 }
    };
    export::Relation {
        client: Arc::clone(&relation.client),
        server: Arc::clone(&relation.server),
        since: relation.since,
        calls: relation.calls,
        failed: relation.failed,
        seconds: [seconds(&relation.client_seconds), seconds(&relation.server_seconds)],
    }
}

/// A feed as the Prometheus page tells it.
pub(super) fn feed(row: &feeds::Row) -> prometheus::FeedState {
    prometheus::FeedState {
        name: Arc::clone(&row.name),
        entries: row.entries,
        age: row.age_seconds(),
        errors: row.errors.iter().map(|(reason, n)| (*reason, *n)).collect(),
    }
}
