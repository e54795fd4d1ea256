//! Trace contexts of request headers: W3C `traceparent`, B3 (single and multi), AWS `X-Amzn-Trace-Id`.
//!
//! Precedence: `traceparent`, `b3`, `X-B3-*`, `X-Amzn-Trace-Id`. The first that is valid counts; one that is malformed,
//! repeated, incomplete or cut is passed over, and the request is counted as one with an ignored context.
//!
//! Beside them stand ids of the request itself, which applications pass on to whom they call: `X-Request-Id`,
//! `X-Correlation-Id`, Jaeger's `uber-trace-id`, `X-Cloud-Trace-Context`, `X-Datadog-Trace-Id`, an `X-Amzn-Trace-Id` without a
//! parent. They name no span; only a hash of the first one is kept, under a key of this process. One of fewer than 16
//! bytes is more likely a word than an id and is not used.
//!
//! Sources: <https://www.w3.org/TR/trace-context/>, <https://github.com/openzipkin/b3-propagation>,
//! <https://docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html#xray-concepts-tracingheader>.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::LazyLock;

use crate::model::TraceContext;
use crate::proto::hex::hex;
use crate::proto::traceparent;

/// Headers that name a request, by precedence.
const REQUEST_IDS: [&str; 5] =
    ["x-request-id", "x-correlation-id", "uber-trace-id", "x-cloud-trace-context", "x-datadog-trace-id"];
/// Shortest and longest id of a request, in bytes.
const REQUEST_ID: std::ops::RangeInclusive<usize> = 16..=200;

/// Longest `X-Amzn-Trace-Id` that is looked at, in bytes: AWS's own are under 200.
const AMAZON_MOST: usize = 512;

/// What was said of one thing so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Said<T> {
    #[default]
    Absent,
    /// Well formed, once.
    Valid(T),
    /// Malformed or repeated.
    Ignored,
}

impl<T: Copy> Said<T> {
    fn add(&mut self, value: Option<T>) {
        *self = match (&self, value) {
            (Self::Absent, Some(value)) => Self::Valid(value),
            _ => Self::Ignored,
        };
    }

    fn valid(self) -> Option<T> {
        match self {
            Self::Valid(value) => Some(value),
            Self::Absent | Self::Ignored => None,
        }
    }

    fn is_ignored(&self) -> bool {
        matches!(self, Self::Ignored)
    }

    fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }
}

/// What a well-formed header names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Named {
    Context(TraceContext),
    /// A sampling decision alone (B3), or a root without a parent, as a load balancer sends it (AWS).
    NoSpan,
}

impl Named {
    fn context(self) -> Option<TraceContext> {
        match self {
            Self::Context(context) => Some(context),
            Self::NoSpan => None,
        }
    }
}

/// The trace headers of one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Propagation {
    parent: Said<TraceContext>,
    b3: Said<Named>,
    b3_trace: Said<[u8; 16]>,
    b3_span: Said<[u8; 8]>,
    /// `X-B3-Sampled`: 1 or 0. `X-B3-Flags: 1` (debug) implies 1.
    b3_sampled: Said<u8>,
    b3_debug: Said<u8>,
    amazon: Said<Named>,
    /// The same as a request's id, where it has no parent.
    amazon_id: Option<u64>,
    requests: [Said<u64>; REQUEST_IDS.len()],
}

impl Propagation {
    /// A header of this name may be one that is taken: all of them begin so.
    pub(crate) fn may_take(name: &[u8]) -> bool {
        matches!(name, [b'x' | b'X' | b't' | b'T' | b'b' | b'B' | b'u' | b'U', ..])
    }

