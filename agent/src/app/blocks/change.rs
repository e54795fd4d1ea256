//! What is asked for at the control socket: a rule more, a rule less, what one would meet.

use std::sync::Arc;

use serde_json::Value;

use super::commit::{Asked, Undo};
use super::crowd::{Crowd, Near};
use super::document::document;
use super::{Blocks, Book, Refused, TTL, arrival, radius};
use crate::clock;
use crate::policy::check::check;
use crate::policy::rule::{Rule, Source};
use crate::policy::set::SetError;
use crate::policy::written::WrittenRule;
use crate::recent::Recent;

impl Blocks {
    /// Adds a rule in the name of `who`.
    pub(in crate::app) fn add(&self, who: &str, written: Value) -> Result<Value, Refused> {
        self.make(who, Asked::Add(written))
    }

    /// Takes a rule, and notes it for the audit log.
    pub(super) fn come(&self, book: &mut Book, who: &str, written: Value) -> Result<(Value, Undo), Refused> {
        let rule = match checked(book, &self.crowd(), who, written) {
            Ok(rule) => rule,
            Err(refused) => {
                book.log.note(who, "refuse", None, &refused.to_string(), Value::Null, Value::Null);
                return Err(refused);
            }
        };
        if book.set().get(&rule.id).is_some() {
            return Err(SetError::Exists(rule.id).into());
        }
        let (id, told, why) = (Arc::clone(&rule.id), document(&rule), rule.reason.to_string());
        book.attempts.forget(&id);
        book.exchange(&[], vec![rule])?;
        book.log.note(who, "add", Some(&id), &why, Value::Null, told.clone());
        Ok((told, Undo::Came(id)))
    }

    /// What a rule would have met of the last hour's kept calls. Nothing is changed.
    pub(in crate::app) fn rehearse(&self, who: &str, written: Value, recent: &Recent) -> Result<Value, Refused> {
        let rule = checked(&mut self.book(), &self.crowd(), who, written)?;
        let mut told = radius::of(&rule, recent, |client| self.crowd().behind(client));
        told["rule"] = document(&rule);
        Ok(told)
    }

    /// A rule, what it would have met of the last hour's kept calls, and which rules win over it.
    pub(in crate::app) fn explain(&self, id: &str, recent: &Recent) -> Result<Value, Refused> {
        let (rule, above) = {
            let set = self.in_force.set();
            let rule = Arc::clone(set.get(id).ok_or_else(|| SetError::Unknown(id.into()))?);
            let mut above: Vec<_> = set.rules().filter(|other| other.rank() > rule.rank()).cloned().collect();
            above.sort_by_key(|other| std::cmp::Reverse(other.rank()));
            (rule, above)
        };
        let mut told = radius::of(&rule, recent, |client| self.crowd().behind(client));
        told["won_by"] = radius::winners(&rule, &above, recent);
        told["rule"] = document(&rule);
        Ok(told)
    }

    /// Removes a rule in the name of `who`.
    pub(in crate::app) fn remove(&self, who: &str, id: &str) -> Result<Value, Refused> {
        self.make(who, Asked::Remove(id.to_owned()))
    }

    /// Lets a rule go, and notes it for the audit log.
    pub(super) fn go(book: &mut Book, who: &str, id: &str) -> Result<(Value, Undo), Refused> {
        let rule = book.set().get(id).cloned().ok_or_else(|| SetError::Unknown(id.into()))?;
        match &rule.source {
            Source::Config => return Err(Refused::Configured(id.to_owned())),
            Source::File(_) | Source::Feed(_) | Source::Cluster(_) => {
                return Err(Refused::Elsewhere(id.to_owned(), rule.source.clone()));
            }
            Source::Control | Source::Detector(_) => {}
        }
        let told = document(&rule);
        book.exchange(&[Arc::clone(&rule.id)], Vec::new())?;
        book.log.note(who, "remove", Some(id), "", told.clone(), Value::Null);
        let hits = book.tally().hits.remove(id);
        let tripped = book.tripped.remove(id);
        Ok((told, Undo::Went(Box::new((Rule::clone(&rule), hits, tripped)))))
    }
}

/// A rule that came by the control socket.
fn checked(book: &mut Book, crowd: &Crowd, who: &str, written: Value) -> Result<Rule, Refused> {
    let mut written: WrittenRule = serde_path_to_error::deserialize(written)?;
    // Who it is, says the kernel.
    written.author = None;
    match written.ttl.as_deref() {
        None => written.ttl = Some(TTL.to_owned()),
        Some("never") => written.ttl = None,
        Some(_) => {}
    }
    book.made += 1;
    let id = format!("b{:x}-{}", clock::unix_ns() / 1_000_000_000, book.made);
    let allowed = book.allowed();
    let near = Near { allowed: &allowed, crowd };
    Ok(check(&written, &arrival(Source::Control, who.into(), id.into()), &near)?)
}
