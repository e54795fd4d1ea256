use weir_common::judge::{Judge, Signal, step, unclear};

use super::*;
use proptest::prelude::*;

fn conditions(methods: &[&str], paths: &[&str], hosts: &[&str]) -> Conditions {
    Conditions {
        methods: methods.iter().map(|&name| name.into()).collect(),
        paths: paths.iter().map(|path| PathPattern::parse(path).unwrap()).collect(),
        hosts: hosts.iter().map(|host| HostPattern::parse(host).unwrap()).collect(),
    }
}

/// What a stream of requests says: per request its registers at the head's end.
fn run(machine: &Machine, bytes: &[u8]) -> Vec<Judge> {
    let (mut regs, mut out, mut at) = (Judge::START, Vec::new(), 0);
    while at < bytes.len() {
        if regs.skip > 0 {
            let skipped = regs.skip.min((bytes.len() - at) as u64);
            regs.skip -= skipped;
            at += skipped as usize;
            continue;
        }
        match step(machine, &machine.classes, &mut regs, bytes[at]).unwrap() {
            Signal::Head => out.push(regs),
            Signal::Stop => {
                out.push(regs);
                break;
            }
            _ => {}
        }
        at += 1;
    }
    out
}

fn met(machine: &Machine, regs: &Judge) -> Vec<u16> {
    let (path, host) = (machine.masks[usize::from(regs.path)], machine.masks[usize::from(regs.host)]);
    slots(&std::array::from_fn(|word| path[word] & host[word])).collect()
}