    /// Takes a header, surrounding whitespace already off its value. `cut`: the value is only the beginning.
    pub(crate) fn add(&mut self, name: &[u8], value: &[u8], cut: bool) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        let value = if cut { &[] } else { value };
        match name.len() {
            2 if is("b3") => self.b3.add(single(value)),
            10 if is("x-b3-flags") => self.b3_debug.add(digit(value)),
            11 if is("traceparent") => self.parent.add(traceparent::parse(value)),
            11 if is("x-b3-spanid") => self.b3_span.add(span(value)),
            12 if is("x-b3-traceid") => self.b3_trace.add(trace(value)),
            12 if is("x-b3-sampled") => self.b3_sampled.add(sampled(value)),
            15 if is("x-amzn-trace-id") => {
                self.amazon.add(amazon(value));
                self.amazon_id = Some(hash(REQUEST_IDS.len(), value));
            }
            12 | 13 | 16 | 18 | 21 => {
                for (at, (known, said)) in REQUEST_IDS.into_iter().zip(&mut self.requests).enumerate() {
                    if is(known) && (cut || value.len() >= *REQUEST_ID.start()) {
                        said.add(Some(hash(at, value)).filter(|_| REQUEST_ID.contains(&value.len())));
                    }
                }
            }
            _ => {}
        }
    }

    /// The context, by the precedence of this module.
    pub(crate) fn context(&self) -> Option<TraceContext> {
        let single = self.b3.valid().and_then(Named::context);
        let amazon = self.amazon.valid().and_then(Named::context);
        self.parent.valid().or(single).or_else(|| self.multi()).or(amazon)
    }

    /// Keyed hash of the request's id.
    pub(crate) fn request_id(&self) -> Option<u64> {
        let amazon = self.amazon.valid().filter(|named| *named == Named::NoSpan).and(self.amazon_id);
        self.requests.iter().find_map(|said| said.valid()).or(amazon)
    }

    /// A header had to be ignored.
    pub(crate) fn ignored(&self) -> bool {
        self.parent.is_ignored()
            || self.b3.is_ignored()
            || self.b3_trace.is_ignored()
            || self.b3_span.is_ignored()
            || self.b3_sampled.is_ignored()
            || self.b3_debug.is_ignored()
            || self.amazon.is_ignored()
            || self.requests.iter().any(Said::is_ignored)
            || self.b3_trace.is_absent() != self.b3_span.is_absent()
    }

    fn multi(&self) -> Option<TraceContext> {
        let (trace, span) = (self.b3_trace.valid()?, self.b3_span.valid()?);
        let flags = self.b3_sampled.valid().unwrap_or(0) | self.b3_debug.valid().unwrap_or(0);
        Some(TraceContext { trace, span, flags })
    }
}

/// Of which header, and its value. The key is drawn at the start of the process.
fn hash(header: usize, value: &[u8]) -> u64 {
    static KEY: LazyLock<RandomState> = LazyLock::new(RandomState::new);
    KEY.hash_one((header, value))
}

/// `{trace}-{span}[-{0|1|d}[-{parent span}]]`, or `0`, `1`, `d` alone.
fn single(value: &[u8]) -> Option<Named> {
    let mut parts = value.split(|&byte| byte == b'-');
    let first = parts.next()?;
    let Some(second) = parts.next() else { return state(first).map(|_| Named::NoSpan) };
    let (trace, span_id) = (trace(first)?, span(second)?);
    let flags = parts.next().map_or(Some(0), state)?;
    if let Some(parent) = parts.next() {
        span(parent)?;
    }
    parts.next().is_none().then_some(Named::Context(TraceContext { trace, span: span_id, flags }))
}

fn state(value: &[u8]) -> Option<u8> {
    match value {
        b"0" => Some(0),
        b"1" | b"d" => Some(1),
        _ => None,
    }
}

fn sampled(value: &[u8]) -> Option<u8> {
    // Before the specification, `true` and `false` were sent.
    match value {
        b"true" => Some(1),
        b"false" => Some(0),
        value => digit(value),
    }
}

fn digit(value: &[u8]) -> Option<u8> {
    match value {
        b"0" => Some(0),
        b"1" => Some(1),
        _ => None,
    }
}

/// 32 or 16 digits; a short id is the right half of a long one.
fn trace(value: &[u8]) -> Option<[u8; 16]> {
    let id = match value.len() {
        32 => hex(value)?,
        16 => u128::from(u64::from_be_bytes(hex(value)?)).to_be_bytes(),
        _ => return None,
    };
    (id != [0; 16]).then_some(id)
}

fn span(value: &[u8]) -> Option<[u8; 8]> {
    if value.len() != 16 {
        return None;
    }
    hex(value).filter(|id| *id != [0; 8])
}

