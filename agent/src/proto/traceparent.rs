//! W3C Trace Context level 1: the `traceparent` header, to the letter.

use crate::model::TraceContext;
use crate::proto::hex::hex;

/// Parses a header value, surrounding whitespace already off. `None` is malformed: to be ignored (§4.3).
///
/// Version `00` is exactly 55 bytes; a higher version may be longer, then with `-` after the flags, and its known part
/// is used (§4.3); version `ff` is invalid; hex digits are lower case; ids of zeros only are invalid (§3.2.2).
#[must_use]
pub fn parse(value: &[u8]) -> Option<TraceContext> {
    let (known, rest) = value.split_at_checked(55)?;
    let dashes = [2, 35, 52].iter().all(|&at| known.get(at) == Some(&b'-'));
    let [version] = hex(known.get(..2)?)?;
    let trace: [u8; 16] = hex(known.get(3..35)?)?;
    let span: [u8; 8] = hex(known.get(36..52)?)?;
    let [flags] = hex(known.get(53..)?)?;
    let length = match version {
        0 => rest.is_empty(),
        0xff => false,
        _ => rest.first().is_none_or(|&byte| byte == b'-'),
    };
    let valid = dashes && length && trace != [0; 16] && span != [0; 8];
    valid.then_some(TraceContext { trace, span, flags })
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &[u8] = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn reads_the_example_of_the_standard() {
        let context = parse(GOOD).unwrap();
        assert_eq!(context.trace, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
        assert_eq!(context.span, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
        assert_eq!(context.flags, 1);
    }

    #[test]
    fn a_future_version_may_be_longer() {
        let mut future = GOOD.to_vec();
        future[1] = b'1';
        assert_eq!(parse(&future), parse(GOOD));
        future.extend(b"-what-comes");
        assert_eq!(parse(&future), parse(GOOD));
        future[55] = b'.';
        assert_eq!(parse(&future), None);
    }

    #[test]
    fn refuses_what_the_standard_refuses() {
        let text = std::str::from_utf8(GOOD).unwrap();
        let bad = [
            text.to_uppercase(),
            text.replace('-', "_"),
            format!("{text}-00"),
            format!("{text}0"),
            text[..54].to_owned(),
            text.replacen("00-", "ff-", 1),
            text.replacen("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32), 1),
            text.replacen("b7ad6b7169203331", &"0".repeat(16), 1),
            text.replacen("0af7", "0ag7", 1),
            text.replacen("0af7", "0AF7", 1),
            String::new(),
        ];
        for value in bad {
            assert_eq!(parse(value.as_bytes()), None, "{value}");
        }
    }

    #[test]
    fn every_single_byte_change_is_read_or_refused() {
        for at in 0..GOOD.len() {
            for byte in 0..=255 {
                let mut value = GOOD.to_vec();
                value[at] = byte;
                let hex = byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
                let fine = match at {
                    0 | 1 => byte == b'0',
                    2 | 35 | 52 => byte == b'-',
                    _ => hex,
                };
                // A version other than 00 is a future one, and only ff is refused.
                let future = at < 2 && hex;
                assert_eq!(parse(&value).is_some(), fine || future, "{at} {byte}");
            }
        }
    }
}
