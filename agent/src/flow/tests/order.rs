//! The order of segments changes nothing.

use proptest::prelude::*;
use weir_common::record::{Ended, SEG_AHEAD, SEG_BEHIND, Way};

use super::wire::{Bench, Record, Socket, get, ok};

/// `GET` and `200` ten times, as one connection's two streams.
fn conversation() -> (Vec<u8>, Vec<u8>) {
    let body = "GET /phantom HTTP/1.1\r\n\r\n".repeat(3);
    let requests = (0..10).flat_map(|i| get(&format!("/{i}"))).collect();
    (requests, (0..10).flat_map(|_| ok(&body)).collect())
}

fn expected() -> Vec<String> {
    (0..10).map(|i| format!("/{i} 200 complete")).collect()
}

#[test]
fn sequence_numbers_wrap() {
    let (mut client, _) = Socket::two(1, 40_000);
    client.next = [u32::MAX - 40, u32::MAX - 10];
    let mut bench = Bench::new();
    bench.feed([client.opened()]);
    for _ in 0..3 {
        bench.feed([client.pair(&get("/a"), &ok("hello"))]);
    }
    assert_eq!(bench.told(), ["/a 200 complete"; 3]);
}

#[test]
fn the_first_segments_come_in_the_wrong_order() {
    let (mut client, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened(), client.bytes(Way::OUT, &get("/a"))]);
    let answer = ok("hello");
    let (head, body) = answer.split_at(20);
    let (first, second) = (client.bytes(Way::IN, head), client.bytes(Way::IN, body));
    bench.feed([second.flagged(SEG_AHEAD), first.flagged(SEG_BEHIND)]);
    assert_eq!((bench.told(), bench.ledger()), (vec!["/a 200 complete".to_owned()], vec![]));
}

#[test]
fn forged_segments_make_no_calls_and_lose_none() {
    let (mut client, mut server) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened(), server.opened()]);
    for i in 0..200u32 {
        // Never where a message starts: such a segment can't be told from the stream's own, by nobody.
        let size = get("/real").len() as u32;
        let (forged, there) = (get("/forged"), server.next[0].wrapping_add(7 + i * 37 % 97 * size));
        bench.feed([server.segment(Way::IN, there, &forged, SEG_AHEAD)]);
        bench.feed([server.segment(Way::IN, server.next[0].wrapping_sub(3000), &forged, SEG_BEHIND)]);
        bench.feed([server.bytes(Way::IN, &get("/real")).flagged(SEG_BEHIND)]);
        bench.feed([server.bytes(Way::OUT, &ok("x"))]);
    }
    assert_eq!(bench.told(), vec!["/real 200 complete"; 200]);
}

#[test]
fn what_nobody_reads_waits_for_nothing_and_is_told_once() {
    let (mut client, _) = Socket::two(1, 40_000);
    let mut bench = Bench::new();
    bench.feed([client.opened(), client.bytes(Way::OUT, &[b'a'; 37]), client.bytes(Way::OUT, &[0; 100])]);
    assert!(bench.out.foreign.is_empty());
    for i in 1..1000u32 {
        let ahead = client.next[1].wrapping_add(i * 1000);
        bench.feed([client.segment(Way::OUT, ahead, &[1; 500], SEG_AHEAD)]);
    }
    bench.feed([client.closed(Ended::CLOSED, 0)]);
    assert_eq!((&bench.out.foreign[..], bench.ledger()), (&[1][..], vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Each stream is cut, repeated and shuffled within a window, as a network does it; requests come before answers.
    #[test]
    fn any_cut_repeat_and_order(
        start: [u32; 2],
        cuts in prop::collection::vec(1usize..90, 1..60),
        swaps in prop::collection::vec((0usize..400, 1usize..6), 0..80),
        repeats in prop::collection::vec(0usize..400, 0..40),
    ) {
        let (requests, answers) = conversation();
        let (mut client, _) = Socket::two(1, 40_000);
        client.next = start;
        let mut bench = Bench::new();
        bench.feed([client.opened()]);
        for (way, all) in [(Way::OUT, requests), (Way::IN, answers)] {
            let mut parts: Vec<(u32, &[u8])> = Vec::new();
            let (mut seq, mut rest) = (client.next[usize::from(way.0)], &all[..]);
            for size in cuts.iter().cycle() {
                let (part, after) = rest.split_at((*size).min(rest.len()));
                if part.is_empty() {
                    break;
                }
                parts.push((seq, part));
                seq = seq.wrapping_add(part.len() as u32);
                rest = after;
            }
            for at in &repeats {
                let at = at % parts.len();
                parts.push(parts[at]);
            }
            for (at, by) in &swaps {
                let at = at % parts.len();
                // Not around the end: a network does not bring the first last.
                let to = (at + by).min(parts.len() - 1);
                parts.swap(at, to);
            }
            let first = client.next[usize::from(way.0)];
            let mut edge = first;
            let mut hole = false;
            let records: Vec<Record> = parts
                .into_iter()
                .map(|(seq, part)| {
                    let end = seq.wrapping_add(part.len() as u32);
                    let ahead = seq.wrapping_sub(edge).cast_signed();
                    hole |= ahead > 0;
                    let flags = if ahead < 0 { SEG_BEHIND } else if hole { SEG_AHEAD } else { 0 };
                    if end.wrapping_sub(edge).cast_signed() > 0 {
                        edge = end;
                    }
                    client.segment(way, seq, part, flags)
                })
                .collect();
            bench.feed(records);
        }
        bench.feed([client.closed(Ended::CLOSED, 0)]);
        prop_assert_eq!((bench.told(), bench.ledger()), (expected(), vec![]));
    }
}
