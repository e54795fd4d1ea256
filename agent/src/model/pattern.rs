//! Patterns of names: `*` stands for any text.

/// Whether `text` fits `pattern`, in which `*` stands for any text, also none. Time is bounded by the product of the
/// lengths, memory is not used.
#[must_use]
pub fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_text() {
        for (pattern, text, expected) in [
            ("shop", "shop", true),
            ("shop", "shops", false),
            ("shop*", "shop", true),
            ("*shop", "my-shop", true),
            ("s*p", "shop", true),
            ("s*op*p", "shop", false),
            ("*", "", true),
            ("**", "x", true),
            ("a*a", "a", false),
            ("*b*d*", "abcde", true),
            ("*d*b*", "abcde", false),
            ("", "", true),
            ("", "x", false),
        ] {
            assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
        }
    }
}