fn one(pattern: &str, target: &str) -> (bool, u16) {
    let wanted = conditions(&[], &[pattern], &[]);
    let machine = Machine::build(&[(3, &wanted)]).unwrap();
    let got = run(&machine, format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
    assert_eq!(got.len(), 1, "{target}");
    (met(&machine, &got[0]) == [3], got[0].unclear)
}

#[test]
fn paths_by_the_documented_table() {
    for (pattern, target, matches, reasons) in [
        ("/login", "/login", true, 0),
        ("/login", "/login/", true, 0),
        ("/login", "/login/x?y=/z", true, 0),
        ("/login", "/login?next=/", true, 0),
        ("/login", "/login;v=1", true, 0),
        ("/login", "/loginx", false, 0),
        ("/login", "/Login", false, 0),
        ("/login", "//login", true, 0),
        ("/login", "/./login", true, 0),
        ("/login", "/x/../login", true, unclear::DOTS),
        ("/login", "/x/%2e%2E/login", true, unclear::DOTS),
        ("/login", "/login/..", false, unclear::DOTS),
        ("/login", "/login/../public", false, unclear::DOTS),
        ("/login", "/a/../../../login", true, unclear::DOTS),
        ("/login", "/a//../login", true, unclear::DOTS),
        ("/login", "/%6Cogin", true, 0),
        ("/login", "/l%6fgi%6E", true, 0),
        ("/login", "/login%2Fx", false, unclear::ENCODED),
        ("/login", "/login\\x", false, unclear::ENCODED),
        ("/login", "/log%zzin", false, unclear::PERCENT),
        ("/login", "http://h/login", true, 0),
        ("/login", "HTTPS://user@h:80/login", true, unclear::HOST),
        ("/login", "http://h", false, 0),
        ("/", "http://h?x", true, 0),
        ("/", "*", false, 0),
        ("/", "/anything", true, 0),
        ("=/", "/anything", false, 0),
        ("=/", "/?x", true, 0),
        ("=/login", "/login", true, 0),
        ("=/login", "/login/", true, 0),
        ("=/login", "/login/x", false, 0),
        ("/orders/{id}", "/orders/17", true, 0),
        ("/orders/{id}", "/orders/17/", true, 0),
        ("/orders/{id}", "/orders/17/items", false, 0),
        ("/orders/{id}", "/orders/", false, 0),
        ("/orders/{id}/items", "/orders/a%20b/items", true, 0),
        ("/a%20b", "/a%20b", true, 0),
        ("/caf\u{e9}", "/caf%C3%A9", true, 0),
        ("/caf\u{e9}", "/caf%C3%A8", false, 0),
        ("/.well-known", "/.well-known/x", true, 0),
        ("/...", "/...", true, 0),
        ("/login", "/x/..;/login", false, unclear::DOTS),
        ("/login", "foo://h/login", true, 0),
        ("/login", "a+b-c.1://h:1//x?/../login", false, 0),
        ("/login", "x:/login", true, 0),
        ("/login", "X:/./login/x", true, 0),
        ("/login", "x:/a/..//login", true, unclear::DOTS),
        ("/login", "x:///login", true, 0),
        ("/login", "x:login", false, 0),
        ("/login", "1x://h/login", false, 0),
        ("/login", "x_y://h/login", false, 0),
        ("/login", "x://h/../login", true, unclear::DOTS),
        ("/login", "x://h/a/../../login", true, unclear::DOTS),
        ("/login", &format!("{}{}/login", "/a".repeat(40), "/..".repeat(40)), true, unclear::DOTS),
        ("/login", &format!("{}{}/login", "/a".repeat(41), "/..".repeat(40)), false, unclear::DOTS),
        ("/login", &format!("{}{}/login", "/a".repeat(3000), "/..".repeat(3000)), true, unclear::DOTS),
        ("/a/a", &format!("{}{}/login", "/a".repeat(40), "/..".repeat(37)), true, unclear::DOTS),
        ("/a/a/a/a", &format!("{}{}/login", "/a".repeat(40), "/..".repeat(37)), false, unclear::DOTS),
        ("/a/a/a/a/a/a/a/a/a/a/a/a/a/a", &format!("{}{}/a", "/a".repeat(30), "/..".repeat(17)), true, unclear::DOTS),
        ("/a/a/a/a/a/a/a/a/a/a/a/a/a/a", &format!("{}{}/a", "/a".repeat(30), "/..".repeat(18)), false, unclear::DOTS),
    ] {
        assert_eq!(one(pattern, target), (matches, reasons), "{pattern} {target}");
        let reference = PathPattern::parse(pattern).unwrap().matches(target);
        assert_eq!(reference, matches, "reference: {pattern} {target}");
    }
}

#[test]
fn hosts_in_any_spelling() {
    let wanted = conditions(&[], &[], &["shop.test", "*.shop.test", "[2001:db8::1]"]);
    let (plain, below, six) = (
        conditions(&[], &[], &["shop.test"]),
        conditions(&[], &[], &["*.shop.test"]),
        conditions(&[], &[], &["[2001:db8::1]"]),
    );
    let machine = Machine::build(&[(0, &wanted), (1, &plain), (2, &below), (3, &six)]).unwrap();
    for (host, expected) in [
        ("shop.test", vec![0, 1]),
        ("SHOP.Test", vec![0, 1]),
        ("shop.test:8080", vec![0, 1]),
        ("shop.test.", vec![0, 1]),
        ("shop.test.:80", vec![0, 1]),
        ("shop.test..", vec![]),
        ("a.shop.test..", vec![]),
        ("  shop.test  ", vec![0, 1]),
        ("a.shop.test", vec![0, 2]),
        ("a.b.shop.test", vec![0, 2]),
        ("shop.test.shop.test", vec![0, 2]),
        (".shop.test", vec![]),
        ("ashop.test", vec![]),
        ("shop.tes", vec![]),
        ("shop.testa", vec![]),
        ("shop.test.a", vec![]),
        ("[2001:DB8::1]", vec![0, 3]),
        ("[2001:db8::1]:80", vec![0, 3]),
        ("[2001:db8::2]", vec![]),
        ("", vec![]),
    ] {
        if host != ".shop.test" {
            let got = run(&machine, format!("GET / HTTP/1.1\r\nX: y\r\nhOst:{host}\r\n\r\n").as_bytes());
            assert_eq!(met(&machine, &got[0]), expected, "{host}");
        }
        let trimmed = host.trim();
        for (pattern, slot) in [("shop.test", 1), ("*.shop.test", 2), ("[2001:db8::1]", 3)] {
            let reference = HostPattern::parse(pattern).unwrap().matches(trimmed);
            assert_eq!(reference, expected.contains(&slot), "reference: {pattern} {host}");
        }
    }
    let absolute = run(&machine, b"GET http://shop.test/ HTTP/1.1\r\nHost: other\r\n\r\n");
    assert_eq!(met(&machine, &absolute[0]), [0, 1]);
    let twice = run(&machine, b"GET / HTTP/1.1\r\nHost: other\r\nHost: shop.test\r\n\r\n");
    assert_eq!(twice[0].unclear, unclear::HOST);
}

#[test]
fn methods_are_exact() {
    let wanted = conditions(&["POST", "PUT", "P"], &[], &[]);
    let machine = Machine::build(&[(0, &wanted)]).unwrap();
    for (method, expected) in
        [("POST", true), ("PUT", true), ("P", true), ("PO", false), ("post", false), ("GET", false)]
    {
        let got = run(&machine, format!("{method} / HTTP/1.1\r\n\r\n").as_bytes());
        assert_eq!(machine.masks[usize::from(got[0].method)][0] & 1 != 0, expected, "{method}");
    }
    assert_eq!(run(&machine, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")[0].unclear, unclear::HTTP2);
    assert_eq!(run(&machine, b"\x16\x03\x01")[0].unclear, unclear::NOT_HTTP);
}

#[test]
fn bodies_are_skipped_and_pipelined_heads_found() {
    let wanted = conditions(&[], &["/bad"], &[]);
    let machine = Machine::build(&[(0, &wanted)]).unwrap();
    for (stream, heads) in [
        ("GET / HTTP/1.1\r\n\r\nGET /bad HTTP/1.1\r\n\r\n", vec![false, true]),
        (
            "POST / HTTP/1.1\r\nContent-Length: 18\r\n\r\nGET /bad HTTP/1.1\nGET /bad HTTP/1.1\r\n\r\n",
            vec![false, true],
        ),
        (
            "POST / HTTP/1.1\r\ncontent-LENGTH:\t0018 \r\n\r\nGET /bad HTTP/1.1\nGET /ok HTTP/1.1\r\n\r\n",
            vec![false, false],
        ),
        (
            "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, Chunked\r\n\r\n1a;x=y\r\nGET /bad HTTP/1.1\r\n\r\n12345\r\n0\r\nA: b\r\n\r\nGET /bad HTTP/1.0\r\n\r\n",
            vec![false, true],
        ),
        ("\r\n\r\nGET /bad HTTP/1.1\n\nGET /bad\r\n", vec![true, true]),
    ] {
        let got = run(&machine, stream.as_bytes());
        let matched: Vec<bool> = got.iter().map(|regs| !met(&machine, regs).is_empty()).collect();
        assert_eq!(matched, heads, "{stream}");
        assert!(got.iter().all(|regs| regs.unclear == 0), "{stream}");
    }
}

#[test]
fn ambiguous_framing_is_flagged() {
    let machine = Machine::build(&[]).unwrap();
    for (head, reason) in [
        ("Content-Length: 5\r\nContent-Length: 5\r\n", unclear::LENGTH),
        ("Content-Length: 5, 5\r\n", unclear::LENGTH),
        ("Content-Length: +5\r\n", unclear::LENGTH),
        ("Content-Length:\r\n", unclear::LENGTH),
        ("Content-Length: 99999999999999999999\r\n", unclear::LENGTH),
        ("Content-Length : 5\r\n", unclear::FIELD),
        ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", unclear::BOTH),
        ("Transfer-Encoding: xchunked\r\n", unclear::CODING),
        ("Transfer-Encoding: chunked, identity\r\n", unclear::CODING),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", unclear::CODING),
        ("Transfer-Encoding\u{b}: chunked\r\n", unclear::FIELD),
        ("X: a\r\n folded\r\n", unclear::FIELD),
        ("X: a\rb\r\n", unclear::BARE_CR),
    ] {
        let got = run(&machine, format!("POST / HTTP/1.1\r\n{head}\r\n").as_bytes());
        assert_eq!(got[0].unclear & reason, reason, "{head:?}: {:#x}", got[0].unclear);
    }
    for (line, reason) in [
        ("GET  / HTTP/1.1", unclear::SPACE),
        ("GET /\tHTTP/1.1", unclear::SPACE),
        (" GET / HTTP/1.1", unclear::SPACE),
        ("GET / x HTTP/1.1", unclear::SPACE),
        ("G@T / HTTP/1.1", unclear::NOT_HTTP),
        ("[GET / HTTP/1.1", unclear::NOT_HTTP),
        ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked", unclear::CODING),
        ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked", 0),
        ("POST / HTTP/1.0", 0),
    ] {
        let got = run(&machine, format!("{line}\r\n\r\n").as_bytes());
        assert_eq!(got[0].unclear, reason, "{line:?}");
    }
}

fn target() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "/", "/", "/", "login", "admin", "a", "b", ".", "..", "%2e", "%2E%2e", "%6cogin", ";x", "%2f", "%zz", "%",
        "%2", "\\", "//", "/./", "/../", "~", "%7e", "=", "é", "%41", "17", "?", "#", "%25", "...",
    ]);
    prop::collection::vec(piece, 0..9).prop_map(|pieces| format!("/{}", pieces.concat()))
}

