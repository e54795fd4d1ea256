//! Changes that wait at the same time are made together: each in its turn, in the kernel half too, then all are recorded in
//! the audit log at once, because the disk is what takes its time. Nobody is answered before his change is on disk; what
//! can't be recorded is undone, the last one first.

use std::collections::VecDeque;
use std::sync::mpsc::{SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, MutexGuard, PoisonError};

use serde_json::Value;

use super::hits::Hits;
use super::{Blocks, Book, Refused};
use crate::policy::rule::Rule;

/// Changes that are made together at most: the agent's beat waits meanwhile.
const TOGETHER: usize = 64;

/// What is asked for.
pub(super) enum Asked {
    /// A rule, as written.
    Add(Value),
    /// The end of a rule.
    Remove(String),
}

/// A change that waits for its turn.
pub(super) struct Waiting {
    who: String,
    asked: Asked,
    answer: SyncSender<Result<Value, Refused>>,
}

/// How a change is undone.
pub(super) enum Undo {
    /// This rule came.
    Came(Arc<str>),
    /// This rule went, with what it had met and why it was in monitor mode.
    Went(Box<(Rule, Option<Hits>, Option<String>)>),
}

impl Blocks {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes a change in the name of `who`, with those that wait beside it.
    pub(super) fn make(&self, who: &str, asked: Asked) -> Result<Value, Refused> {
        let (answer, told) = sync_channel(1);
        self.waiting().push_back(Waiting { who: who.to_owned(), asked, answer });
        loop {
            let mut book = self.book();
            // Who had the book before may have made this change with his own.
            match told.try_recv() {
                Ok(made) => return made,
                Err(TryRecvError::Disconnected) => return Err(Refused::Lost),
                Err(TryRecvError::Empty) => self.commit(&mut book),
            }
        }
    }

    fn commit(&self, book: &mut Book) {
        let mut made = Vec::new();
        while made.len() < TOGETHER {
            // Asked for each anew: more come while one is made.
            let Some(Waiting { who, asked, answer }) = self.waiting().pop_front() else { break };
            let result = match asked {
                Asked::Add(written) => self.come(book, &who, written),
                Asked::Remove(id) => Self::go(book, &who, &id),
            };
            made.push((answer, result));
        }
        let changed = made.iter().any(|(_, result)| result.is_ok());
        if let Err(error) = book.log.sync() {
            for (_, result) in made.iter_mut().rev() {
                if let Ok((_, undo)) = result {
                    *result = Err(book.undo(undo).err().unwrap_or_else(|| error.clone().into()));
                } else {
                    // Nothing changed, so that why it was refused matters more than whether that could be recorded.
                    tracing::warn!(%error, "a refusal is not in the audit log");
                }
            }
        }
        if changed {
            book.attempts_settle();
            self.note(book);
        }
        for (answer, result) in made {
            // Nobody waits any more where the asker's thread ended.
            let _ = answer.send(result.map(|(told, _)| told));
        }
    }
}

