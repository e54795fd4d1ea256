//! The audit log: a line a change, each with the hash of the line before it (SHA-256 over the line without its own
//! hash). Whoever alters, removes or moves a line breaks the chain there. A whole file that is written anew, or whose
//! end is cut off, only differs in its last hash: keep that elsewhere and give it to `weir audit verify --head`.

use std::fmt::Write as _;

use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Hash before the first line.
pub const START: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// A change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// Number of the line, from 1.
    pub seq: u64,
    /// When, RFC 3339.
    pub at: String,
    /// Who, as the kernel says it: user and process at the control socket, or the part of Weir that did it.
    pub who: String,
    /// `add`, `remove`, `replace`, `expire`, `breaker`, `mode`, `refuse`; `cut`: a line that was not finished was taken away.
    pub what: String,
    /// The rule, where it is about one.
    pub rule: Option<String>,
    /// Why, in the words of who did it.
    pub why: String,
    /// What was there before.
    pub before: Value,
    /// What is there now.
    pub after: Value,
    /// Hash of the line before.
    pub prev: String,
}

/// Where a chain ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Lines.
    pub lines: u64,
    /// Hash of the last one.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { lines: 0, hash: START.to_owned() }
    }
}

/// A line that breaks the chain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Broken {
    /// Its number, from 1.
    pub line: u64,
    /// What is wrong with it.
    pub what: &'static str,
}

impl Head {
    /// Makes the next line, with its line end; the entry's number and `prev` are set. The chain goes on behind it.
    pub fn line(&mut self, mut entry: Entry) -> Result<String, serde_json::Error> {
        entry.seq = self.lines + 1;
        entry.prev.clone_from(&self.hash);
        let body = serde_json::to_string(&entry)?;
        let hash = hash(body.as_bytes());
        let open = body.strip_suffix('}').unwrap_or(&body);
        let line = format!("{open},\"hash\":\"{hash}\"}}\n");
        *self = Self { lines: entry.seq, hash };
        Ok(line)
    }

    /// Follows the chain over a line without its line end.
    pub fn follow(&mut self, line: &str) -> Result<(), Broken> {
        let number = self.lines + 1;
        let broken = |what| Broken { line: number, what };
        let (open, rest) = line
            .rsplit_once(",\"hash\":\"")
            .ok_or_else(|| broken("it has no hash: it is cut off, or not a line of this log"))?;
        let said = rest.strip_suffix("\"}").ok_or_else(|| broken("it is cut off"))?;
        let body = format!("{open}}}");
        if hash(body.as_bytes()) != said {
            return Err(broken("its content is not what its hash says: it was altered"));
        }
        let entry: Entry = serde_json::from_str(&body).map_err(|_| broken("it is not an entry"))?;
        if entry.prev != self.hash {
            return Err(broken("it does not follow the line before: lines were removed, added or moved here"));
        }
        if entry.seq != number {
            return Err(broken("its number is not the line's"));
        }
        *self = Self { lines: number, hash: said.to_owned() };
        Ok(())
    }
}

/// Follows a whole log.
pub fn verify(text: &str) -> Result<Head, Broken> {
    let mut head = Head::default();
    for line in text.split_inclusive('\n') {
        let Some(line) = line.strip_suffix('\n') else {
            return Err(Broken { line: head.lines + 1, what: "it has no end: it is cut off" });
        };
        head.follow(line)?;
    }
    Ok(head)
}

/// SHA-256, as the chain writes it.
#[must_use]
pub fn hash(bytes: &[u8]) -> String {
    let digest = digest(&SHA256, bytes);
    digest.as_ref().iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: u64) -> (Head, Vec<String>) {
        let mut head = Head::default();
        let lines = (0..lines).map(|n| {
            let entry = Entry {
                seq: 0,
                at: "2026-11-23T10:00:00Z".into(),
                who: "uid 0".into(),
                what: "add".into(),
                rule: Some(format!("r{n}")),
                why: "a \"quoted\",\"hash\":\" reason".into(),
                before: Value::Null,
                after: serde_json::json!({ "action": "deny" }),
                prev: String::new(),
            };
            head.line(entry).unwrap()
        });
        let lines = lines.collect();
        (head, lines)
    }

    #[test]
    fn whole_chains_verify() {
        assert_eq!(verify("").unwrap(), Head::default());
        let (head, lines) = log(5);
        assert_eq!(verify(&lines.concat()).unwrap(), head);
    }

    #[test]
    fn every_flipped_bit_is_found_in_its_line() {
        let (_, lines) = log(3);
        let text = lines.concat();
        let second = lines[0].len()..lines[0].len() + lines[1].len() - 1;
        for at in second {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let altered = String::from_utf8(bytes).unwrap();
            assert_eq!(verify(&altered).unwrap_err().line, 2, "byte {at}");
        }
    }

    #[test]
    fn removed_moved_and_cut_lines_are_found() {
        let (head, lines) = log(4);
        let at = |order: &[usize]| verify(&order.iter().map(|n| lines[*n].as_str()).collect::<String>());
        assert_eq!(at(&[0, 2, 3]).unwrap_err().line, 2);
        assert_eq!(at(&[1, 2, 3]).unwrap_err().line, 1);
        assert_eq!(at(&[0, 2, 1, 3]).unwrap_err().line, 2);
        assert_eq!(at(&[0, 1, 1, 2]).unwrap_err().line, 3);
        // Without its end a chain is whole; its head tells.
        assert_ne!(at(&[0, 1, 2]).unwrap(), head);
        for cut in 1..lines[3].len() {
            let text = lines.concat();
            assert_eq!(verify(&text[..text.len() - cut]).unwrap_err().line, 4, "cut {cut}");
        }
    }
}
