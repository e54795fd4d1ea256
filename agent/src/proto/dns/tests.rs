use proptest::prelude::*;

use super::*;

fn label(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in text.split('.').filter(|part| !part.is_empty()) {
        bytes.push(part.len() as u8);
        bytes.extend(part.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn record(owner: &[u8], kind: u16, ttl: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = owner.to_vec();
    bytes.extend(kind.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    bytes.extend(ttl.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn message(flags: u16, name: &str, kind: u16, records: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for field in [7, flags, 1, records.len() as u16, 0, 0] {
        bytes.extend(field.to_be_bytes());
    }
    bytes.extend(label(name));
    bytes.extend(kind.to_be_bytes());
    bytes.extend(IN.to_be_bytes());
    bytes.extend(records.concat());
    bytes
}

const HERE: &[u8] = &[0xc0, 12];
const GOOD: u16 = 0x8180;

fn found(bytes: &[u8]) -> Vec<(String, u32)> {
    answer(bytes).unwrap().found.into_iter().map(|(ip, ttl)| (ip.to_string(), ttl)).collect()
}

#[test]
fn questions_for_addresses() {
    let lookup = question(&message(0x0100, "Shop.TEST", A, &[])).unwrap();
    assert_eq!(lookup, Lookup { id: 7, name: "shop.test".into(), v6: false });
    assert!(question(&message(0x0100, "shop.test", AAAA, &[])).unwrap().v6);
    for (flags, name, kind) in
        [(0x0100, "shop.test", 15), (GOOD, "shop.test", A), (0, "", A), (0, "a b.test", A), (0x2800, "shop.test", A)]
    {
        assert_eq!(question(&message(flags, name, kind, &[])), Err(Nothing::Other), "{flags:x} {name} {kind}");
    }
}

#[test]
fn an_answer_is_about_its_own_question() {
    let own = record(HERE, A, 60, &[10, 0, 0, 1]);
    let other = record(&label("bank.test"), A, 60, &[10, 0, 0, 2]);
    let v6 = record(HERE, AAAA, 60, &[0; 16]);
    assert_eq!(found(&message(GOOD, "shop.test", A, &[other, own.clone(), v6])), [("10.0.0.1".to_owned(), 60)]);
    // A TTL with its first bit set; no address at all; an error; cut.
    let never = record(HERE, A, 1 << 31, &[10, 0, 0, 1]);
    assert_eq!(found(&message(GOOD, "shop.test", A, &[never])), [("10.0.0.1".to_owned(), 0)]);
    assert_eq!(found(&message(GOOD, "shop.test", A, &[])), []);
    for flags in [GOOD | 3, GOOD | 0x0200, 0x0100] {
        assert_eq!(answer(&message(flags, "shop.test", A, std::slice::from_ref(&own))), Err(Nothing::Other));
    }
    assert_eq!(answer(&message(GOOD, "shop.test", A, &[record(HERE, A, 1, &[1; 5])])), Err(Nothing::Malformed));
}

#[test]
fn aliases_lead_to_the_address() {
    let alias = |from: &str, to: &str, ttl| record(&label(from), CNAME, ttl, &label(to));
    let address = |name: &str| record(&label(name), A, 300, &[10, 0, 0, 9]);
    let chain = [address("c.test"), alias("b.test", "C.test", 20), alias("a.test", "b.test", 100)];
    assert_eq!(found(&message(GOOD, "a.test", A, &chain)), [("10.0.0.9".to_owned(), 20)]);
    // Aliases in a ring, and one that leads elsewhere.
    let ring = [alias("a.test", "b.test", 9), alias("b.test", "a.test", 9), address("c.test")];
    assert_eq!(found(&message(GOOD, "a.test", A, &ring)), []);
    assert_eq!(found(&message(GOOD, "a.test", A, &[alias("a.test", "b.test", 9), address("a.test")])), []);
}

#[test]
fn hostile_names() {
    // A pointer to itself, forward, and into a ring.
    for pointer in [12u16, 40, 13] {
        let mut bytes = message(GOOD, "a.test", A, &[]);
        bytes.truncate(12);
        bytes.extend((0xc000 | pointer).to_be_bytes());
        bytes.resize(80, 0xc0);
        assert_eq!(answer(&bytes), Err(Nothing::Malformed));
    }
    let long = vec!["a".repeat(63); 5].join(".");
    assert_eq!(question(&message(0, &long, A, &[])), Err(Nothing::Malformed));
    // A dot inside a label is no separator.
    let mut dotted = message(0, "aXtest", A, &[]);
    dotted[14] = b'.';
    assert_eq!(question(&dotted), Err(Nothing::Other));
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = question(&bytes);
        if let Ok(told) = answer(&bytes) {
            prop_assert!(told.found.len() <= FOUND && told.lookup.name.len() <= NAME);
        }
    }

    #[test]
    fn a_spoiled_answer_is_read_without_a_panic(at in 0usize..120, byte: u8, cut in 0usize..120) {
        let chain = [record(HERE, CNAME, 9, &label("b.test")), record(&label("b.test"), A, 9, &[10, 0, 0, 9])];
        let mut bytes = message(GOOD, "a.test", A, &chain);
        let whole = answer(&bytes).unwrap();
        prop_assert_eq!(whole.found.len(), 1);
        if let Some(place) = bytes.get_mut(at) { *place = byte; }
        bytes.truncate(bytes.len().saturating_sub(cut));
        let _ = (question(&bytes), answer(&bytes));
    }
}
