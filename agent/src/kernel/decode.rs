//! Ring records → [`Event`]s: every length checked.

use weir_common::record::{Asked, Bytes, Closed, Dns, Exec, Exit, HOLD, Head, Kind, Opened, Pair, Read};
use weir_common::verdict::Verdict;

use crate::model::Event;

/// A plain record of the border: any bytes are a valid value of it.
///
/// # Safety
///
/// Only for `repr(C)` structures of integers without padding.
unsafe trait Record: Copy {}
// SAFETY: `repr(C)`, integers only, no padding (weir-common's tests/layout.rs).
unsafe impl Record for Head {}
// SAFETY: as above.
unsafe impl Record for Opened {}
// SAFETY: as above.
unsafe impl Record for Bytes {}
// SAFETY: as above.
unsafe impl Record for Pair {}
// SAFETY: as above.
unsafe impl Record for Closed {}
// SAFETY: as above.
unsafe impl Record for Exec {}
// SAFETY: as above.
unsafe impl Record for Exit {}
// SAFETY: as above.
unsafe impl Record for Read {}
// SAFETY: as above.
unsafe impl Record for Asked {}
// SAFETY: as above.
unsafe impl Record for Dns {}
// SAFETY: as above.
unsafe impl Record for Verdict {}

/// Borrows the first bytes as `T`.
fn view<T: Record>(bytes: &[u8]) -> Option<&T> {
    let pointer = bytes.as_ptr();
    if bytes.len() < size_of::<T>() || pointer.align_offset(align_of::<T>()) != 0 {
        return None;
    }
    // SAFETY: long enough and aligned (both checked above); any bytes are a valid `T` (`Record`).
    Some(unsafe { &*pointer.cast::<T>() })
}

/// Decodes a record of the ring, which the kernel aligns to 8 bytes; `None` for one that is too short, misaligned or of
/// a kind that this agent does not know.
#[must_use]
pub fn decode(record: &[u8]) -> Option<Event<'_>> {
    match Kind(view::<Head>(record)?.kind) {
        Kind::OPENED => view(record).map(Event::Opened),
        Kind::BYTES => {
            let bytes = view::<Bytes>(record)?;
            let data = record.get(size_of::<Bytes>()..)?.get(..bytes.segment.kept as usize)?;
            Some(Event::Bytes(bytes, data))
        }
        Kind::PAIR => {
            let pair = view::<Pair>(record)?;
            let data = record.get(size_of::<Pair>()..)?;
            let request = data.get(..HOLD)?.get(..pair.request.kept as usize)?;
            let response = data.get(HOLD..)?.get(..pair.response.kept as usize)?;
            Some(Event::Pair(pair, request, response))
        }
        Kind::CLOSED => view(record).map(Event::Closed),
        Kind::EXEC => {
            let exec = view::<Exec>(record)?;
            Some(Event::Exec(exec, exec.args.get(..exec.len as usize)?))
        }
        Kind::EXIT => view(record).map(Event::Exit),
        Kind::READ => view(record).map(Event::Read),
        Kind::ASKED => view(record).map(Event::Asked),
        Kind::DNS => {
            let dns = view::<Dns>(record)?;
            let data = record.get(size_of::<Dns>()..)?.get(..dns.kept as usize)?;
            Some(Event::Dns(dns, data))
        }
        Kind::VERDICT => view(record).map(Event::Refused),
        _ => None,
    }
}

/// The record's kind, for counting what can't be decoded.
#[must_use]
pub fn kind(record: &[u8]) -> Option<u16> {
    view::<Head>(record).map(|head| head.kind)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn hostile_records_never_panic(words in proptest::collection::vec(any::<u64>(), 0..160), kind in 0u16..11, cut in 0usize..1280) {
            let mut bytes: Vec<u64> = words;
            if let Some(first) = bytes.first_mut() {
                *first = (*first & !0xffff) | u64::from(kind);
            }
            // SAFETY: u64 has no padding; a byte view of it is always valid.
            let view = unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), bytes.len() * 8) };
            let record = &view[..cut.min(view.len())];
            if let Some(Event::Bytes(head, data)) = decode(record) {
                prop_assert_eq!(head.segment.kept as usize, data.len());
            }
        }
    }
}
