use std::path::Path;

use super::*;
use crate::config;
use crate::config::Origin;

fn blocks() -> Blocks {
    let sources = config::Sources { sets: vec!["enforce.audit=".to_owned()], ..config::Sources::default() };
    Blocks::new(&sources.load().unwrap().settings).unwrap()
}

fn file(name: &str, text: &str) -> RulesFile {
    RulesFile::read(Path::new(name), text.as_bytes()).unwrap()
}

fn ids(blocks: &Blocks) -> Vec<String> {
    blocks.book().set().rules().map(|rule| rule.id.to_string()).collect()
}

fn feed() -> Feed {
    Feed {
        name: "x".to_owned(),
        origin: Origin::File("/x".into()),
        format: None,
        refresh: std::time::Duration::from_secs(1),
        max: 100_000,
        rule: WrittenRule { id: Some("feed-x".into()), ttl: Some("1h".into()), ..WrittenRule::default() },
    }
}

#[test]
fn files_are_taken_whole_or_not_at_all() {
    let (blocks, alive, mut before) = (blocks(), AtomicBool::new(true), Files::new());
    let a = "rules:\n- id: a\n  client: {address: 198.51.100.1}\n- client: {address: 198.51.100.2}\n";
    assert_eq!(blocks.take_files(&[file("/d/a.yaml", a)], &mut before, &alive).unwrap(), 2);
    assert_eq!(ids(&blocks), ["a", "file-a-1"]);
    let kept = Arc::clone(blocks.book().set().get("a").unwrap());
    for (b, said) in [
        (
            "rules:\n- id: b\n- id: c\n  client: {address: 0.0.0.0/0}\n",
            "/d/b.yaml:2:3: `rules[0]`: the rule has no condition",
        ),
        ("rules:\n- id: a\n  client: {address: 198.51.100.3}\n", "/d/b.yaml:2:7: `rules[0]`: rule a exists already"),
        (
            "rules:\n- client: {address: 198.51.100.3}\n  mode: enforced\n",
            "/d/b.yaml:3:9: `rules[0]`: mode: \"enforced\" is not",
        ),
    ] {
        let refused =
            blocks.take_files(&[file("/d/a.yaml", a), file("/d/b.yaml", b)], &mut before, &alive).unwrap_err();
        assert!(refused.to_string().starts_with(said), "{refused}");
        assert_eq!(ids(&blocks), ["a", "file-a-1"]);
    }
    let b = "rules:\n- id: b\n  client: {address: 198.51.100.3}\n";
    assert_eq!(blocks.take_files(&[file("/d/a.yaml", a), file("/d/b.yaml", b)], &mut before, &alive).unwrap(), 3);
    assert!(Arc::ptr_eq(&kept, blocks.book().set().get("a").unwrap()), "what is written as it was stays as it is");
    assert!(blocks.remove("t", "a").unwrap_err().to_string().contains("is of file /d/a.yaml"));
    assert_eq!(blocks.take_files(&[], &mut before, &alive).unwrap(), 0);
}

#[test]
fn a_feed_is_one_rule_that_is_renewed() {
    let (blocks, alive, feed) = (blocks(), AtomicBool::new(true), feed());
    let list =
        |n: u32| (0..n).map(|n| Prefix::host(std::net::Ipv4Addr::from(0xcb00_7100 + 2 * n).into())).collect::<Vec<_>>();
    blocks.take_feed(&feed, list(50_000), Vec::new(), &alive).unwrap();
    let before = Arc::clone(blocks.book().set().get("feed-x").unwrap());
    blocks.take_feed(&feed, list(50_000), Vec::new(), &alive).unwrap();
    assert!(Arc::ptr_eq(&before, blocks.book().set().get("feed-x").unwrap()), "nothing changed");
    blocks.take_feed(&feed, list(50_001), Vec::new(), &alive).unwrap();
    let after = Arc::clone(blocks.book().set().get("feed-x").unwrap());
    assert_eq!((after.until, after.clients.len()), (before.until, 50_001));
    let told = document(&after);
    assert!(told["client.addresses"] == 50_001 && told["client.address"].as_array().unwrap().len() < 100, "{told}");
    blocks.take_feed(&feed, Vec::new(), Vec::new(), &alive).unwrap();
    assert!(ids(&blocks).is_empty(), "a rule about nobody is none");
    alive.store(false, Ordering::Release);
    blocks.take_feed(&feed, list(3), Vec::new(), &alive).unwrap();
    assert!(ids(&blocks).is_empty(), "a feed that was taken away comes too late");
}

