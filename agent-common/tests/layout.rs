//! The border's layouts, byte for byte: a change here is a change of `ABI`.

use core::mem::{offset_of, size_of};
use weir_common::{conn, goroutine, knob, record};

#[test]
fn sizes_have_no_padding() {
    assert_eq!(size_of::<conn::Owner>(), 4 + 4 + 4 + 1 + 3 + 8 + 16);
    assert_eq!(size_of::<conn::Ends>(), 16 + 16 + 2 + 2 + 2 + 2);
    assert_eq!(size_of::<record::Head>(), 2 + 2 + 4 + 8 + 8);
    assert_eq!(size_of::<record::Segment>(), 8 + 4 + 4 + 4 + 1 + 1 + 2);
    assert_eq!(size_of::<record::Opened>(), 24 + 40 + 40 + 8 + 8 + 1 + 1 + 1 + 5 + 8);
    assert_eq!(size_of::<record::Closed>(), 24 + 40 + 40 + 16 + 4 + 4 + 8);
    assert_eq!(size_of::<record::Read>(), 24 + 4 + 4);
    assert_eq!(size_of::<record::Asked>(), 24 + 8 + 4 * 4);
    assert_eq!(size_of::<record::Dns>(), 24 + 8 + 4 + 4 + 4 + 1 + 3);
    assert_eq!(size_of::<knob::Offsets>(), 18 * 4);
    assert_eq!(size_of::<knob::GoOffsets>(), 8 * 4);
    assert_eq!(size_of::<goroutine::GoProcess>(), 4 * 8 + 4 * 4);
}

#[test]
fn offsets_stay() {
    assert_eq!(offset_of!(record::Head, conn), 8);
    assert_eq!(offset_of!(record::Head, at), 16);
    assert_eq!(offset_of!(record::Bytes, segment), 24);
    assert_eq!(offset_of!(record::Bytes, errand), 56);
    assert_eq!(offset_of!(record::Pair, response), 48);
    assert_eq!(offset_of!(record::Pair, errand), 80);
    assert_eq!(offset_of!(record::Opened, owner), 64);
    assert_eq!(offset_of!(record::Opened, next), 128);
    assert_eq!(offset_of!(record::Closed, bytes), 104);
    assert_eq!(offset_of!(record::Exec, args), 72);
}