const PATTERNS: [&str; 9] = ["/login", "/admin/{id}", "=/a/b", "/a/17", "/", "/~a", "/a/{x}/b", "/A", "=/..."];

fn every_pattern() -> Machine {
    let wanted: Vec<Conditions> = PATTERNS.iter().map(|pattern| conditions(&[], &[pattern], &[])).collect();
    let all: Vec<(u16, &Conditions)> =
        wanted.iter().enumerate().map(|(slot, wanted)| (slot as u16 * 20, wanted)).collect();
    Machine::build(&all).unwrap()
}

fn many() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(20_000) }
}

/// The table agrees with the reference for every target of the evasion class.
#[test]
fn agrees_with_the_reference() {
    let machine = every_pattern();
    proptest!(many(), |(target in target())| {
        let got = run(&machine, format!("GET {target} HTTP/1.1\r\n\r\n").as_bytes());
        let expected: Vec<u16> = PATTERNS
            .iter()
            .enumerate()
            .filter(|(_, pattern)| PathPattern::parse(pattern).unwrap().matches(&target))
            .map(|(slot, _)| slot as u16 * 20)
            .collect();
        prop_assert_eq!(met(&machine, &got[0]), expected, "{}", target);
    });
}

/// Servers that read HTTP/1.0 without chunks read a request where others read a chunk's size.
#[test]
fn words_behind_a_chunk_s_size_are_flagged() {
    let machine = Machine::build(&[(0, &conditions(&[], &["/x"], &[]))]).unwrap();
    let body = |line: &str| {
        let (mut regs, mut flagged) = (Judge::START, 0);
        let head = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
        for byte in format!("{head}{line}\r\n").bytes() {
            step(&machine, &machine.classes, &mut regs, byte).unwrap();
            flagged |= regs.unclear;
        }
        (flagged, regs.skip)
    };
    for (line, flagged) in [
        ("a", 0),
        ("a ", 0),
        ("a \t;x=y z", 0),
        ("a;x", 0),
        ("a x", unclear::CHUNK),
        ("a /x HTTP/1.1", unclear::CHUNK),
        ("a\t\tHTTP/1.1", unclear::CHUNK),
    ] {
        assert_eq!(body(line), (flagged, 10), "{line:?}");
    }
}

/// Nothing that a client sends makes the machine leave its table.
#[test]
fn any_bytes_are_read() {
    let wanted = conditions(&["GET"], &["/a/{b}/c", "/x"], &["*.h", "h"]);
    let machine = Machine::build(&[(0, &wanted)]).unwrap();
    proptest!(many(), |(bytes in prop::collection::vec(any::<u8>(), 0..400))| {
        run(&machine, &bytes);
        let mut head = b"POST /a/1/c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        head.extend(&bytes);
        run(&machine, &head);
    });
}