impl Book {
    fn undo(&mut self, undo: &mut Undo) -> Result<(), Refused> {
        match undo {
            Undo::Came(id) => self.exchange(std::slice::from_ref(id), Vec::new()),
            Undo::Went(went) => {
                let (rule, hits, tripped) = &mut **went;
                let id = Arc::clone(&rule.id);
                if let Some(hits) = hits.take() {
                    self.tally().hits.insert(Arc::clone(&id), hits);
                }
                if let Some(why) = tripped.take() {
                    self.tripped.insert(id, why);
                }
                self.exchange(&[], vec![rule.clone()])
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;
    use std::thread;

    use serde_json::json;

    use super::*;
    use crate::config::Sources;
    use crate::policy::audit::{Entry, verify};

    fn blocks(name: &str) -> (Blocks, PathBuf) {
        let folder = std::env::temp_dir().join(format!("weir-commit-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        let sets = vec![format!("enforce.audit={}", folder.join("audit.log").display())];
        let settings = Sources { sets, ..Sources::default() }.load().unwrap().settings;
        (Blocks::new(&settings).unwrap(), folder)
    }

    fn ids(blocks: &Blocks) -> BTreeSet<String> {
        blocks.book().set().rules().map(|rule| rule.id.to_string()).collect()
    }

    fn rule(id: &str) -> Value {
        json!({ "id": id, "client": { "address": "203.0.113.7" } })
    }

    /// Rules that follow from the log's lines, each line being a step that could be taken there.
    fn told(folder: &std::path::Path) -> BTreeSet<String> {
        let text = fs::read_to_string(folder.join("audit.log")).unwrap();
        verify(&text).unwrap();
        let mut rules = BTreeSet::new();
        for entry in text.lines().map(|line| serde_json::from_str::<Entry>(line).unwrap()) {
            match (entry.what.as_str(), entry.rule) {
                ("add", Some(id)) => assert!(rules.insert(id)),
                ("remove", Some(id)) => assert!(rules.remove(&id)),
                (what, rule) => assert!(what == "refuse" && rule.is_none(), "{what}"),
            }
        }
        rules
    }

    #[test]
    fn what_many_ask_for_at_once_is_recorded_as_it_was_made() {
        let (blocks, folder) = blocks("many");
        // They wait for the book together.
        let book = blocks.book();
        let made = thread::scope(|scope| {
            let askers: Vec<_> = (0..200)
                .map(|n| {
                    let blocks = &blocks;
                    // Some ask for the same, some for what can't be.
                    scope.spawn(move || match n % 4 {
                        0 => blocks.add("t", rule(&format!("r{}", n / 8))).is_ok(),
                        1 => blocks.add("t", json!({ "path": "no slash" })).is_ok(),
                        2 => blocks.remove("t", &format!("r{}", n / 8)).is_ok(),
                        _ => blocks.add("t", rule(&format!("own{n}"))).is_ok(),
                    })
                })
                .collect();
            while blocks.waiting().len() < 200 {
                thread::yield_now();
            }
            drop(book);
            askers.into_iter().map(|asker| asker.join().unwrap()).filter(|made| *made).count()
        });
        assert_eq!(told(&folder), ids(&blocks));
        let text = fs::read_to_string(folder.join("audit.log")).unwrap();
        let refused = text.matches("\"what\":\"refuse\"").count();
        assert_eq!((refused, text.lines().count()), (50, made + 50), "{text}");
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn what_cannot_be_recorded_is_undone() {
        let (blocks, folder) = blocks("full");
        for id in ["a", "b"] {
            blocks.add("t", rule(id)).unwrap();
        }
        blocks.book().tally().hits.entry("a".into()).or_default().add([203, 0, 113, 7].into(), 5);
        blocks.book().tripped.insert("a".into(), "why".to_owned());
        let before = fs::read(folder.join("audit.log")).unwrap();
        // In its place stands what nothing can be written to.
        fs::rename(folder.join("audit.log"), folder.join("kept")).unwrap();
        fs::create_dir(folder.join("audit.log")).unwrap();
        let book = blocks.book();
        let asked =
            [Asked::Remove("a".into()), Asked::Add(rule("a")), Asked::Add(rule("c")), Asked::Remove("b".into())];
        let count = asked.len();
        thread::scope(|scope| {
            let mut askers = Vec::new();
            for (n, asked) in asked.into_iter().enumerate() {
                let blocks = &blocks;
                askers.push(scope.spawn(move || blocks.make("t", asked)));
                while blocks.waiting().len() <= n {
                    thread::yield_now();
                }
            }
            assert_eq!(blocks.waiting().len(), count);
            drop(book);
            for asker in askers {
                assert!(matches!(asker.join().unwrap(), Err(Refused::Log(_))));
            }
        });
        assert_eq!(ids(&blocks).into_iter().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(blocks.book().tally().hits.get("a").unwrap().calls, 1);
        assert_eq!(blocks.book().tripped.get("a").unwrap(), "why");
        fs::remove_dir(folder.join("audit.log")).unwrap();
        fs::rename(folder.join("kept"), folder.join("audit.log")).unwrap();
        assert_eq!(fs::read(folder.join("audit.log")).unwrap(), before);
        blocks.remove("t", "b").unwrap();
        assert_eq!(told(&folder), ids(&blocks));
        fs::remove_dir_all(folder).unwrap();
    }
}
