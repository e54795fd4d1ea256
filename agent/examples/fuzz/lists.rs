//! Lists of addresses, files of rules, and CrowdSec's answers, as a hostile or broken source would write them.

use std::path::Path;

use weir::config::RulesFile;
use weir::policy::list::decisions::Decisions;
use weir::policy::list::{Format, read};

use crate::random::Random;
use crate::{Outcome, Target};

/// Entries that a list may have here.
const MAX: usize = 8;

const WORDS: &[&[u8]] = &[
    b"\n",
    b",",
    b";",
    b"#",
    b"\"",
    b"[",
    b"]",
    b"{",
    b"}",
    b":",
    b"/0",
    b"/33",
    b"::",
    b"255.",
    b"\"data\":",
    b"\0",
    b"\xff",
];

/// Plain text, CSV and JSON.
pub(crate) struct Lists;

impl Target for Lists {
    fn name(&self) -> &'static str {
        "lists"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut bytes: Vec<u8> = random
            .pick(&[
                &b"# x\n192.0.2.1\n192.0.2.0/24 ; y\n2001:db8::/32\n"[..],
                b"ip,seen\n192.0.2.1,\"a,b\"\n10.0.0.0/8,\n",
                b"[\"192.0.2.1\",{\"ip\":\"192.0.2.2\"},{\"range\":\"10.0.0.0/8\",\"x\":[{}]}]",
                b"{\"meta\":{\"data\":[]},\"data\":[\"192.0.2.1\",null]}",
            ])
            .into();
        random.mutate(&mut bytes, WORDS);
        for format in [None, Some(Format::Text), Some(Format::Csv), Some(Format::Json)] {
            let Ok(entries) = read(&bytes, format, MAX) else { continue };
            if entries.prefixes.len() > MAX {
                return Err("more entries than a list may have".into());
            }
            let Ok(list) = entries.judge(None, |_| None) else { continue };
            if list.prefixes.is_empty() || list.prefixes.iter().any(weir::policy::prefix::Prefix::is_too_wide) {
                return Err(format!("a list that can't be meant was taken: {:?}", list.prefixes));
            }
        }
        Ok(bytes.len())
    }
}

/// The stream of decisions.
#[derive(Default)]
pub(crate) struct Bans {
    held: Decisions,
    now: u64,
}

impl Target for Bans {
    fn name(&self) -> &'static str {
        "decisions"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut bytes =
            b"{\"deleted\":[{\"duration\":\"-1s\",\"scope\":\"Ip\",\"type\":\"ban\",\"value\":\"192.0.2.1\"}],\
            \"new\":[{\"duration\":\"1h2m3.5s\",\"scope\":\"Range\",\"type\":\"ban\",\"value\":\"10.0.0.0/8\"},\
            {\"duration\":\"3s\",\"scope\":\"Ip\",\"type\":\"ban\",\"value\":\"192.0.2.1\"}]}"
                .to_vec();
        random.mutate(&mut bytes, &[b"9999999999999999999h", b"null", b"..", b"0.0.0.0/0", b"::", b"\"", b"{}", b"Ip"]);
        let whole = random.one_in(4);
        drop(self.held.take(&bytes, whole, self.now, MAX, |_| None));
        self.now = self.now.saturating_add(random.below(1 << 40) as u64);
        self.held.expire(self.now);
        let (prefixes, ends) = self.held.clients();
        if self.held.len() > MAX
            || prefixes.len() != ends.len()
            || prefixes.iter().any(weir::policy::prefix::Prefix::is_too_wide)
        {
            return Err(format!("bans that can't be meant are held: {prefixes:?}"));
        }
        Ok(bytes.len())
    }
}

/// Files of the rules directory.
pub(crate) struct Rules;

impl Target for Rules {
    fn name(&self) -> &'static str {
        "rules"
    }

    fn run(&mut self, random: &mut Random) -> Outcome {
        let mut bytes =
            b"rules:\n- id: a\n  client: {address: [192.0.2.1, &x 10.0.0.0/8]}\n  server: {port: [80, 443]}\n- {id: b, path: /a, ttl: 1h}\n"
                .to_vec();
        random.mutate(
            &mut bytes,
            &[b"\n", b"- ", b"*x", b"&x", b"rules:", b"[", b"{", b"}", b"\t", b"? ", b"!!", b"---\n"],
        );
        match RulesFile::read(Path::new("a.yaml"), &bytes) {
            Err(problems) if problems.0.is_empty() => Err("refused without a reason".into()),
            _ => Ok(bytes.len()),
        }
    }
}
