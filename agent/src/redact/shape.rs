//! Which path segments are values and which are words.

/// Longest word, in bytes.
const WORD: usize = 40;

/// The segment looks like a value: it may be personal, secret, or one of very many.
#[must_use]
pub(super) fn is_value(segment: &str) -> bool {
    if segment.is_empty() || is_version(segment) {
        return false;
    }
    if segment.len() > WORD || !segment.bytes().all(word_byte) {
        return true;
    }
    is_number(segment)
        || segment.split(['-', '_', '.', '~', '!', ',']).any(is_token)
        || is_mixed(segment)
        || is_unspeakable(segment)
}

/// Bytes of which words are made. `%` (encoded), `@` (addresses), `:`, `=`, `+` and the like mark values.
fn word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-_.~!,*".contains(&byte)
}

/// `v1`, `v2.1`, `v1beta1`.
fn is_version(segment: &str) -> bool {
    let Some(rest) = segment.strip_prefix('v') else { return false };
    segment.len() <= 9
        && rest.starts_with(|c: char| c.is_ascii_digit())
        && ["", "alpha", "beta", "rc"].iter().any(|stage| {
            let (number, stage_number) = rest.split_once(stage).filter(|_| !stage.is_empty()).unwrap_or((rest, ""));
            number.bytes().chain(stage_number.bytes()).all(|byte| byte.is_ascii_digit() || byte == b'.')
        })
}

/// Numbers, dates, times: digits with signs between.
fn is_number(segment: &str) -> bool {
    segment.bytes().any(|byte| byte.is_ascii_digit())
        && segment.bytes().all(|byte| byte.is_ascii_digit() || b"-.,_TZ".contains(&byte))
}

/// A part of a segment, between signs, that is no word: many digits, hexadecimal, letters and digits in turn.
fn is_token(part: &str) -> bool {
    let digits = part.bytes().filter(u8::is_ascii_digit).count();
    let hex = part.len() >= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    digits >= 4 || (hex && (digits > 0 || part.len() >= 16)) || (digits >= 2 && part.len() >= 12) || turns(part) >= 4
}

/// How often digits and letters take turns.
fn turns(part: &str) -> usize {
    part.as_bytes().windows(2).filter(|pair| matches!(pair, [a, b] if a.is_ascii_digit() != b.is_ascii_digit())).count()
}

/// Random letters: capitals all over the place, or hardly a vowel in a long run.
fn is_mixed(segment: &str) -> bool {
    let letters = segment.bytes().filter(u8::is_ascii_alphabetic).count();
    if letters < 12 {
        return false;
    }
    let changes = segment
        .as_bytes()
        .windows(2)
        .filter(|pair| {
            matches!(pair, [a, b] if a.is_ascii_alphabetic() && b.is_ascii_alphabetic()
                && a.is_ascii_uppercase() != b.is_ascii_uppercase())
        })
        .count();
    let vowels = segment.bytes().filter(|byte| b"aeiouyAEIOUY".contains(byte)).count();
    let one_run = letters == segment.len();
    changes * 5 >= letters * 2 || (one_run && letters >= 16 && vowels * 5 < letters)
}

/// Most letters in a row that stand in a word without a vowel between (`catchphrase`).
const CONSONANTS: usize = 6;

/// A run of letters that nobody could speak.
fn is_unspeakable(segment: &str) -> bool {
    let mut run = 0;
    segment.bytes().any(|byte| {
        run = if byte.is_ascii_lowercase() && !b"aeiouy".contains(&byte) { run + 1 } else { 0 };
        run > CONSONANTS
    })
}

#[cfg(test)]
mod tests {
    use super::is_value;

    #[test]
    fn words() {
        for word in [
            "",
            "orders",
            "v1",
            "v2.1",
            "v1beta1",
            "v2alpha1",
            "api",
            "getUserOrderHistory",
            "kubernetes",
            "oauth2",
            "log4j2",
            "utf-8",
            "sha256",
            "s3",
            "app.js",
            "index.html",
            "well-known",
            ".well-known",
            "openid-configuration",
            "favicon.ico",
            "facade",
            "base64url",
            "x",
            "A",
            "HTTPRequest",
            "latest",
            "_search",
            "users.list",
            "internationalization",
            "getObjectMetadataByIdentifier",
            "route-66",
            "page2",
            "catchphrase",
            "https",
            "GHTTPSRV",
            "*",
        ] {
            assert!(!is_value(word), "{word}");
        }
    }

    #[test]
    fn values() {
        for value in [
            "17",
            "0",
            "-3",
            "1.5",
            "2024-02-29",
            "2024-02-29T10:00:00Z",
            "20240229T100000Z",
            "550e8400-e29b-41d4-a716-446655440000",
            "550E8400E29B41D4A716446655440000",
            "01ARZ3NDEKTSV4RRFFQ69G5FAV",
            "deadbeef1",
            "cafebabecafebabe",
            "3f2a1b9c",
            "app.3f2a1b9c.js",
            "order-12345",
            "alice@example.test",
            "alice%40example.test",
            "hello%20world",
            "caf\u{e9}",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2ln",
            "a1b2c3d4",
            "dGhpcyBpcyBhIHNlY3JldA==",
            "s3cr3t-p4th",
            "QmYwAPJzv5CZsnAzt8auVTL",
            "AbCdEfGhIjKlMnOp",
            "xkcdqwrtzpsdfghjk",
            "xqzvbnmlkjhgfp",
            "wrtplkj",
            "507f1f77bcf86cd799439011",
            "cus_9s6XKzkNRiz8i3",
            "+4915112345678",
            "a:b",
            "k=v",
            "this-is-a-very-long-slug-of-a-blog-post-that-somebody-wrote",
            "user_2Nq8k4Jz",
            "10.0.0.1",
        ] {
            assert!(is_value(value), "{value}");
        }
    }
}
