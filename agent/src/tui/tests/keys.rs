//! What keys do.

use super::*;

#[test]
fn tabs_by_number_and_in_turn() {
    let mut user = User::at(80, 24);
    for (key, title) in
        [('2', "Endpoints: 4"), ('3', "Edges: 2"), ('4', "Connections: 2"), ('5', "Drops: 3"), ('6', "Ledger: 7")]
    {
        assert_eq!(user.press(KeyCode::Char(key)), Then::Ask);
        assert!(user.screen()[2].starts_with(title), "{key}: {}", user.screen()[2]);
    }
    user.press(KeyCode::Tab);
    assert!(user.screen()[2].starts_with("Services: 3"));
    user.press(KeyCode::BackTab);
    assert!(user.screen()[2].starts_with("Ledger: 7"));
    user.press(KeyCode::Left);
    assert!(user.screen()[2].starts_with("Drops: 3"));
}

#[test]
fn every_way_to_quit() {
    for (code, modifiers) in [
        (KeyCode::Char('q'), KeyModifiers::NONE),
        (KeyCode::F(10), KeyModifiers::NONE),
        (KeyCode::Char('c'), KeyModifiers::CONTROL),
    ] {
        let mut user = User::at(80, 24);
        assert_eq!(update(&mut user.state, Event::Key(KeyEvent::new(code, modifiers))), Then::End(None));
    }
    let mut user = User::at(80, 24);
    assert_eq!(update(&mut user.state, Event::Quit), Then::End(None));
    assert_eq!(update(&mut user.state, Event::Gone("x".into())), Then::End(Some("x".into())));
    // A letter of a filter is no command; F10 and Ctrl-C are.
    user.keys("/q");
    assert_eq!(user.state.visit().unwrap().filter, "q");
    assert_eq!(user.press(KeyCode::F(10)), Then::End(None));
}

#[test]
fn the_filter_narrows_as_it_is_typed() {
    let mut user = User::at(80, 24);
    user.press(KeyCode::Char('2'));
    user.keys("/PO");
    assert_eq!(user.screen()[2], "Endpoints: 1 of 4 with \"PO\", by CALLS");
    assert_eq!(user.screen()[23], "/PO_");
    assert!(user.screen()[4].contains("/orders") && user.screen()[5].is_empty());
    user.press(KeyCode::Backspace);
    user.press(KeyCode::Backspace);
    user.keys("nothing");
    assert_eq!(user.screen()[4], "no row has this text");
    user.press(KeyCode::Esc);
    assert_eq!(user.screen()[2], "Endpoints: 4, by CALLS");
    assert!(!user.state.typing);
    // Enter keeps it; Esc clears it before it goes back.
    user.keys("/stock");
    user.press(KeyCode::Enter);
    assert_eq!(user.state.counts(), (1, 4));
    user.press(KeyCode::Esc);
    assert_eq!(user.state.counts(), (4, 4));
    // Each page has its own.
    user.keys("/stock");
    user.press(KeyCode::Enter);
    user.press(KeyCode::Char('1'));
    assert_eq!(user.state.counts(), (3, 3));
    user.press(KeyCode::Char('2'));
    assert_eq!(user.state.counts(), (1, 4));
}

#[test]
fn sorting_goes_from_column_to_column_and_round() {
    let mut user = User::at(80, 24);
    assert_eq!(user.state.headings()[..3], ["SERVICE", "IN", "IN/S"]);
    let first = |user: &User| user.screen()[4].split(' ').next().unwrap_or_default().to_owned();
    assert_eq!(first(&user), "shop");
    user.keys("S");
    assert_eq!(user.screen()[2], "Services: 3, by IN reversed");
    assert_eq!(first(&user), "curl");
    for _ in 0..user.state.headings().len() - 1 {
        user.press(KeyCode::F(6));
    }
    assert_eq!(user.screen()[2], "Services: 3, by SERVICE");
    assert_eq!(first(&user), "curl");
    user.keys("S");
    assert_eq!(first(&user), "shop");
    // The ledger's own order is one of the round.
    user.press(KeyCode::Char('6'));
    assert_eq!(user.screen()[2], "Ledger: 7");
    let headings = user.state.headings().len();
    user.keys(&"s".repeat(headings));
    assert_eq!(user.screen()[2], "Ledger: 7, by EACH");
    user.keys("s");
    assert_eq!(user.screen()[2], "Ledger: 7");
}

