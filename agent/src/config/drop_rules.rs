//! The configuration's own drop rules, as far as they can be judged before this node's addresses are known: so that a
//! file which `weir config check` calls good is not refused when the agent starts.

use super::check::Check;
use crate::clock;
use crate::policy::check::{Arrival, Nowhere, check};
use crate::policy::rule::Source;
use crate::policy::set::RuleSet;
use crate::policy::written::WrittenRule;

impl Check<'_> {
    /// Each rule by itself, then all together.
    pub(super) fn drop_rules(&mut self, written: &[WrittenRule]) -> Vec<WrittenRule> {
        let mut rules = Vec::with_capacity(written.len());
        for (n, rule) in written.iter().enumerate() {
            let arrival = Arrival {
                source: Source::Config,
                author: "config".into(),
                monotonic_ns: clock::monotonic_ns(),
                unix_ns: clock::unix_ns(),
                id: format!("config-{n}").into(),
            };
            match check(rule, &arrival, &Nowhere) {
                Ok(rule) => rules.push(rule),
                Err(error) => {
                    let at = format!("enforce.rules.{n}");
                    let key = error.key().map(|key| format!("{at}.{key}")).filter(|key| self.is_written(key));
                    self.wrong_at(&key.unwrap_or(at), &format!("`enforce.rules[{n}]`: {error}"));
                }
            }
        }
        if rules.len() == written.len() && !rules.is_empty() {
            let together = RuleSet::new().map_err(Into::into).and_then(|mut set| set.change(&[], rules).map(drop));
            if let Err(error) = together {
                self.wrong_at("enforce.rules", &format!("`enforce.rules`: {error}"));
            }
        }
        written.to_vec()
    }
}
