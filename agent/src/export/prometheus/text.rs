//! The text formats of Prometheus (0.0.4) and `OpenMetrics` (1.0.0), written as they go: a page of ten thousand series is
//! never whole in memory.

use std::fmt::Write as _;
use std::io;

use crate::model::semconv::Value;

/// How the page is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// `text/plain; version=0.0.4`.
    Prometheus,
    /// `application/openmetrics-text; version=1.0.0`.
    OpenMetrics,
}

impl Format {
    pub(super) fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// What a scraper wants by its `Accept` header; the plainer one when it does not care.
    pub(super) fn negotiate(accept: &str) -> Self {
        let (mut open, mut plain) = (0.0, 0.0);
        for range in accept.split(',') {
            let mut parts = range.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let (mut quality, mut version) = (1.0_f32, None);
            for part in parts {
                match part.split_once('=') {
                    Some(("q", value)) => quality = value.parse().unwrap_or(0.0),
                    Some(("version", value)) => version = Some(value.trim_matches('"')),
                    _ => {}
                }
            }
            match media.as_str() {
                "application/openmetrics-text" if version.is_none_or(|version| version == "1.0.0") => {
                    open = f32::max(open, quality);
                }
                "text/plain" | "text/*" | "*/*" => plain = f32::max(plain, quality),
                _ => {}
            }
        }
        if open > 0.0 && open >= plain { Self::OpenMetrics } else { Self::Prometheus }
    }
}

/// Type of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Samples end in `_total`.
    Counter,
    Gauge,
    Histogram,
    /// Samples end in `_info` and are 1.
    Info,
}

/// Labels of a sample, written once for all its lines.
#[derive(Clone, Debug, Default)]
pub(super) struct Labels(String);

impl Labels {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a label; its name is taken as it is, its value escaped.
    pub(super) fn add(&mut self, name: &str, value: Value<'_>) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
        // Writing to a String can't fail.
        let _ = write!(Escaped(&mut self.0), "{value}");
        self.0.push('"');
    }

    pub(super) fn with(mut self, name: &str, value: &str) -> Self {
        self.add(name, Value::Str(value));
        self
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

struct Escaped<'a>(&'a mut String);

impl std::fmt::Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            match character {
                '\\' => self.0.push_str("\\\\"),
                '"' => self.0.push_str("\\\""),
                '\n' => self.0.push_str("\\n"),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

/// A label's name for an attribute's key.
pub(super) fn name(key: &str) -> String {
    let fits = |character: char| character.is_ascii_alphanumeric() || character == '_';
    let mut name: String = key.chars().map(|character| if fits(character) { character } else { '_' }).collect();
    if name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert(0, '_');
    }
    name
}

/// A bucket of a histogram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket<'a> {
    /// Infinite for the last one.
    pub(super) bound: f64,
    /// Observations up to the bound.
    pub(super) count: u64,
    /// Trace id, span id, value, and time in seconds since the Unix epoch.
    pub(super) exemplar: Option<(&'a [u8; 16], &'a [u8; 8], f64, f64)>,
}

/// Writes a page.
#[derive(Debug)]
pub(super) struct Text<W> {
    out: W,
    format: Format,
    /// Name of the open family, without the suffix of its samples.
    family: &'static str,
    kind: Kind,
    line: String,
}

impl<W: io::Write> Text<W> {
    pub(super) fn new(out: W, format: Format) -> Self {
        Self { out, format, family: "", kind: Kind::Gauge, line: String::with_capacity(512) }
    }

    /// Opens a family; `name` has no `_total` or `_info`. `unit` ends the name where there is one.
    pub(super) fn family(&mut self, name: &'static str, kind: Kind, unit: &str, help: &str) -> io::Result<()> {
        (self.family, self.kind) = (name, kind);
        let open = self.format == Format::OpenMetrics;
        let (suffix, kind) = match kind {
            Kind::Counter if open => ("", "counter"),
            Kind::Counter => ("_total", "counter"),
            Kind::Info if open => ("", "info"),
            Kind::Info => ("_info", "gauge"),
            Kind::Gauge => ("", "gauge"),
            Kind::Histogram => ("", "histogram"),
        };
        writeln!(self.out, "# HELP {name}{suffix} {help}")?;
        writeln!(self.out, "# TYPE {name}{suffix} {kind}")?;
        if open && !unit.is_empty() {
            writeln!(self.out, "# UNIT {name} {unit}")?;
        }
        Ok(())
    }

    /// A sample of the open family.
    pub(super) fn sample(&mut self, labels: &Labels, value: impl std::fmt::Display) -> io::Result<()> {
        let suffix = match self.kind {
            Kind::Counter => "_total",
            Kind::Info => "_info",
            Kind::Gauge | Kind::Histogram => "",
        };
        self.start(suffix, labels, None);
        self.end(value)
    }

    /// A histogram of the open family.
    pub(super) fn histogram<'a>(
        &mut self,
        labels: &Labels,
        buckets: impl Iterator<Item = Bucket<'a>>,
        sum: f64,
        count: u64,
    ) -> io::Result<()> {
        for bucket in buckets {
            self.start("_bucket", labels, Some(bucket.bound));
            let exemplar = bucket.exemplar.filter(|_| self.format == Format::OpenMetrics);
            match exemplar {
                None => self.end(bucket.count)?,
                Some((trace, span, value, at)) => {
                    let (trace, span) = (u128::from_be_bytes(*trace), u64::from_be_bytes(*span));
                    let count = bucket.count;
                    self.end(format_args!(
                        "{count} # {{trace_id=\"{trace:032x}\",span_id=\"{span:016x}\"}} {value} {at:.3}"
                    ))?;
                }
            }
        }
        self.start("_sum", labels, None);
        self.end(sum)?;
        self.start("_count", labels, None);
        self.end(count)
    }

    /// Closes the page.
    pub(super) fn finish(mut self) -> io::Result<W> {
        if self.format == Format::OpenMetrics {
            self.out.write_all(b"# EOF\n")?;
        }
        Ok(self.out)
    }

    fn start(&mut self, suffix: &str, labels: &Labels, bound: Option<f64>) {
        self.line.clear();
        self.line.push_str(self.family);
        self.line.push_str(suffix);
        if labels.0.is_empty() && bound.is_none() {
            return;
        }
        self.line.push('{');
        self.line.push_str(&labels.0);
        if let Some(bound) = bound {
            let comma = if labels.0.is_empty() { "" } else { "," };
            // OpenMetrics wants a canonical float, and so a point, where Prometheus has none. Writing to a String
            // can't fail.
            let _ = match self.format {
                _ if bound.is_infinite() => write!(self.line, "{comma}le=\"+Inf\""),
                Format::OpenMetrics => write!(self.line, "{comma}le=\"{bound:?}\""),
                Format::Prometheus => write!(self.line, "{comma}le=\"{bound}\""),
            };
        }
        self.line.push('}');
    }

    fn end(&mut self, value: impl std::fmt::Display) -> io::Result<()> {
        let _ = writeln!(self.line, " {value}");
        self.out.write_all(self.line.as_bytes())
    }
}