#[test]
fn a_service_opens_its_endpoints_and_edges_and_an_edge_its_calls() {
    let mut user = User::at(80, 24);
    assert_eq!(user.chosen(), "shop");
    assert_eq!(user.press(KeyCode::Enter), Then::Ask);
    let screen = user.screen();
    assert_eq!(screen[2], "Services › shop: 5, by CALLS");
    assert_eq!(screen[3], "Endpoints");
    assert_eq!(screen.iter().filter(|line| line.starts_with("shop")).count(), 4, "{screen:#?}");
    assert!(screen.contains(&"Edges".to_owned()));
    user.press(KeyCode::Down);
    user.press(KeyCode::Down);
    user.press(KeyCode::Down);
    assert_eq!(user.chosen(), "curl");
    assert_eq!(user.press(KeyCode::Enter), Then::Ask);
    let screen = user.screen();
    assert_eq!(screen[2], "Services › shop › curl → shop:8080: 2", "calls of another port are none of the edge's");
    assert!(screen[4].contains("GET") && screen[4].contains(" 200 ") && screen[4].contains("812µs"), "{}", screen[4]);
    user.press(KeyCode::Esc);
    assert_eq!((user.chosen().as_str(), user.screen()[2].as_str()), ("curl", "Services › shop: 5, by CALLS"));
    user.press(KeyCode::Esc);
    assert_eq!(user.screen()[2], "Services: 3, by IN");
    assert_eq!(user.press(KeyCode::Esc), Then::Draw);
    assert_eq!(user.state.data.len(), 1, "what was left is forgotten");
}

#[test]
fn an_endpoint_opens_its_calls() {
    let mut user = User::at(80, 24);
    user.press(KeyCode::Char('2'));
    user.keys("/POST");
    user.press(KeyCode::Enter);
    user.press(KeyCode::Enter);
    let target = &user.state.visit().unwrap().page.targets()[0];
    assert!(target.starts_with("/v1/calls?last=1000&kind=%73%65%72%76%65%72&service=%73%68%6F%70&method="), "{target}");
    // Those that the agent gave have another method.
    assert_eq!(user.screen()[2], "Endpoints › shop ← POST /orders: 0");
    user.press(KeyCode::Char('3'));
    assert!(user.state.deeper.is_empty());
    user.press(KeyCode::Char('2'));
    user.press(KeyCode::Esc);
    user.press(KeyCode::Enter);
    assert_eq!(user.screen()[2], "Endpoints › shop ← GET /orders/{id}: 1");
}

#[test]
fn the_chosen_row_is_followed_and_the_first_place_is_kept() {
    let mut user = User::at(80, 24);
    user.press(KeyCode::Char('3'));
    let first = user.chosen();
    user.press(KeyCode::Down);
    assert_eq!((first.as_str(), user.chosen().as_str()), ("curl", "shop"));
    user.agent
        .set("/v1/graph", vec![json!({"edges": [edge("curl", "shop", 1), edge("shop", "external:stock.test", 5)]})]);
    user.look();
    assert_eq!((user.chosen().as_str(), user.state.visit().unwrap().at), ("shop", 0));
    user.press(KeyCode::Home);
    user.agent
        .set("/v1/graph", vec![json!({"edges": [edge("curl", "shop", 9), edge("shop", "external:stock.test", 5)]})]);
    user.look();
    assert_eq!(user.chosen(), "curl");
    // A row that is gone leaves its place to whichever follows.
    user.press(KeyCode::End);
    user.agent.set("/v1/graph", vec![json!({"edges": [edge("curl", "shop", 9)]})]);
    user.look();
    assert_eq!(user.chosen(), "curl");
    user.agent.set("/v1/graph", Vec::new());
    user.look();
    assert_eq!((user.chosen().as_str(), user.press(KeyCode::Enter)), ("", Then::Draw));
}

