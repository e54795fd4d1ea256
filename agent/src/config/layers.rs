//! The layers of a configuration: file, `WEIR_…` variables, the standard `OTEL_…` variables where Weir's own key is
//! unset, `--set`; the later wins.

use super::{
    Place, Problem,
    tree::{Node, parse_value},
    written::Written,
};

/// Keys that stand in no section.
const WITHOUT_SECTION: [&str; 2] = ["SELECT", "HOSTS"];

/// `WEIR_SECTION__KEY` and, for keys without a section, `WEIR_KEY`. Other `WEIR_…` variables are not ours: kubelet sets
/// `WEIR_SERVICE_HOST` and the like for a Service called `weir`.
pub(super) fn environment(
    tree: &mut Node,
    variables: &[(String, String)],
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    for (name, value) in variables {
        let Some(key) = name.strip_prefix("WEIR_") else { continue };
        if !key.contains("__") && !WITHOUT_SECTION.contains(&key) {
            if let Some(meant) = meant(key) {
                let text = format!("is not read; write WEIR_{meant}, with two underscores");
                warnings.push(Problem::new(&Place::Env(name.as_str().into()), text));
            }
            continue;
        }
        let path = key.to_ascii_lowercase();
        let path: Vec<&str> = path.split("__").collect();
        let place = Place::Env(name.as_str().into());
        if let Some(node) = parse_value(value, &place, problems) {
            tree.put(&path, node);
        }
    }
}

/// The variable of a key, behind `WEIR_`, that reads like `name` with one underscore for two.
fn meant(name: &str) -> Option<String> {
    let keys = super::show::keys(&Written::default());
    let names = keys.into_iter().map(|key| key.to_ascii_uppercase().replace('.', "__"));
    names.filter(|key| key.contains("__")).find(|key| key.replace("__", "_") == name)
}

/// Standard variables (OpenTelemetry "OTLP Exporter Configuration" and "SDK Environment Variables").
pub(super) fn otel(
    tree: &mut Node,
    variables: &[(String, String)],
    problems: &mut Vec<Problem>,
    warnings: &mut Vec<Problem>,
) {
    for (name, value) in variables.iter().filter(|(_, value)| !value.is_empty()) {
        let place = Place::Env(name.as_str().into());
        let mut put = |path: &[&str], node: Node| {
            let path: Vec<&str> = [&["otlp"], path].concat();
            if tree.get(path.iter().copied()).is_none() {
                tree.put(&path, node);
            }
        };
        let text = |value: &str| Node::scalar(place.clone(), value);
        if let Some(key) = name.strip_prefix("OTEL_EXPORTER_OTLP_") {
            let (signal, key) = of_signal(key);
            // What is written of one signal stands beside what is written of all.
            let mut put = |path: &[&str], node: Node| match signal {
                Some(signal) => put(&[&["signals", signal], path].concat(), node),
                None => put(path, node),
            };
            match key {
                "ENDPOINT" => put(&["endpoint"], text(value)),
                "TRACES_ENDPOINT" => put(&["traces_endpoint"], text(value)),
                "METRICS_ENDPOINT" => put(&["metrics_endpoint"], text(value)),
                "LOGS_ENDPOINT" => put(&["logs_endpoint"], text(value)),
                "METRICS_TEMPORALITY_PREFERENCE" => put(&["temporality"], text(&value.to_ascii_lowercase())),
                "PROTOCOL" => put(&["protocol"], text(value)),
                "COMPRESSION" => put(&["compression"], text(value)),
                "TIMEOUT" => {
                    if let Some(time) = milliseconds(value, &place, problems) {
                        put(&["timeout"], text(&time));
                    }
                }
                "CERTIFICATE" => put(&["certificate"], text(value)),
                "CLIENT_CERTIFICATE" => put(&["client_certificate"], text(value)),
                "CLIENT_KEY" => put(&["client_key"], text(value)),
                "HEADERS" => pairs(value, &place, problems, |key, node| put(&["headers", key], node)),
                _ => warnings.push(Problem::new(&place, "is not read; see `otlp` for what is")),
            }
            continue;
        }
        match name.as_str() {
            "OTEL_METRIC_EXPORT_INTERVAL" => {
                if let Some(time) = milliseconds(value, &place, problems) {
                    put(&["interval"], text(&time));
                }
            }
            "OTEL_TRACES_EXPORTER" if value == "none" => put(&["traces"], text("false")),
            "OTEL_METRICS_EXPORTER" if value == "none" => put(&["metrics"], text("false")),
            "OTEL_LOGS_EXPORTER" if value == "none" => put(&["logs"], text("false")),
            // `service.*` would name the observed services after the agent.
            "OTEL_RESOURCE_ATTRIBUTES" => pairs(value, &place, problems, |key, node| {
                if !key.starts_with("service.") {
                    put(&["resource", key], node);
                }
            }),
            _ => {}
        }
    }
}

