//! What stands on the screen.

use ratatui::style::{Color, Modifier};

use super::*;

#[test]
fn services_on_80_by_24() {
    let mut user = User::at(80, 24);
    user.look();
    let screen = user.screen();
    assert_eq!(screen.len(), 24);
    assert_eq!(
        screen[..7],
        [
            "weir 0.1.0  up 1.50min  calls 1010  0/s  lost 34  cpu 0%  mem 20M",
            " 1 Services  2 Endpoints  3 Edges  4 Connections  5 Drops  6 Ledger",
            "Services: 3, by IN",
            "SERVICE   IN IN/S IN ERR AVG  OUT OUT/S OUT ERR PROCS NAMED BY   NAMESPACE UNIT",
            "shop    1010    0      3 2ms    5     0       0     2 executable -         -",
            "curl       0    0      0   - 1000     0      30    12 executable -         -",
            "idle       0    0      0   -    0     0       0     1 script     -         -",
        ]
    );
    assert!(screen[7..23].iter().all(String::is_empty));
    assert_eq!(screen[23], "F1 Help  / Filter  F6 Sort  S Reverse  Enter Open  Esc Back  Space Pause  q Quit");
}

#[test]
fn endpoints_are_cut_on_80_and_whole_on_200() {
    let mut user = User::at(80, 24);
    user.press(KeyCode::Char('2'));
    let screen = user.screen();
    assert_eq!(
        screen[3..8],
        [
            "SERVICE SIDE   METHOD ROUTE                 CALLS PER S ERR AVG P99 <=   IN  OUT",
            "shop    server GET    /orders/{id}           1000     -   3 2ms    5ms   2K 337K",
            "curl    client GET    /orders/{id}           1000     -  30 2ms    5ms 337K   2K",
            "shop    server POST   /orders                  10     -   0 2ms    5ms   2K 337K",
            "shop    client GET    /stock/{id}/of/the/w…     5     -   0 2ms    5ms 337K   2K",
        ]
    );
    update(&mut user.state, Event::Size(200, 50));
    let screen = user.screen();
    assert_eq!(screen.len(), 50);
    assert_eq!(
        screen[7],
        "shop     client  GET     /stock/{id}/of/the/warehouse/that/is/far/away      5      -    0  2ms     5ms  337K    2K"
    );
    assert!(screen[49].starts_with("F1 Help"));
}

#[test]
fn every_page_fits_and_says_what_it_knows() {
    for (columns, lines) in [(80, 24), (200, 50)] {
        let mut user = User::at(columns, lines);
        for (key, parts) in [
            ('1', &["shop", "1010", "executable"][..]),
            ('2', &["/orders/{id}", "1000", "P99 <="]),
            ('3', &["curl", "8080", "1010", "12.5", "1ms", "4ms"]),
            ('4', &[":51234", ":51235", "1.50K", "1.50min", "opaque"]),
            (
                '5',
                &[
                    "scan",
                    "deny",
                    "monitor",
                    "30s",
                    "1h",
                    "mode is monitor: nothing is dropped",
                    "dropped",
                    "41",
                    "loopback",
                ],
            ),
            ('6', &["seen", "1234", "ring_full", "weir_ingress", "attached", "250ns", "Messages"]),
        ] {
            user.press(KeyCode::Char(key));
            let mut text = user.screen().join("\n");
            // What does not fit below is reached by moving.
            user.press(KeyCode::End);
            text += &user.screen().join("\n");
            for part in parts {
                assert!(text.contains(part), "{key} at {columns}: no {part} in\n{text}");
            }
            user.press(KeyCode::Home);
        }
    }
    let mut wide = User::at(200, 50);
    wide.press(KeyCode::Char('5'));
    let text = wide.screen().join("\n");
    assert!(text.contains("client.address=203.0.113.0/24 server.port=8080,8081"), "{text}");
    wide.press(KeyCode::Char('4'));
    assert!(wide.screen().join("\n").contains("opaque: rustls"));
}

#[test]
fn numbers_stand_under_the_end_of_their_heading() {
    let mut user = User::at(80, 24);
    user.press(KeyCode::Char('3'));
    let screen = user.screen();
    for (heading, number) in [("CALLS", "1010"), ("P99", "4ms"), ("PORT", "8080"), ("LAST", "2s")] {
        let end = |line: &str, text: &str| line.find(text).map(|at| line[..at + text.len()].chars().count());
        assert_eq!(end(&screen[3], heading), end(&screen[4], number), "{heading}\n{}\n{}", screen[3], screen[4]);
    }
}

#[test]
fn the_ledger_has_sections_that_scroll() {
    let mut user = User::at(80, 12);
    user.press(KeyCode::Char('6'));
    let screen = user.screen();
    assert_eq!(screen[3], "Messages, in segments: seen = delivered + filtered + lost");
    assert!(screen[4].starts_with("STAGE") && screen[5].starts_with("seen"), "{screen:#?}");
    user.press(KeyCode::End);
    let screen = user.screen();
    assert!(screen[10].starts_with("weir_ingress") && screen[8] == "Programs", "{screen:#?}");
    user.press(KeyCode::Home);
    assert!(user.screen()[3].starts_with("Messages"));
}

#[test]
fn rates_come_with_the_second_look() {
    let mut user = User::at(80, 24);
    assert!(user.screen()[4].starts_with("shop    1010    -"), "{}", user.screen()[4]);
    user.agent.set("/v1/endpoints", vec![endpoint("shop", "server", "GET", "/", 1060, 0)]);
    user.look();
    assert!(user.screen()[4].starts_with("shop    1060   50"), "{}", user.screen()[4]);
}

#[test]
fn without_colours_there_are_none_and_the_choice_is_still_seen() {
    let mut user = User::at(80, 24);
    update(&mut user.state, Event::Away("away".into()));
    let plain = user.terminal(false);
    let cells = &plain.backend().buffer().content;
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
    let reversed = |line: usize| cells[line * 80].modifier.contains(Modifier::REVERSED);
    assert_eq!([reversed(2), reversed(4), reversed(5)], [true, true, false]);
    let colours = user.terminal(true);
    let cells = &colours.backend().buffer().content;
    assert_eq!((cells[3 * 80].bg, cells[4 * 80].bg, cells[2 * 80].bg), (Color::Green, Color::Cyan, Color::Red));
}

#[test]
fn any_size_will_do() {
    for columns in [1, 2, 7, 20, 39, 80, 500] {
        for lines in [1, 2, 3, 4, 5, 6, 24, 100] {
            let mut user = User::at(columns, lines);
            for key in "1234561\n\nh /sS".chars() {
                let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
                user.press(code);
                user.press(KeyCode::End);
                assert_eq!(user.screen().len(), usize::from(lines));
            }
        }
    }
}