#[test]
fn long_pages_scroll_by_lines_and_by_screens() {
    let mut user = User::at(80, 24);
    let many = (0..100).map(|n| endpoint(&format!("s{n:02}"), "server", "GET", "/", 100 - n, 0)).collect();
    user.agent.set("/v1/endpoints", many);
    user.press(KeyCode::Char('2'));
    let shown = |user: &User| (user.screen()[4][..3].to_owned(), user.screen()[22][..3].to_owned(), user.chosen());
    let is = |user: &User, first: &str, last: &str, chosen: &str| {
        assert_eq!(shown(user), (first.into(), last.into(), chosen.into()));
    };
    is(&user, "s00", "s18", "s00");
    user.press(KeyCode::PageDown);
    is(&user, "s00", "s18", "s18");
    user.press(KeyCode::Down);
    is(&user, "s01", "s19", "s19");
    user.press(KeyCode::PageDown);
    is(&user, "s19", "s37", "s37");
    user.press(KeyCode::End);
    is(&user, "s81", "s99", "s99");
    user.press(KeyCode::Down);
    is(&user, "s81", "s99", "s99");
    user.press(KeyCode::PageUp);
    is(&user, "s81", "s99", "s81");
    user.press(KeyCode::Up);
    is(&user, "s80", "s98", "s80");
    // A smaller terminal keeps the chosen row in view, a larger one shows more.
    update(&mut user.state, Event::Size(80, 10));
    assert_eq!((user.screen().len(), user.screen()[4][..3].to_owned()), (10, "s80".to_owned()));
    user.press(KeyCode::Home);
    update(&mut user.state, Event::Size(200, 50));
    assert_eq!(&user.screen()[48][..3], "s44");
}

#[test]
fn pause_keeps_what_is_read_and_still_shows_new_pages() {
    let mut user = User::at(80, 24);
    user.keys(" ");
    assert!(user.screen()[0].ends_with("PAUSED"), "{}", user.screen()[0]);
    user.agent.set("/v1/endpoints", vec![endpoint("shop", "server", "GET", "/", 7777, 0)]);
    user.look();
    assert!(user.screen()[4].contains("1010") && !user.screen()[4].contains("7777"));
    user.press(KeyCode::Char('3'));
    assert!(user.screen()[2].starts_with("Edges: 2"));
    user.press(KeyCode::Char('1'));
    user.keys(" ");
    user.look();
    assert!(user.screen()[4].contains("7777") && !user.screen()[0].contains("PAUSED"));
}

#[test]
fn an_agent_that_goes_is_named_and_one_that_comes_is_taken() {
    let mut user = User::at(80, 24);
    let why = "no agent at /run/weir/control.sock; trying again every second (gone)";
    update(&mut user.state, Event::Away(why.into()));
    assert_eq!(user.screen()[2], why);
    assert!(user.screen()[4].starts_with("shop"), "what was told stays");
    user.look();
    assert_eq!(user.screen()[2], "Services: 3, by IN");
    for _ in 0..3 {
        update(&mut user.state, Event::Second);
    }
    assert_eq!(user.screen()[2], "no answer from the agent for 3 s");
    user.look();
    assert_eq!(user.screen()[2], "Services: 3, by IN");
}

#[test]
fn help_covers_the_page_until_a_key() {
    for key in [KeyCode::F(1), KeyCode::Char('h'), KeyCode::Char('?')] {
        let mut user = User::at(80, 24);
        user.press(key);
        let screen = user.screen();
        assert!(
            screen.iter().any(|line| line.contains("rows with this text; Enter keeps, Esc clears it")),
            "{screen:#?}"
        );
        assert!(!screen.iter().any(|line| line.contains("shop") || line.ends_with('…')), "{screen:#?}");
        user.press(KeyCode::Char('2'));
        assert!(user.screen()[2].starts_with("Services: 3"), "the key did no more than end it");
    }
}

#[test]
fn an_answer_for_a_page_that_was_left_is_not_kept() {
    let mut user = User::at(80, 24);
    let page = Page::Service(page::Name { name: "shop".into(), namespace: None });
    let late = user.agent.news(&page);
    update(&mut user.state, late);
    assert!(!user.state.data.contains_key(&page));
}
