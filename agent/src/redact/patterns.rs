//! Templates that the configuration gives: `/orders/{id}`, `/files/{path*}`.

use std::sync::Arc;

/// A template that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("route template `{template}`: {problem}")]
pub struct BadTemplate {
    /// As it was given.
    pub template: String,
    /// What is wrong, and what would be right.
    pub problem: &'static str,
}

/// Longest template, in bytes.
const LONGEST: usize = 256;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Word(Box<str>),
    /// One segment that is not empty.
    Any,
    /// One segment or more; only at the end.
    Rest,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: Arc<str>,
    parts: Vec<Part>,
}

/// Templates in their order: the first that fits a path is its route.
#[derive(Clone, Debug, Default)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// Reads templates. A segment is a word, `{name}` (any one segment) or, at the end, `{name*}` (one or more).
    pub fn new<T: AsRef<str>>(templates: &[T]) -> Result<Self, BadTemplate> {
        templates.iter().map(|template| pattern(template.as_ref())).collect::<Result<_, _>>().map(Self)
    }

    /// The first template that fits. An empty segment at the path's end is left out of account.
    pub(super) fn find(&self, path: &str) -> Option<Arc<str>> {
        self.0.iter().find(|pattern| pattern.fits(path)).map(|pattern| Arc::clone(&pattern.text))
    }
}

impl Pattern {
    fn fits(&self, path: &str) -> bool {
        let path = path.strip_prefix('/').unwrap_or(path);
        let path = path.strip_suffix('/').unwrap_or(path);
        let mut segments = path.split('/');
        for part in &self.parts {
            let fits = match (part, segments.next()) {
                (Part::Word(word), Some(segment)) => **word == *segment,
                (Part::Any, Some(segment)) => !segment.is_empty(),
                (Part::Rest, Some(segment)) => return !segment.is_empty(),
                (_, None) => false,
            };
            if !fits {
                return false;
            }
        }
        segments.next().is_none()
    }
}

fn pattern(template: &str) -> Result<Pattern, BadTemplate> {
    let bad = |problem| Err(BadTemplate { template: template.to_owned(), problem });
    let Some(path) = template.strip_prefix('/') else {
        return bad("begin it with /");
    };
    if template.len() > LONGEST {
        return bad("it is longer than 256 bytes");
    }
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut parts = Vec::new();
    for segment in path.split('/') {
        if parts.last() == Some(&Part::Rest) {
            return bad("{name*} must be its last segment");
        }
        let name = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}'));
        parts.push(match name {
            None if segment.contains(['{', '}']) => return bad("a segment is a word or {name}, not both"),
            None if segment.contains(['?', '#', ' ']) => return bad("only the path belongs in it: no ?, # or space"),
            None if segment.is_empty() && !path.is_empty() => return bad("it has an empty segment: write one /"),
            None => Part::Word(segment.into()),
            Some(name) => {
                let (name, part) = name.strip_suffix('*').map_or((name, Part::Any), |name| (name, Part::Rest));
                if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte)) {
                    return bad("a name in braces is made of letters, digits, _ - and .");
                }
                part
            }
        });
    }
    Ok(Pattern { text: template.into(), parts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_fits() {
        let patterns =
            Patterns::new(&["/orders/new", "/orders/{id}", "/orders/{id}/lines/{line}", "/files/{path*}", "/"])
                .unwrap();
        for (path, route) in [
            ("/orders/new", Some("/orders/new")),
            ("/orders/17", Some("/orders/{id}")),
            ("/orders/17/", Some("/orders/{id}")),
            ("/orders//", None),
            ("/orders", None),
            ("/orders/17/lines", None),
            ("/orders/17/lines/2", Some("/orders/{id}/lines/{line}")),
            ("/files/a/b/c", Some("/files/{path*}")),
            ("/files", None),
            ("/", Some("/")),
            ("/Orders/17", None),
        ] {
            assert_eq!(patterns.find(path).as_deref(), route, "{path}");
        }
    }

    #[test]
    fn bad_ones_say_what_is_wrong() {
        for (template, problem) in [
            ("orders", "begin it with /"),
            ("/a{b}", "a segment is a word or {name}, not both"),
            ("/{}", "a name in braces is made of letters, digits, _ - and ."),
            ("/{a b}", "a name in braces is made of letters, digits, _ - and ."),
            ("/{a*}/b", "{name*} must be its last segment"),
            ("/a//b", "it has an empty segment: write one /"),
            ("/a?b", "only the path belongs in it: no ?, # or space"),
        ] {
            assert_eq!(Patterns::new(&[template]).unwrap_err(), BadTemplate { template: template.into(), problem });
        }
        assert_eq!(Patterns::new(&["x"]).unwrap_err().to_string(), "route template `x`: begin it with /");
    }
}