/// `Root=1-{8 digits}-{24 digits};Parent={16 digits};Sampled={0|1|?}`, in any order; other keys are passed over.
fn amazon(value: &[u8]) -> Option<Named> {
    if value.len() > AMAZON_MOST {
        return None;
    }
    let (mut root, mut parent, mut flags) = (None, None, None);
    for part in value.split(|&byte| byte == b';').map(<[u8]>::trim_ascii).filter(|part| !part.is_empty()) {
        let at = part.iter().position(|&byte| byte == b'=')?;
        let (key, said) = (part.get(..at)?, part.get(at + 1..)?);
        let repeated = match key {
            b"Root" => root.replace(amazon_root(said)?).is_some(),
            b"Parent" => parent.replace(span(said)?).is_some(),
            b"Sampled" if said == b"?" => flags.replace(0).is_some(),
            b"Sampled" => flags.replace(digit(said)?).is_some(),
            _ => false,
        };
        if repeated {
            return None;
        }
    }
    let trace = root?;
    let context = |span| Named::Context(TraceContext { trace, span, flags: flags.unwrap_or(0) });
    Some(parent.map_or(Named::NoSpan, context))
}

fn amazon_root(value: &[u8]) -> Option<[u8; 16]> {
    let (epoch, random) = value.strip_prefix(b"1-")?.split_at_checked(8)?;
    let random = random.strip_prefix(b"-").filter(|random| random.len() == 24)?;
    trace(&[epoch, random].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: u128 = 0x80f1_98ee_5634_3ba8_64fe_8b2a_57d3_eff7;
    const SPAN: u64 = 0xe457_b5a2_e4d8_6bd1;

    fn read(list: &[(&str, &str)]) -> (Option<(u128, u64, u8)>, bool) {
        let mut headers = Propagation::default();
        for (name, value) in list {
            assert!(Propagation::may_take(name.as_bytes()), "{name}");
            headers.add(name.as_bytes(), value.as_bytes(), false);
        }
        let plain = |context: TraceContext| {
            (u128::from_be_bytes(context.trace), u64::from_be_bytes(context.span), context.flags)
        };
        (headers.context().map(plain), headers.ignored())
    }

    fn good(flags: u8) -> (Option<(u128, u64, u8)>, bool) {
        (Some((TRACE, SPAN, flags)), false)
    }

    #[test]
    fn b3_in_one_header() {
        let ids = "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1";
        assert_eq!(read(&[("b3", ids)]), good(0));
        assert_eq!(read(&[("B3", &format!("{ids}-1"))]), good(1));
        assert_eq!(read(&[("b3", &format!("{ids}-d-05e3ac9a4f6e3b90"))]), good(1));
        assert_eq!(read(&[("b3", &format!("{ids}-0-05e3ac9a4f6e3b90"))]), good(0));
        let short = read(&[("b3", "64fe8b2a57d3eff7-e457b5a2e4d86bd1-1")]);
        assert_eq!(short, (Some((0x64fe_8b2a_57d3_eff7, SPAN, 1)), false));
        for decision in ["0", "1", "d"] {
            assert_eq!(read(&[("b3", decision)]), (None, false), "{decision}");
        }
    }

    #[test]
    fn b3_in_many_headers() {
        let trace = ("X-B3-TraceId", "80f198ee56343ba864fe8b2a57d3eff7");
        let span = ("X-B3-SpanId", "e457b5a2e4d86bd1");
        assert_eq!(read(&[trace, span]), good(0));
        assert_eq!(read(&[("x-b3-sampled", "1"), span, trace, ("X-B3-ParentSpanId", "05e3ac9a4f6e3b90")]), good(1));
        assert_eq!(read(&[trace, span, ("X-B3-Flags", "1")]), good(1));
        assert_eq!(read(&[("X-B3-Sampled", "0")]), (None, false));
        for list in [&[trace][..], &[span], &[trace, trace, span], &[trace, span, span]] {
            assert_eq!(read(list), (None, true), "{list:?}");
        }
    }

    #[test]
    fn amazon_trace_ids() {
        let (root, parent) = ("Root=1-80f198ee-56343ba864fe8b2a57d3eff7", "Parent=e457b5a2e4d86bd1");
        let header = |value: String| read(&[("X-Amzn-Trace-Id", &value)]);
        assert_eq!(header(format!("{root};{parent};Sampled=1")), good(1));
        assert_eq!(header(format!("Sampled=0; {parent}; Lineage=a:1|b:0; {root}")), good(0));
        assert_eq!(header(format!("Self=1-67891234-12456789abcdef012345678;{root};{parent};Sampled=?")), good(0));
        assert_eq!(header(root.to_owned()), (None, false));
        for bad in [
            String::new(),
            parent.to_owned(),
            format!("{root};{root};{parent}"),
            format!("{root};Parent=0000000000000000"),
            format!("{root};Parent=x"),
            format!("{root};{parent};Sampled=2"),
            format!("{root};{parent};nothing"),
            format!("{};{parent}", root.replace("=1-", "=2-")),
            format!("{root};{parent};Pad={}", "x".repeat(AMAZON_MOST)),
        ] {
            assert_eq!(header(bad.clone()), (None, true), "{bad}");
        }
    }

    #[test]
    fn ids_of_requests_are_told_apart_and_not_kept() {
        let id = |list: &[(&str, &str)]| {
            let mut headers = Propagation::default();
            for (name, value) in list {
                headers.add(name.as_bytes(), value.as_bytes(), value.ends_with("cut"));
            }
            (headers.request_id(), headers.ignored())
        };
        let one = id(&[("X-Request-ID", "6c1f2a7e-0b1d-4f3f-9a53-0a4b")]);
        assert!(one.0.is_some() && !one.1);
        assert_eq!(id(&[("x-request-id", "6c1f2a7e-0b1d-4f3f-9a53-0a4b")]), one);
        assert_eq!(
            id(&[("x-correlation-id", "another-1234567890"), ("x-request-id", "6c1f2a7e-0b1d-4f3f-9a53-0a4b")]),
            one
        );
        assert_ne!(id(&[("x-correlation-id", "6c1f2a7e-0b1d-4f3f-9a53-0a4b")]).0, one.0);
        assert_eq!(id(&[("x-request-id", "healthcheck")]), (None, false));
        let again = ("x-request-id", "6c1f2a7e-0b1d-4f3f-9a53-0a4b");
        assert_eq!(id(&[again, again]), (None, true));
        assert_eq!(id(&[("x-request-id", &"a".repeat(201))]), (None, true));
        assert_eq!(id(&[("x-request-id", "6c1f2a7e-0b1d-4f3f-cut")]), (None, true));
        let root = "Root=1-80f198ee-56343ba864fe8b2a57d3eff7";
        assert!(id(&[("X-Amzn-Trace-Id", root)]).0.is_some());
        assert_eq!(id(&[("X-Amzn-Trace-Id", &format!("{root};Parent=e457b5a2e4d86bd1"))]), (None, false));
    }

    #[test]
    fn the_first_valid_one_counts() {
        let parent = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let single = ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1");
        let multi = [("X-B3-TraceId", "00000000000000aa00000000000000aa"), ("X-B3-SpanId", "00000000000000aa")];
        let amazon = ("X-Amzn-Trace-Id", "Root=1-00000000-0000000000000000000000bb;Parent=00000000000000bb");
        let first = |list: &[(&str, &str)]| read(list).0.map(|(trace, _, _)| trace);
        assert_eq!(
            first(&[amazon, multi[0], multi[1], single, parent]),
            Some(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c)
        );
        assert_eq!(first(&[amazon, multi[0], multi[1], single]), Some(TRACE));
        assert_eq!(first(&[amazon, multi[0], multi[1]]), Some((0xaa << 64) | 0xaa));
        assert_eq!(first(&[amazon]), Some(0xbb));
        assert_eq!(read(&[("traceparent", "00-xyz"), single]), (Some((TRACE, SPAN, 1)), true));
        assert_eq!(read(&[single, single, amazon]), (Some((0xbb, 0xbb, 0)), true));
    }

    #[test]
    fn what_is_malformed_or_cut_is_ignored() {
        for bad in [
            "",
            "2",
            "x",
            "80f198ee56343ba864fe8b2a57d3eff7",
            "80F198EE56343BA864FE8B2A57D3EFF7-e457b5a2e4d86bd1",
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd",
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-",
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-2",
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3",
            "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90-1",
            "00000000000000000000000000000000-e457b5a2e4d86bd1",
            "80f198ee56343ba864fe8b2a57d3eff7-0000000000000000",
        ] {
            assert_eq!(read(&[("b3", bad)]), (None, true), "{bad}");
        }
        assert_eq!(read(&[("b3", &"a".repeat(100_000))]), (None, true));
        let mut headers = Propagation::default();
        headers.add(b"b3", b"80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1", true);
        assert!(headers.context().is_none() && headers.ignored());
    }
}
