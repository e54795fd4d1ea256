//! A request target without what is private in it.

/// Put in the place of a value.
const REDACTED: &str = "REDACTED";

/// Keys whose values are never shown, whatever is allowed: parts of them, in lower case, `-` as `_`.
const SECRET: &[&str] = &[
    "access_key",
    "accesskey",
    "api_key",
    "apikey",
    "assertion",
    "auth",
    "code",
    "cookie",
    "credential",
    "csrf",
    "cvv",
    "jwt",
    "key_id",
    "keyid",
    "nonce",
    "otp",
    "passphrase",
    "passwd",
    "password",
    "pin",
    "private",
    "pwd",
    "refresh",
    "saml",
    "secret",
    "session",
    "sig",
    "ssn",
    "ticket",
    "token",
    "xsrf",
];

/// The path of a target, without query, fragment and authority: `None` where it has none (`*`, an authority).
pub(super) fn path(target: &str) -> Option<&str> {
    let (_, rest) = split(target)?;
    let end = rest.find(['?', '#']).unwrap_or(rest.len());
    let path = rest.get(..end)?;
    Some(if path.is_empty() { "/" } else { path })
}

/// Scheme and authority of an absolute-form target (else empty), and what follows.
fn split(target: &str) -> Option<(&str, &str)> {
    if target.starts_with('/') {
        return Some(("", target));
    }
    let scheme = target.find("://")?;
    let name = target.get(..scheme)?;
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)) {
        return None;
    }
    let scheme = scheme + 3;
    let authority = target.get(scheme..)?.find(['/', '?', '#']).map_or(target.len(), |at| scheme + at);
    target.split_at_checked(authority)
}

/// The target as it may be shown at level `standard`: no user information, no fragment, matrix parameters and query
/// without values but those of allowed keys. Empty where nothing is certain about its form.
pub(super) fn shown(target: &str, allowed: &[String]) -> Box<str> {
    if target == "*" {
        return target.into();
    }
    let Some((before, rest)) = split(target) else {
        // An authority (CONNECT): a host's name and a port.
        return if is_host(target) { target.into() } else { "".into() };
    };
    let mut shown = String::with_capacity(target.len());
    if let Some((scheme, authority)) = before.split_once("://") {
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        shown.extend([scheme, "://", host]);
    }
    let rest = rest.split('#').next().unwrap_or_default();
    let (path, query) = rest.split_once('?').map_or((rest, None), |(path, query)| (path, Some(query)));
    for (i, segment) in path.split('/').enumerate() {
        if i > 0 {
            shown.push('/');
        }
        let (segment, parameters) = segment.split_once(';').map_or((segment, None), |(a, b)| (a, Some(b)));
        shown.push_str(segment);
        for parameter in parameters.into_iter().flat_map(|parameters| parameters.split(';')) {
            shown.push(';');
            pair(parameter, allowed, &mut shown);
        }
    }
    for (i, parameter) in query.into_iter().flat_map(|query| query.split('&')).enumerate() {
        shown.push(if i == 0 { '?' } else { '&' });
        pair(parameter, allowed, &mut shown);
    }
    shown.into()
}

fn pair(parameter: &str, allowed: &[String], shown: &mut String) {
    let (key, value) = parameter.split_once('=').map_or((parameter, None), |(key, value)| (key, Some(value)));
    let allow = allowed.iter().any(|allowed| allowed == key) && !is_secret(key);
    // A key that is not known by name may itself be a value.
    shown.push_str(if allow || (value.is_some() && is_name(key)) { key } else { REDACTED });
    if let Some(value) = value {
        shown.push('=');
        shown.push_str(if allow { value } else { REDACTED });
    }
}

fn is_secret(key: &str) -> bool {
    let key = key.to_ascii_lowercase().replace('-', "_");
    SECRET.iter().any(|secret| key.contains(secret))
}

fn is_name(key: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.[]".contains(&byte);
    !key.is_empty() && key.len() <= 32 && key.bytes().all(plain) && !super::shape::is_value(key.trim_end_matches("[]"))
}

/// A host's name or address with or without a port, and nothing else.
pub(super) fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths() {
        assert_eq!(path("/a/b?c#d"), Some("/a/b"));
        assert_eq!(path("/a#d?c"), Some("/a"));
        assert_eq!(path("http://u:p@h/a?b"), Some("/a"));
        assert_eq!(path("http://h?b"), Some("/"));
        assert_eq!(path("*"), None);
        assert_eq!(path("h:443"), None);
        assert_eq!(path(""), None);
        assert_eq!(path("weird?x=http://h/secret"), None);
    }

    #[test]
    fn targets_as_they_may_be_shown() {
        let allowed = ["page".to_owned(), "tag[]".to_owned(), "token".to_owned()];
        for (target, expected) in [
            ("/a/b", "/a/b"),
            ("/a?page=2&user=bob&page=3", "/a?page=2&user=REDACTED&page=3"),
            ("/a?token=x", "/a?token=REDACTED"),
            ("/a?x-Auth-Code=1", "/a?x-Auth-Code=REDACTED"),
            ("/a?secret", "/a?REDACTED"),
            ("/a?page", "/a?page"),
            ("/a?9f8e7d6c5b4a=1", "/a?REDACTED=REDACTED"),
            ("/a?tag[]=1&b[]=2&", "/a?tag[]=1&b[]=REDACTED&REDACTED"),
            ("/a?x=1#secret", "/a?x=REDACTED"),
            ("/a#secret?page=1", "/a"),
            ("/a;jsessionid=1;page=2/b", "/a;jsessionid=REDACTED;page=2/b"),
            ("http://me:pass@h.test:80/a?page=1", "http://h.test:80/a?page=1"),
            ("http://h.test", "http://h.test"),
            ("*", "*"),
            ("db.test:443", "db.test:443"),
            ("me:pass@db.test:443", ""),
            ("weird target", ""),
            ("weird?x=http://me:pass@h/", ""),
            ("://h/a", ""),
        ] {
            assert_eq!(&*shown(target, &allowed), expected, "{target}");
        }
    }
}
