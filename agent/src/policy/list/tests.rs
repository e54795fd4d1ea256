use proptest::prelude::*;

use super::*;

fn nobody(_: &Prefix) -> Option<Box<str>> {
    None
}

/// A line for each number.
fn lines(numbers: std::ops::Range<u32>, line: impl Fn(u32) -> String) -> String {
    numbers.map(|n| line(n) + "\n").collect::<Vec<_>>().concat()
}

fn list(text: &str) -> Result<List, ListError> {
    read(text.as_bytes(), None, 1000)?.judge(None, nobody)
}

fn shown(text: &str) -> Vec<String> {
    list(text).unwrap().prefixes.iter().map(ToString::to_string).collect()
}

#[test]
fn every_format_is_read() {
    let wanted = ["192.0.2.0/31", "198.51.100.0/24", "2001:db8::/32"];
    for text in [
        "# a list\n\n192.0.2.0\r\n192.0.2.1 # x\n198.51.100.0/24 ; SBL1\n  2001:db8::/32\n; end",
        "\u{feff}address,seen\n192.0.2.0,x\n192.0.2.1,\"1,2\"\n 198.51.100.0/24 ,\n2001:db8::/32,y\n",
        "1,192.0.2.0\n2,192.0.2.1\n3,198.51.100.0/24\n# no\n4,2001:db8::/32",
        r#"["192.0.2.0","192.0.2.1","198.51.100.0/24","2001:db8::/32"]"#,
        r#" [{"ip":"192.0.2.0","range":"9.0.0.0/8"},{"value":"192.0.2.1"},{"x":[1],"cidr":"198.51.100.0/24"},{"range":"2001:db8::/32"}]"#,
        r#"{"meta":{"data":[]},"data":[{"ip":null,"address":"192.0.2.0"},"192.0.2.1","198.51.100.0/24","2001:db8::/32"],"next":null}"#,
    ] {
        let mut found = shown(text);
        found.sort();
        assert_eq!(found, wanted, "{text}");
    }
}

#[test]
fn lists_that_cannot_be_meant_are_refused_whole() {
    let page = "<html>\n<body>\n<h1>503</h1>\n192.0.2.1\n</body>";
    for (text, reason) in [
        ("", "empty"),
        ("# nothing\n", "empty"),
        ("[]", "empty"),
        ("{\"data\":[]}", "empty"),
        (page, "unparsable"),
        ("{\"error\":\"quota\"}", "unparsable"),
        ("[\"192.0.2.1\"", "unparsable"),
        ("[\"192.0.2.1\"] x", "unparsable"),
        ("[1,2,{},null,[],{\"ip\":7}]", "unparsable"),
        ("192.0.2.1\n0.0.0.0/0", "too_wide"),
        ("::/0", "too_wide"),
        ("8.0.0.0/7", "too_wide"),
        ("192.0.2.1/24", "unparsable"),
    ] {
        assert_eq!(list(text).unwrap_err().reason(), reason, "{text}");
    }
    // All addresses, a sixteenth at a time, and each of them short enough.
    let all: String = lines(0..256, |n| format!("{n}.0.0.0/8"));
    assert_eq!(list(&all).unwrap_err().reason(), "too_wide");
    let many: String = lines(0..1001, |n| format!("10.0.{}.{}", n / 256, n % 256));
    let refused = list(&many).unwrap_err();
    assert_eq!((refused.reason(), refused.to_string().contains("1000")), ("too_large", true));
    let refused = list(page).unwrap_err().to_string();
    assert!(refused.starts_with("4 of 5 entries are not addresses, first at line 1: address \"<html>\""), "{refused}");
}

#[test]
fn a_list_that_shrinks_is_refused_unless_it_was_short() {
    let of = |n| lines(0..n, |n| format!("10.0.0.{n}"));
    let judge = |n, before| read(of(n).as_bytes(), None, 1000).unwrap().judge(Some(before), nobody);
    assert_eq!(judge(9, 20).unwrap_err(), ListError::Shrunk { before: 20, now: 9 });
    assert!(judge(10, 20).is_ok() && judge(1, FEW - 1).is_ok());
    assert_eq!(judge(0, 2).unwrap_err(), ListError::Empty);
}

