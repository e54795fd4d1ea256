//! Feeds of addresses: as written, then as usable.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::Check;
use super::{Time, written::Written};
use crate::policy::check::{Arrival, Nowhere, TTL_MAX, check_list};
use crate::policy::list;
use crate::policy::prefix::Prefix;
use crate::policy::rule::Source;
use crate::policy::written::{WrittenEnd, WrittenLimit, WrittenRule};

/// The name that the rules directory has among sources.
pub const DIRECTORY: &str = "directory";
/// The name that `WeirPolicy` objects have among sources.
pub const POLICIES: &str = "policies";
/// Most entries that a feed may ask for: the kernel's table holds as many prefixes.
const ENTRIES: u32 = 200_000;

/// Rules of `WeirPolicy` objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// They are taken, where Kubernetes is asked.
    pub taken: bool,
    /// Namespaces whose policies may name any server.
    pub wide: Vec<String>,
}

/// How a feed is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum FeedFormat {
    /// By its look: JSON, CSV, else text.
    #[default]
    Auto,
    /// An address or CIDR a line, `#` and `;` begin comments.
    Text,
    /// The column that has an address in the first or second row.
    Csv,
    /// An array of texts or of objects with `ip`, `address`, `cidr`, `range` or `value`, or an object with it as `data`.
    Json,
    /// A local API of CrowdSec; `url` is its root, `key_file` holds a bouncer's key.
    Crowdsec,
}

/// A list of addresses whose clients one rule, `feed-NAME`, is about.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WrittenFeed {
    /// Name, `[A-Za-z0-9._-]`, up to 58 characters.
    pub name: String,
    /// Where it is, `https://…` or `http://…`. Its rule is renewed with each good answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Or the file, read again when it changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// `auto`, `text`, `csv`, `json` or `crowdsec`.
    pub format: FeedFormat,
    /// File with the key of a bouncer, as `cscli bouncers add` prints it; `crowdsec` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_file: Option<PathBuf>,
    /// How often it is asked for: 1s to 1d, default 5m, of `crowdsec` 10s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Time>,
    /// Entries that it may have at most, default 100000. A longer one is refused whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// How long its last good list holds while none comes, in the kernel too; default 24h.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep: Option<Time>,
    /// `deny` (default), `limit`, `watch`, `allow`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<String>,
    /// `monitor` (default) or `enforce`; the node's own mode must be `enforce` too.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<String>,
    /// `reset` (default) or `drop`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<String>,
    /// It overrules loopback and the node's own addresses on the allow-list.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// −100..=100, default 0; higher wins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<i32>,
    /// Who is called.
    pub server: WrittenEnd,
    /// The rate of a `limit`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<WrittenLimit>,
    /// Why, for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Where a feed's list comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A file, absolute.
    File(PathBuf),
    /// An absolute `http` or `https` URL without user information.
    Url(String),
    /// A local API of CrowdSec.
    CrowdSec {
        /// Its root, without a slash at its end.
        url: String,
        /// File with a bouncer's key, absolute.
        key: PathBuf,
    },
}

/// A feed as usable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feed {
    /// Name; the rule is `feed-NAME`.
    pub name: String,
    /// Where the list is.
    pub origin: Origin,
    /// How it is written; `None`: by its look.
    pub format: Option<list::Format>,
    /// Between two looks.
    pub refresh: Duration,
    /// Entries at most.
    pub max: usize,
    /// Its rule without clients; the time to live is how long the last good list holds.
    pub rule: WrittenRule,
}

