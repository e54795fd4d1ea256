//! Header fields that matter here: framing (RFC 9112 §6), host, user agent, trace context.

use crate::model::{Forwarded, TraceContext, Version};
use crate::proto::forwarded;
use crate::proto::propagation::Propagation;

use super::line;

/// Kept of a host, in bytes.
const HOST_KEPT: usize = 255;
/// Kept of a user agent, in bytes.
const AGENT_KEPT: usize = 256;

/// `Content-Length` over all of its fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Length {
    #[default]
    Absent,
    Of(u64),
    /// Not a number, or two that differ (RFC 9112 §6.3 rule 5).
    Invalid,
}

/// The last coding of `Transfer-Encoding`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    #[default]
    Absent,
    Chunked,
    Other,
}

/// How a message's body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// No body, or one of this many bytes.
    Length(u64),
    /// RFC 9112 §7.1.
    Chunked,
    /// Until the connection closes.
    Close,
    /// The fields contradict each other: where the message ends can't be known.
    Invalid,
}

/// What a header section said.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Fields {
    length: Length,
    coding: Coding,
    /// Trace headers, where there may be some: most heads have none, and every head is moved about.
    propagation: Option<Box<Propagation>>,
    /// What hops said of the request's way, where they did.
    pub(super) way: Option<Box<Forwarded>>,
    /// `Expect: 100-continue`.
    pub(super) expects: bool,
    /// `Host`, the last one, as the kernel half reads it.
    pub(super) host: Option<Box<str>>,
    /// `User-Agent`, the first one.
    pub(super) agent: Option<Box<str>>,
    /// Hash of the first field that tells for whom it is forwarded.
    pub(super) forwarded: Option<u64>,
    /// Of the fields that servers are known to read differently: those that came.
    came: u8,
    /// One of them came twice, or is not of its plain form.
    odd: bool,
}

const LENGTH: u8 = 1;
const CODING: u8 = 2;
const HOST: u8 = 4;

impl Fields {
    /// Takes one field. `cut`: the value is only the beginning of what was sent.
    pub(super) fn add(&mut self, name: &[u8], value: &[u8], cut: bool) {
        let is = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
        match name.len() {
            4 if is("host") => {
                self.host = None;
                keep(&mut self.host, value, HOST_KEPT);
                let plain = |&byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
                self.comes(HOST, value.iter().all(plain));
            }
            6 if is("expect") => self.expects |= value.eq_ignore_ascii_case(b"100-continue"),
            9 if is("forwarded") => {
                forwarded::forwarded(value, cut, &mut self.way.get_or_insert_default().forwarded);
                self.forward(value);
            }
            9 if is("x-real-ip") => self.forward(value),
            10 if is("user-agent") => keep(&mut self.agent, value, AGENT_KEPT),
            14 if is("content-length") => {
                self.add_length(value, cut);
                self.comes(LENGTH, (1..=15).contains(&value.len()) && value.iter().all(u8::is_ascii_digit));
            }
            15 if is("x-forwarded-for") => {
                forwarded::x_forwarded_for(value, cut, &mut self.way.get_or_insert_default().x_forwarded_for);
                self.forward(value);
            }
            17 if is("transfer-encoding") => {
                self.add_coding(value, cut);
                self.comes(CODING, value.eq_ignore_ascii_case(b"chunked"));
            }
            _ if Propagation::may_take(name) => self.propagation.get_or_insert_default().add(name, value, cut),
            _ => {}
        }
    }

    fn comes(&mut self, which: u8, plain: bool) {
        self.odd |= !plain || self.came & which != 0;
        self.came |= which;
    }

    /// Servers may read these fields differently: the head is to be looked at as it was sent. Lines that are no fields
    /// are not seen here.
    pub(super) fn odd(&self, version: Version) -> bool {
        // Transfer-Encoding in HTTP/1.0: RFC 9112 §6.1.
        let old = version == Version::Http10 && self.came & CODING != 0;
        self.odd || old || self.came & (LENGTH | CODING) == LENGTH | CODING
    }

    fn forward(&mut self, value: &[u8]) {
        // FNV-1a: claims are only compared with each other, and who makes them up may as well repeat them.
        let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        self.forwarded.get_or_insert_with(|| value.trim_ascii().iter().fold(0xcbf2_9ce4_8422_2325, hash));
    }

    fn add_length(&mut self, value: &[u8], cut: bool) {
        for item in value.split(|&byte| byte == b',') {
            let length = decimal(item.trim_ascii()).filter(|_| !cut);
            self.length = match (self.length, length) {
                (Length::Absent, Some(length)) => Length::Of(length),
                (Length::Of(before), Some(length)) if before == length => Length::Of(length),
                _ => Length::Invalid,
            };
        }
    }

    fn add_coding(&mut self, value: &[u8], cut: bool) {
        // RFC 9110 §5.6.1: empty list elements are ignored.
        let mut items = value.split(|&byte| byte == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty());
        self.coding = match items.next_back() {
            Some(last) if last.eq_ignore_ascii_case(b"chunked") && !cut => Coding::Chunked,
            Some(_) => Coding::Other,
            None if self.coding == Coding::Absent => Coding::Other,
            None => self.coding,
        };
    }

