//! Names given by the configuration.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::model::Hosts;

/// What the resolver may be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the procfs of the initial pid namespace is mounted.
    pub proc: PathBuf,
    /// Most processes that are remembered, 16 to 1 048 576.
    pub processes: usize,
    /// Most connections of which it is remembered who used them.
    pub connections: usize,
    /// How long an ended process is is remembered after its last use, for records that come late.
    pub grace: Duration,
    /// Most new processes a second that are read from `/proc` as soon as they are announced, so that the environment
    /// of a short-lived one is known; the others are read when they first hold a connection.
    pub eager: u32,
    /// Rules; the first one that fits wins.
    pub rules: Vec<Rule>,
    /// Other hosts, and who answers there.
    pub hosts: Arc<Hosts>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            proc: PathBuf::from("/proc"),
            processes: 32 * 1024,
            connections: 64 * 1024,
            grace: Duration::from_secs(30),
            eager: 200,
            rules: Vec::new(),
            hosts: Arc::default(),
        }
    }
}

/// A setting that can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SettingsError {
    /// [`Settings::processes`].
    #[error("processes is {0}; choose 16 to 1048576")]
    Processes(usize),
    /// A rule with no condition would name everything.
    #[error("rule {0} has no condition; give it executable, command_line, unit, container or port")]
    NoCondition(usize),
    /// A rule without an effect.
    #[error("rule {0} sets neither name nor namespace")]
    NoEffect(usize),
    /// A name that can't be exported.
    #[error("rule {0}: {1:?} is no usable name: 1 to 255 bytes without control characters")]
    Name(usize, Arc<str>),
}

impl Settings {
    /// Checks that the settings can be used. Rules are counted from 1.
    pub fn check(&self) -> Result<(), SettingsError> {
        if !(16..=1 << 20).contains(&self.processes) {
            return Err(SettingsError::Processes(self.processes));
        }
        for (number, rule) in (1..).zip(&self.rules) {
            if rule.when == When::default() {
                return Err(SettingsError::NoCondition(number));
            }
            if rule.name.is_none() && rule.namespace.is_none() {
                return Err(SettingsError::NoEffect(number));
            }
            for name in rule.name.iter().chain(&rule.namespace) {
                if super::environ::clean(name).as_ref() != Some(name) {
                    return Err(SettingsError::Name(number, name.clone()));
                }
            }
        }
        Ok(())
    }
}

/// A name for what fits all conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// Conditions; all that are given must fit.
    pub when: When,
    /// `service.name`; absent: the name found otherwise stays.
    pub name: Option<Arc<str>>,
    /// `service.namespace`.
    pub namespace: Option<Arc<str>>,
}

/// Conditions of a [`Rule`]. Patterns know `*` (any run of characters) and `?` (any one), and fit the whole text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct When {
    /// Executable: its path if the pattern holds a `/`, else its file name.
    pub executable: Option<Arc<str>>,
    /// Command line, blanks between arguments.
    pub command_line: Option<Arc<str>>,
    /// systemd unit with suffix.
    pub unit: Option<Arc<str>>,
    /// Container id.
    pub container: Option<Arc<str>>,
    /// Port that the service answers on.
    pub port: Option<u16>,
}

/// What conditions are held against.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Subject<'a> {
    pub(super) executable_path: Option<&'a str>,
    pub(super) executable_name: Option<&'a str>,
    pub(super) command_line: Option<&'a str>,
    pub(super) unit: Option<&'a str>,
    pub(super) container: Option<&'a str>,
    pub(super) port: Option<u16>,
}

impl When {
    /// Whether all conditions fit; one about a fact that is not known does not.
    pub(super) fn fits(&self, subject: &Subject) -> bool {
        let text = |pattern: &Option<Arc<str>>, text: Option<&str>| {
            pattern.as_deref().is_none_or(|pattern| text.is_some_and(|text| glob(pattern, text)))
        };
        let by_path = self.executable.as_deref().is_some_and(|pattern| pattern.contains('/'));
        text(&self.executable, if by_path { subject.executable_path } else { subject.executable_name })
            && text(&self.command_line, subject.command_line)
            && text(&self.unit, subject.unit)
            && text(&self.container, subject.container)
            && self.port.is_none_or(|port| subject.port == Some(port))
    }
}

/// Whether `text` fits `pattern`, in linear space and at most `|pattern| · |text|` steps.
fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) = (pattern.chars().collect(), text.chars().collect());
    let (mut p, mut t) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(&c) if c == '?' || Some(&c) == text.get(t) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((at, from)) = star else { return false };
                star = Some((at, from + 1));
                p = at + 1;
                t = from + 1;
            }
        }
    }
    pattern.iter().skip(p).all(|&c| c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_whole_texts() {
        for (pattern, text, fits) in [
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("a*c", "abbc", true),
            ("a*c", "abcd", false),
            ("*.py*", "python app.py x", true),
            ("a?c", "aéc", true),
            ("a?c", "ac", false),
            ("**a**", "bab", true),
            ("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(glob(pattern, text), fits, "{pattern} {text}");
        }
    }

    #[test]
    fn all_conditions_must_fit() {
        let subject = Subject {
            executable_path: Some("/usr/sbin/nginx"),
            executable_name: Some("nginx"),
            port: Some(80),
            ..Subject::default()
        };
        let when = |executable: &str, port| When { executable: Some(executable.into()), port, ..When::default() };
        assert!(when("nginx", None).fits(&subject));
        assert!(when("/usr/*/nginx", Some(80)).fits(&subject));
        assert!(!when("nginx", Some(81)).fits(&subject));
        assert!(!when("usr/sbin/nginx", None).fits(&subject));
        assert!(!When { unit: Some("*".into()), ..When::default() }.fits(&subject));
    }

    #[test]
    fn useless_settings_are_refused() {
        let rule = |when: When, name: Option<&str>| Settings {
            rules: vec![Rule { when, name: name.map(Arc::from), namespace: None }],
            ..Settings::default()
        };
        let port = When { port: Some(80), ..When::default() };
        assert_eq!(rule(port.clone(), Some("web")).check(), Ok(()));
        assert_eq!(rule(When::default(), Some("web")).check(), Err(SettingsError::NoCondition(1)));
        assert_eq!(rule(port.clone(), None).check(), Err(SettingsError::NoEffect(1)));
        assert_eq!(rule(port, Some("a\nb")).check(), Err(SettingsError::Name(1, "a\nb".into())));
        assert_eq!(Settings { processes: 3, ..Settings::default() }.check(), Err(SettingsError::Processes(3)));
    }
}
