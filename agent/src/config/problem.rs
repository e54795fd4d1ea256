//! What is wrong with a configuration, and where: a message a person can act on.

use std::{fmt, path::Path, sync::Arc};

use crate::model::shown::harmless;

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: the built-in default.
    Default,
    /// In the file.
    File {
        /// The file as named by the user.
        path: Arc<Path>,
        /// From 1.
        line: u32,
        /// From 1, in characters.
        column: u32,
    },
    /// In this environment variable.
    Env(Arc<str>),
    /// In this `--set` argument's key.
    Set(Arc<str>),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Set(key) => write!(f, "--set {key}"),
        }
    }
}

/// One thing that is wrong (or, as a warning, without effect).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub place: Place,
    /// What is wrong and what to do, naming the key.
    pub text: String,
}

impl Problem {
    /// A problem at a place.
    #[must_use]
    pub fn new(place: &Place, text: impl Into<String>) -> Self {
        Self { place: place.clone(), text: text.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The text quotes what was written, which may hold what a terminal obeys.
        write!(f, "{}: {}", self.place, harmless(&self.text))
    }
}

/// Everything that is wrong with a configuration, never empty: of the file from its first line to its last, then of
/// the environment, then of the arguments.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    pub(super) fn new(mut problems: Vec<Problem>) -> Self {
        problems.sort_by_cached_key(|problem| match &problem.place {
            Place::Default => (0, 0, 0, String::new()),
            Place::File { line, column, .. } => (1, *line, *column, String::new()),
            Place::Env(name) => (2, 0, 0, name.to_string()),
            Place::Set(key) => (3, 0, 0, key.to_string()),
        });
        Self(problems)
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, problem) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

/// ` ; did you mean …?` for a word that is near one of the known ones, else the list of them.
#[must_use]
pub(super) fn suggest(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .map(|candidate| (strsim::osa_distance(word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= 1.max(candidate.len() / 3));
    match near {
        Some((_, candidate)) => format!("; did you mean `{candidate}`?"),
        None if known.is_empty() => String::new(),
        None => format!("; known: {}", known.join(", ")),
    }
}