/// A standard variable's time, a bare number, as a time of ours.
fn milliseconds(value: &str, place: &Place, problems: &mut Vec<Problem>) -> Option<String> {
    if value.parse::<u64>().is_err() {
        problems.push(Problem::new(place, format!("`{value}` is not a number of milliseconds; write 10000 for 10 s")));
        return None;
    }
    Some(format!("{value}ms"))
}

/// A variable's signal, where it is about one, and the rest of its name. Endpoints and the temporality have keys beside
/// those of all signals.
fn of_signal(key: &str) -> (Option<&'static str>, &str) {
    if key.ends_with("_ENDPOINT") || key == "METRICS_TEMPORALITY_PREFERENCE" {
        return (None, key);
    }
    let mut signals = ["traces", "metrics", "logs"].into_iter();
    let own =
        signals.find_map(|signal| Some((signal, key.strip_prefix(&signal.to_ascii_uppercase())?.strip_prefix('_')?)));
    own.map_or((None, key), |(signal, key)| (Some(signal), key))
}

/// `key=value,key=value`, values percent-encoded (W3C Baggage, as both variables are specified).
fn pairs(text: &str, place: &Place, problems: &mut Vec<Problem>, mut put: impl FnMut(&str, Node)) {
    for (n, pair) in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()).enumerate() {
        match pair.split_once('=') {
            Some((key, value)) if !key.trim().is_empty() => {
                put(key.trim(), Node::scalar(place.clone(), &percent_decode(value.trim())));
            }
            // The text is not shown: it may hold a secret.
            _ => problems.push(Problem::new(place, format!("part {} is not key=value", n + 1))),
        }
    }
}

fn percent_decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digit = |n: usize| after.get(n).and_then(|digit| char::from(*digit).to_digit(16));
        if let (b'%', Some(high), Some(low)) = (first, digit(0), digit(1)) {
            bytes.push((high * 16 + low) as u8);
            rest = after.get(2..).unwrap_or_default();
        } else {
            bytes.push(first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// `--set a.b=v`.
pub(super) fn sets(tree: &mut Node, sets: &[String], problems: &mut Vec<Problem>) {
    for set in sets {
        match set.split_once('=') {
            Some((key, value)) if !key.is_empty() => {
                let place = Place::Set(key.into());
                if let Some(node) = parse_value(value, &place, problems) {
                    // What follows a map whose keys are free is one key: `otlp.resource.deployment.environment.name`.
                    let path: Vec<&str> = match key.split_once("otlp.resource.") {
                        Some(("", rest)) => vec!["otlp", "resource", rest],
                        _ => key.split('.').collect(),
                    };
                    tree.put(&path, node);
                }
            }
            _ => problems.push(Problem::new(
                &Place::Set(set.as_str().into()),
                "not key=value; write --set otlp.endpoint=http://host:4317",
            )),
        }
    }
}
