//! The version in `.go.buildinfo` (`debug/buildinfo`), as Go 1.18 and later write it.

/// How the section begins.
const MAGIC: &[u8] = b"\xff Go buildinf:";
/// Where the flags stand, and the one that says that the texts follow.
const FLAGS: usize = 15;
const INLINE: u8 = 2;
/// Where they follow.
const TEXTS: usize = 32;
/// Longer versions are none.
const LONGEST: usize = 128;

/// The version of the compiler; `None` where there is none.
pub(super) fn version(section: &[u8]) -> Option<&str> {
    // The linker aligns it to 16 bytes and puts nothing before it.
    let section = section.starts_with(MAGIC).then_some(section)?;
    if section.get(FLAGS)? & INLINE == 0 {
        return None;
    }
    let texts = section.get(TEXTS..)?;
    let (mut len, mut at) = (0usize, 0);
    loop {
        let byte = *texts.get(at)?;
        len |= usize::from(byte & 0x7f) << (7 * at);
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > 2 {
            return None;
        }
    }
    if len > LONGEST {
        return None;
    }
    std::str::from_utf8(texts.get(at..at + len)?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn section(version: &str) -> Vec<u8> {
        let mut bytes = [MAGIC, &[8, INLINE]].concat();
        bytes.resize(TEXTS, 0);
        bytes.push(version.len() as u8);
        bytes.extend(version.as_bytes());
        bytes
    }

    #[test]
    fn what_the_linker_writes() {
        assert_eq!(version(&section("go1.26.8")), Some("go1.26.8"));
        assert_eq!(version(&section("go1.26.8")[..36]), None);
        assert_eq!(version(b"\xff Go buildinf:\x08\x00"), None);
        assert_eq!(version(b""), None);
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            version(&bytes);
            let mut bytes = [section("go1.2").as_slice(), &bytes].concat();
            bytes.truncate(300);
            if let Some(at) = bytes.get_mut(TEXTS) { *at = 0xff; }
            version(&bytes);
        }
    }
}
