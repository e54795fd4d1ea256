//! Protobuf written straight into a buffer. Spans are the one thing that is exported per call: going through
//! `opentelemetry-proto`'s owned types would cost some forty allocations each. The tests read what is written here
//! with those types.

use bytes::BufMut;
use prost::encoding::{encode_varint, encoded_len_varint};

use crate::model::semconv::Value;

const VARINT: u32 = 0;
const FIXED64: u32 = 1;
const BYTES: u32 = 2;
const FIXED32: u32 = 5;

/// A varint, of which nearly all here are one byte.
fn number(out: &mut Vec<u8>, value: u64) {
    if value < 0x80 {
        out.push(value as u8);
    } else {
        encode_varint(value, out);
    }
}

fn key(out: &mut Vec<u8>, tag: u32, kind: u32) {
    number(out, u64::from(tag << 3 | kind));
}

/// A length-delimited field: `bytes`, `string`, or a message that is encoded already.
pub(super) fn bytes(out: &mut Vec<u8>, tag: u32, value: &[u8]) {
    key(out, tag, BYTES);
    number(out, value.len() as u64);
    out.extend_from_slice(value);
}

/// The head of a length-delimited field whose `len` bytes the caller writes next.
pub(super) fn head(out: &mut Vec<u8>, tag: u32, len: usize) {
    key(out, tag, BYTES);
    number(out, len as u64);
}

/// Bytes that a length-delimited field of `len` bytes takes, for tags below 16.
pub(super) fn field_len(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// A varint field.
pub(super) fn varint(out: &mut Vec<u8>, tag: u32, value: u64) {
    key(out, tag, VARINT);
    number(out, value);
}

/// A `fixed64` field.
pub(super) fn fixed64(out: &mut Vec<u8>, tag: u32, value: u64) {
    key(out, tag, FIXED64);
    out.put_u64_le(value);
}

/// A `fixed32` field.
pub(super) fn fixed32(out: &mut Vec<u8>, tag: u32, value: u32) {
    key(out, tag, FIXED32);
    out.put_u32_le(value);
}

/// A `KeyValue` field (opentelemetry.proto.common.v1). `scratch` is for values that must be written to be measured.
pub(super) fn attribute(out: &mut Vec<u8>, tag: u32, name: &str, value: Value<'_>, scratch: &mut String) {
    match value {
        Value::Int(number) => {
            let any = 1 + encoded_len_varint(number.cast_unsigned());
            head(out, tag, field_len(name.len()) + field_len(any));
            bytes(out, 1, name.as_bytes());
            head(out, 2, any);
            varint(out, 3, number.cast_unsigned());
        }
        Value::Bool(truth) => {
            head(out, tag, field_len(name.len()) + field_len(2));
            bytes(out, 1, name.as_bytes());
            head(out, 2, 2);
            varint(out, 2, u64::from(truth));
        }
        Value::Str(text) => string(out, tag, name, text),
        Value::Words(..) | Value::Url(_) | Value::Ip(_) => string(out, tag, name, written(value, scratch)),
    }
}

/// A value as text, written to `scratch` where it is not text already.
pub(super) fn written<'a>(value: Value<'a>, scratch: &'a mut String) -> &'a str {
    use std::fmt::Write;
    if let Value::Str(text) = value {
        return text;
    }
    scratch.clear();
    // Writing to a String can't fail.
    let _ = write!(scratch, "{value}");
    scratch
}

fn string(out: &mut Vec<u8>, tag: u32, name: &str, text: &str) {
    let any = field_len(text.len());
    head(out, tag, field_len(name.len()) + field_len(any));
    bytes(out, 1, name.as_bytes());
    head(out, 2, any);
    bytes(out, 1, text.as_bytes());
}