#[test]
fn entries_that_hit_the_allow_list_are_left_out() {
    let router: Prefix = "192.0.2.1".parse().unwrap();
    let saves = |prefix: &Prefix| prefix.covers(&router).then(|| "the router".into());
    let judged = read(b"192.0.2.0/24\n198.51.100.7\n192.0.2.1", None, 10).unwrap().judge(None, saves).unwrap();
    assert_eq!((judged.entries, judged.saved, judged.prefixes.len()), (3, 2, 1));
    assert_eq!(judged.first, Some(("192.0.2.0/24".parse().unwrap(), "the router".into())));
    assert_eq!(read(b"192.0.2.1", None, 10).unwrap().judge(None, saves).unwrap_err(), ListError::Empty);
}

#[test]
fn one_mistake_among_many_is_left_out() {
    let text = lines(0..20, |n| format!("10.0.0.{n}")) + "oops\n";
    let entries = read(text.as_bytes(), None, 100).unwrap();
    assert_eq!((entries.bad, entries.prefixes.len()), (1, 20));
    assert!(entries.judge(None, nobody).is_ok());
}

/// Bytes that look like a list more often than not.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<[u8; 4]>().prop_map(|a| format!("{}.{}.{}.{}", a[0], a[1], a[2], a[3])),
        (any::<[u8; 4]>(), 0..=33_u8).prop_map(|(a, len)| format!("{}.{}.0.0/{len}", a[0], a[1])),
        any::<u128>().prop_map(|a| std::net::Ipv6Addr::from(a).to_string()),
        prop::sample::select(vec![
            "\n",
            ",",
            "\"",
            "[",
            "]",
            "{",
            "}",
            "\"ip\":",
            "\"data\":",
            ":",
            "#",
            ";",
            "/",
            "\r",
            "\0"
        ])
        .prop_map(str::to_owned),
        ".{0,6}",
    ];
    prop_oneof![
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat().into_bytes()),
        prop::collection::vec(any::<u8>(), 0..200),
    ]
}

proptest! {
    #[test]
    fn hostile_lists_are_bounded(bytes in hostile(), format in 0..4_u8, max in 0..20_usize) {
        let format = [None, Some(Format::Text), Some(Format::Csv), Some(Format::Json)][usize::from(format)];
        let Ok(entries) = read(&bytes, format, max) else { return Ok(()) };
        prop_assert!(entries.prefixes.len() <= max);
        prop_assert!(entries.first.as_ref().is_none_or(|first| !first.contains(char::is_control)));
        let Ok(list) = entries.judge(None, nobody) else { return Ok(()) };
        prop_assert!(!list.prefixes.is_empty() && list.prefixes.len() <= list.entries);
        prop_assert!(list.prefixes.iter().all(|prefix| !prefix.is_too_wide()));
        prop_assert!(list.prefixes.windows(2).all(|pair| pair[0] < pair[1] && !pair[0].covers(&pair[1])));
    }

    #[test]
    fn joining_changes_no_address(octets in prop::collection::vec((0..4_u8, 24..=32_u8), 1..40), probe in any::<[u8; 2]>()) {
        let prefixes: Vec<Prefix> = octets
            .iter()
            .map(|(octet, len)| Prefix::new(std::net::Ipv4Addr::new(10, 0, *octet, octet.wrapping_mul(67)).into(), *len))
            .collect();
        let after = joined(prefixes.clone());
        let address = std::net::IpAddr::from([10, 0, probe[0] % 5, probe[1]]);
        prop_assert_eq!(
            prefixes.iter().any(|prefix| prefix.holds(address)),
            crate::policy::prefix::position(&after, address).is_some()
        );
    }
}