    /// RFC 9112 §6.3 for a request.
    pub(super) fn request_framing(&self) -> Framing {
        match (self.coding, self.length) {
            (Coding::Chunked, _) => Framing::Chunked,
            (Coding::Other, _) | (Coding::Absent, Length::Invalid) => Framing::Invalid,
            (Coding::Absent, Length::Of(length)) => Framing::Length(length),
            (Coding::Absent, Length::Absent) => Framing::Length(0),
        }
    }

    /// RFC 9112 §6.3 for a response that may have a body.
    pub(super) fn response_framing(&self) -> Framing {
        match (self.coding, self.length) {
            (Coding::Chunked, _) => Framing::Chunked,
            (Coding::Other, _) | (Coding::Absent, Length::Absent) => Framing::Close,
            (Coding::Absent, Length::Invalid) => Framing::Invalid,
            (Coding::Absent, Length::Of(length)) => Framing::Length(length),
        }
    }

    /// The trace context, by the precedence of [`Propagation`].
    pub(super) fn context(&self) -> Option<TraceContext> {
        self.propagation.as_ref()?.context()
    }

    /// Keyed hash of what names the request itself.
    pub(super) fn request_id(&self) -> Option<u64> {
        self.propagation.as_ref()?.request_id()
    }

    /// There was a trace header that had to be ignored.
    pub(super) fn context_ignored(&self) -> bool {
        self.propagation.as_ref().is_some_and(|told| told.ignored())
    }
}

fn keep(slot: &mut Option<Box<str>>, value: &[u8], most: usize) {
    if slot.is_none() {
        *slot = Some(line::text(value.get(..most).unwrap_or(value)));
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, &digit| {
        let digit = digit.checked_sub(b'0').filter(|&digit| digit < 10)?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// The authority of an absolute-form target (RFC 9112 §3.2.2), without user information.
pub(super) fn authority(target: &str) -> Option<Box<str>> {
    let (scheme, rest) = target.split_once("://")?;
    if scheme.is_empty() || !scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return None;
    }
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    Some(line::text(host.as_bytes().get(..HOST_KEPT).unwrap_or(host.as_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(list: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in list {
            fields.add(name.as_bytes(), value.as_bytes(), false);
        }
        fields
    }

    type Case<'a> = (&'a [(&'a str, &'a str)], Framing, Framing);

    #[test]
    fn framing_follows_rfc_9112() {
        let length = "Content-Length";
        let coding = "transfer-ENCODING";
        let cases: [Case<'_>; 14] = [
            (&[], Framing::Length(0), Framing::Close),
            (&[(length, "5")], Framing::Length(5), Framing::Length(5)),
            (&[(length, "5, 5"), (length, "5")], Framing::Length(5), Framing::Length(5)),
            (&[(length, "5"), (length, "6")], Framing::Invalid, Framing::Invalid),
            (&[(length, "5,6")], Framing::Invalid, Framing::Invalid),
            (&[(length, "+5")], Framing::Invalid, Framing::Invalid),
            (&[(length, "")], Framing::Invalid, Framing::Invalid),
            (&[(length, "18446744073709551615")], Framing::Length(u64::MAX), Framing::Length(u64::MAX)),
            (&[(length, "18446744073709551616")], Framing::Invalid, Framing::Invalid),
            (&[(coding, "chunked")], Framing::Chunked, Framing::Chunked),
            (&[(coding, "gzip, Chunked"), (length, "7")], Framing::Chunked, Framing::Chunked),
            (&[(coding, "gzip"), (coding, "chunked,")], Framing::Chunked, Framing::Chunked),
            (&[(coding, "chunked, gzip")], Framing::Invalid, Framing::Close),
            (&[(coding, "identity"), (length, "3")], Framing::Invalid, Framing::Close),
        ];
        for (list, request, response) in cases {
            let fields = fields(list);
            assert_eq!((fields.request_framing(), fields.response_framing()), (request, response), "{list:?}");
        }
        let mut cut = Fields::default();
        cut.add(b"content-length", b"5", true);
        assert_eq!(cut.request_framing(), Framing::Invalid);
    }

    #[test]
    fn a_repeated_trace_context_is_ignored() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let one = fields(&[("Traceparent", good)]);
        assert!(one.context().is_some() && !one.context_ignored());
        for list in [
            &[("traceparent", good), ("traceparent", good)][..],
            &[("traceparent", "x"), ("traceparent", good)],
            &[("traceparent", "")],
        ] {
            let fields = fields(list);
            assert!(fields.context().is_none() && fields.context_ignored(), "{list:?}");
        }
    }

    #[test]
    fn authorities() {
        assert_eq!(authority("http://a.test:80/x").as_deref(), Some("a.test:80"));
        assert_eq!(authority("http://user:secret@a.test?x").as_deref(), Some("a.test"));
        assert_eq!(authority("/x?u=http://a"), None);
        assert_eq!(authority("*"), None);
    }
}
