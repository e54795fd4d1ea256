//! What events do to the state; nothing else changes it, and it touches no world.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::page::Page;
use super::state::{Event, News, State, Visit};
use super::table::Sort;

/// What is to be done beside drawing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// Nothing.
    Draw,
    /// The agent is to be asked for the page in view.
    Ask,
    /// The end; with a reason where it is none that its user wanted.
    End(Option<String>),
}

/// Longest filter, characters.
const FILTER: usize = 200;

/// Takes an event in.
pub(super) fn update(state: &mut State, event: Event) -> Then {
    let then = match event {
        Event::Key(key) if key.kind == KeyEventKind::Release => Then::Draw,
        Event::Key(key) => pressed(state, key),
        Event::Size(columns, lines) => {
            state.size = (columns, lines);
            Then::Draw
        }
        Event::News(news) => {
            told(state, *news);
            Then::Draw
        }
        Event::Away(why) => {
            state.away = Some(why);
            state.silent = 0;
            Then::Draw
        }
        Event::Second => {
            state.silent += 1;
            Then::Draw
        }
        Event::Quit => Then::End(None),
        Event::Gone(why) => Then::End(Some(why)),
    };
    state.settle();
    then
}

fn told(state: &mut State, news: News) {
    state.away = None;
    state.silent = 0;
    // Who paused wants to read; a page that was not there yet is shown all the same.
    if state.paused && state.data.contains_key(&news.page) {
        return;
    }
    state.header = Some(news.header);
    state.unreadable = news.unreadable;
    let is_of = |visit: &Visit| visit.page == news.page;
    // An answer for a page that was left meanwhile.
    if state.tabs.iter().chain(&state.deeper).any(is_of) {
        state.data.insert(news.page, news.tables);
    }
}

fn pressed(state: &mut State, key: KeyEvent) -> Then {
    let control = key.modifiers.contains(KeyModifiers::CONTROL);
    if key.code == KeyCode::F(10) || control && key.code == KeyCode::Char('c') {
        return Then::End(None);
    }
    if state.help {
        state.help = false;
        return Then::Draw;
    }
    if moved(state, key.code) {
        return Then::Draw;
    }
    if state.typing {
        type_filter(state, key.code, control);
        return Then::Draw;
    }
    if control {
        return Then::Draw;
    }
    match key.code {
        KeyCode::Char('q') => return Then::End(None),
        KeyCode::Char('h' | '?') | KeyCode::F(1) => state.help = true,
        KeyCode::Char(' ') => state.paused = !state.paused,
        KeyCode::Char('/') | KeyCode::F(4) => state.typing = true,
        KeyCode::Char('s') | KeyCode::F(6) => next_sort(state),
        KeyCode::Char('S') => {
            if let Some(sort) = state.visit_mut().and_then(|visit| visit.sort.as_mut()) {
                sort.reverse = !sort.reverse;
            }
        }
        KeyCode::Char(digit @ '1'..='6') => return go(state, digit as usize - '1' as usize),
        KeyCode::Tab | KeyCode::Right => return go(state, (state.tab + 1) % state.tabs.len()),
        KeyCode::BackTab | KeyCode::Left => return go(state, (state.tab + state.tabs.len() - 1) % state.tabs.len()),
        KeyCode::Enter => return open(state),
        KeyCode::Esc | KeyCode::Backspace => return back(state),
        _ => {}
    }
    Then::Draw
}

/// Keys that move within the page, also while a filter is typed.
fn moved(state: &mut State, key: KeyCode) -> bool {
    let page = state.room().saturating_sub(1).max(1);
    let rows = state.counts().0;
    let Some(at) = state.visit().map(|visit| visit.at) else { return false };
    let to = match key {
        KeyCode::Up => at.saturating_sub(1),
        KeyCode::Down => at + 1,
        KeyCode::PageUp => at.saturating_sub(page),
        KeyCode::PageDown => at + page,
        KeyCode::Home => 0,
        KeyCode::End => usize::MAX,
        KeyCode::Char('k') if !state.typing => at.saturating_sub(1),
        KeyCode::Char('j') if !state.typing => at + 1,
        _ => return false,
    };
    let to = to.min(rows.saturating_sub(1));
    // The first row is whichever comes first: who is at the top stays there.
    let chosen = if to == 0 { None } else { state.row(to).map(|(table, row)| (table, row.key.clone())) };
    if let Some(visit) = state.visit_mut() {
        visit.chosen = chosen;
        visit.at = to;
    }
    true
}

fn type_filter(state: &mut State, key: KeyCode, control: bool) {
    let Some(visit) = state.visit_mut() else { return };
    match key {
        KeyCode::Esc => {
            visit.filter.clear();
            state.typing = false;
        }
        KeyCode::Enter => state.typing = false,
        KeyCode::Backspace => drop(visit.filter.pop()),
        KeyCode::Char('u') if control => visit.filter.clear(),
        KeyCode::Char(c) if !control && !c.is_control() && visit.filter.chars().count() < FILTER => {
            visit.filter.push(c);
        }
        _ => {}
    }
}

/// The next column, or the natural order after the last where the page has one.
fn next_sort(state: &mut State) {
    let headings = state.headings();
    let Some(visit) = state.visit_mut() else { return };
    let next = match visit.sort {
        None => headings.first(),
        Some(sort) => match headings.iter().position(|heading| *heading == sort.heading) {
            Some(last) if last + 1 >= headings.len() && visit.page.sort().is_none() => None,
            Some(place) => headings.get((place + 1) % headings.len().max(1)),
            None => headings.first(),
        },
    };
    visit.sort = next.map(|heading| Sort { heading, reverse: false });
}

/// To a tab, from wherever.
fn go(state: &mut State, tab: usize) -> Then {
    state.tab = tab;
    while let Some(left) = state.deeper.pop() {
        state.data.remove(&left.page);
    }
    Then::Ask
}

/// Into the chosen row.
fn open(state: &mut State) -> Then {
    let Some(page) = state.visit().and_then(|visit| state.row(visit.at)).and_then(|(_, row)| row.opens.clone()) else {
        return Then::Draw;
    };
    state.deeper.push(Visit::to(page));
    Then::Ask
}

/// Clears the filter, else goes back where one came from.
fn back(state: &mut State) -> Then {
    if let Some(visit) = state.visit_mut()
        && !visit.filter.is_empty()
    {
        visit.filter.clear();
        return Then::Draw;
    }
    match state.deeper.pop() {
        Some(Visit { page, .. }) => {
            forget(state, &page);
            Then::Ask
        }
        None => Then::Draw,
    }
}

fn forget(state: &mut State, page: &Page) {
    if !state.tabs.iter().chain(&state.deeper).any(|visit| visit.page == *page) {
        state.data.remove(page);
    }
}