impl Check<'_> {
    /// The usable ones of the feeds.
    pub(super) fn feeds(&mut self, written: &Written) -> Vec<Feed> {
        let feeds = &written.enforce.feeds;
        let mut out = Vec::with_capacity(feeds.len());
        for (n, feed) in feeds.iter().enumerate() {
            if feeds.iter().take(n).any(|other| other.name == feed.name) {
                self.wrong_feed(n, "name", &format!("`{}` is the name of another feed", feed.name));
            }
            out.extend(self.feed(n, feed));
        }
        out
    }

    fn wrong_feed(&mut self, n: usize, key: &str, text: &str) {
        let path = format!("enforce.feeds.{n}");
        let at = format!("{path}.{key}");
        let place = if self.tree.get(at.split('.')).is_some() { at } else { path };
        self.wrong_at(&place, &format!("`enforce.feeds[{n}].{key}`: {text}"));
    }

    pub(super) fn policies(&mut self, written: &Written) -> Policies {
        let wide = &written.enforce.cluster_namespaces;
        for (n, name) in wide.iter().enumerate() {
            let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
            if name.is_empty() || name.len() > 63 || !plain {
                let text = "`enforce.cluster_namespaces`: a namespace's name belongs here, as `weir-system`";
                self.wrong_at(&format!("enforce.cluster_namespaces.{n}"), text);
            }
        }
        Policies { taken: written.enforce.policies, wide: wide.clone() }
    }

    fn feed(&mut self, n: usize, feed: &WrittenFeed) -> Option<Feed> {
        let before = self.problems.len();
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=58).contains(&feed.name.len()) || !feed.name.bytes().all(plain) {
            self.wrong_feed(n, "name", "write 1 to 58 characters of A-Z a-z 0-9 . _ -");
        } else if feed.name == DIRECTORY {
            self.wrong_feed(n, "name", "`directory` stands for enforce.directory; take another");
        } else if feed.name == POLICIES {
            self.wrong_feed(n, "name", "`policies` stands for those of the cluster; take another");
        }
        let origin = self.origin(n, feed);
        let crowdsec = feed.format == FeedFormat::Crowdsec;
        let refresh = feed.refresh.map_or(Duration::from_secs(if crowdsec { 10 } else { 300 }), |time| time.0);
        if !(Duration::from_secs(1)..=Duration::from_hours(24)).contains(&refresh) {
            self.wrong_feed(n, "refresh", "out of range; write 1s to 1d");
        }
        let keep = feed.keep.map_or(Duration::from_hours(24), |time| time.0);
        if keep < refresh || keep > TTL_MAX {
            self.wrong_feed(n, "keep", "out of range; write a time from `refresh` to 10 years");
        }
        let max = feed.max.unwrap_or(100_000);
        if !(1..=ENTRIES).contains(&max) {
            self.wrong_feed(n, "max", &format!("{max} is out of range; write 1 to {ENTRIES}"));
        }
        let rule = WrittenRule {
            id: Some(format!("feed-{}", feed.name)),
            action: feed.action.clone(),
            mode: feed.mode.clone(),
            end: feed.end.clone(),
            force: feed.force,
            priority: feed.priority,
            server: feed.server.clone(),
            limit: feed.limit.clone(),
            ttl: Some(humantime::format_duration(keep).to_string()),
            reason: Some(feed.reason.clone().unwrap_or_else(|| format!("on the list {}", feed.name))),
            ..WrittenRule::default()
        };
        if self.problems.len() > before {
            return None;
        }
        let arrival = Arrival {
            source: Source::Feed(feed.name.as_str().into()),
            author: "config".into(),
            monotonic_ns: 0,
            unix_ns: 0,
            id: "feed".into(),
        };
        let example = Prefix::host(Ipv4Addr::new(192, 0, 2, 1).into());
        if let Err(error) = check_list(&rule, vec![example], &arrival, &Nowhere) {
            let key = error.key().filter(|key| *key != "id").unwrap_or("name");
            let text = error.to_string();
            self.wrong_feed(n, key, text.strip_prefix(&format!("{key}: ")).unwrap_or(&text));
            return None;
        }
        let format = match feed.format {
            FeedFormat::Auto | FeedFormat::Crowdsec => None,
            FeedFormat::Text => Some(list::Format::Text),
            FeedFormat::Csv => Some(list::Format::Csv),
            FeedFormat::Json => Some(list::Format::Json),
        };
        Some(Feed { name: feed.name.clone(), origin: origin?, format, refresh, max: max as usize, rule })
    }

    fn origin(&mut self, n: usize, feed: &WrittenFeed) -> Option<Origin> {
        if let Some(path) = [&feed.path, &feed.key_file].into_iter().flatten().find(|path| !path.is_absolute()) {
            let key = if feed.path.as_ref() == Some(path) { "path" } else { "key_file" };
            self.wrong_feed(n, key, &format!("`{}` is not an absolute path; begin it with /", path.display()));
            return None;
        }
        let url = match &feed.url {
            Some(url) => Some(self.url(n, url)?),
            None => None,
        };
        match (feed.format == FeedFormat::Crowdsec, url, &feed.path, &feed.key_file) {
            (true, Some(url), None, Some(key)) => {
                Some(Origin::CrowdSec { url: url.trim_end_matches('/').to_owned(), key: key.clone() })
            }
            (false, Some(url), None, None) => Some(Origin::Url(url)),
            (false, None, Some(path), None) => Some(Origin::File(path.clone())),
            (true, ..) => {
                self.wrong_feed(n, "format", "crowdsec takes `url` and `key_file`, and no `path`");
                None
            }
            (false, _, _, Some(_)) => {
                self.wrong_feed(n, "key_file", "only the format crowdsec has a key");
                None
            }
            (false, ..) => {
                self.wrong_feed(n, "url", "a feed has either `url` or `path`");
                None
            }
        }
    }

    fn url(&mut self, n: usize, text: &str) -> Option<String> {
        let wrong = match text.parse::<hyper::Uri>() {
            // Not shown: it may hold a password.
            Ok(uri) if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) => {
                "has a user in it, which is not sent; leave it out"
            }
            Ok(uri)
                if matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty()) =>
            {
                return Some(text.to_owned());
            }
            _ => "no http or https URL; write https://HOST/PATH",
        };
        self.wrong_feed(n, "url", wrong);
        None
    }
}