#[test]
fn what_the_circuit_breaker_did_stays_done() {
    let (blocks, alive, mut before) = (blocks(), AtomicBool::new(true), Files::new());
    let mode = |id: &str| blocks.book().set().get(id).unwrap().mode;
    let trip = |id: &str| {
        let mut book = blocks.book();
        let old = Arc::clone(book.set().get(id).unwrap());
        let after = Rule { mode: Mode::Monitor, ..Rule::clone(&old) };
        book.change(&[Arc::clone(&old.id)], vec![after]).unwrap();
        book.tripped.insert(Arc::clone(&old.id), "too many".to_owned());
    };
    let mut feed = feed();
    feed.rule.mode = Some("enforce".to_owned());
    let host = |n: u8| Prefix::host(std::net::Ipv4Addr::new(203, 0, 113, n).into());
    blocks.take_feed(&feed, vec![host(1)], Vec::new(), &alive).unwrap();
    let files = |ttl: &str| {
        [file(
            "/d/a.yaml",
            &format!("rules:\n- id: a\n  mode: enforce\n  ttl: {ttl}\n  client: {{address: 198.51.100.7}}\n"),
        )]
    };
    blocks.take_files(&files("1h"), &mut before, &alive).unwrap();
    assert_eq!((mode("feed-x"), mode("a")), (Mode::Enforce, Mode::Enforce));
    trip("feed-x");
    trip("a");
    blocks.take_feed(&feed, vec![host(1), host(3)], Vec::new(), &alive).unwrap();
    blocks.take_files(&files("1h"), &mut before, &alive).unwrap();
    assert_eq!((mode("feed-x"), mode("a")), (Mode::Monitor, Mode::Monitor));
    // Written anew, it is meant.
    blocks.take_files(&files("2h"), &mut before, &alive).unwrap();
    assert_eq!(mode("a"), Mode::Enforce);
    // So is a reload, which forgets what the breaker did.
    trip("a");
    blocks.book().tripped.clear();
    blocks.take_feed(&feed, vec![host(1), host(3)], Vec::new(), &alive).unwrap();
    blocks.take_files(&files("2h"), &mut before, &alive).unwrap();
    assert_eq!((mode("feed-x"), mode("a")), (Mode::Enforce, Mode::Enforce));
}

#[test]
fn detectors_have_rules_of_their_own() {
    let blocks = blocks();
    let scan = |id: Option<&str>, address: &str| {
        let mut rule = WrittenRule { id: id.map(str::to_owned), ..WrittenRule::default() };
        rule.client.address = crate::policy::written::OneOrMore::One(address.to_owned());
        rule
    };
    let id = blocks.detected("scan", &scan(None, "198.51.100.1")).unwrap();
    let rule = Arc::clone(blocks.book().set().get(&id).unwrap());
    assert!(rule.until.is_some() && rule.mode == Mode::Monitor);
    assert_eq!((rule.source.to_string().as_str(), &*rule.author), ("detector scan", "detector scan"));
    blocks.detected("scan", &scan(Some("s"), "198.51.100.1")).unwrap();
    blocks.detected("scan", &scan(Some("s"), "198.51.100.2")).unwrap();
    assert!(blocks.detected("flood", &scan(Some("s"), "198.51.100.2")).is_err(), "another's id");
    assert!(blocks.detected("scan", &scan(None, "0.0.0.0/0")).is_err());
    assert_eq!(ids(&blocks).len(), 2);
    for n in 2..DETECTED {
        blocks.detected("scan", &scan(None, &format!("10.0.{}.{}", n / 256, n % 256))).unwrap();
    }
    assert!(blocks.detected("scan", &scan(None, "198.51.100.9")).unwrap_err().to_string().contains("1024"));
    assert!(blocks.remove("t", &id).is_ok(), "people may overrule a detector");
}
