//! `weir top`: what the agent sees, live, on a terminal, with keys as in htop.
//!
//! `update` takes events into a [`state::State`], `draw` shows it; neither touches a world. Threads make the events: one
//! reads keys, one waits for signals, one asks the agent (`ask`).

mod ask;
mod draw;
mod fit;
mod help;
mod page;
mod pages;
mod paper;
mod rates;
mod state;
mod table;
mod terminal;
#[cfg(test)]
mod tests;
mod update;
mod wire;

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ratatui::crossterm::event::{self, Event as Input};
use tokio::signal::unix::{SignalKind, signal};

use self::page::Page;
use self::paper::Look;
use self::state::{Event, State};
use self::terminal::Taken;
use self::update::{Then, update};
use crate::control::client::Client;

/// Events that wait; then who makes them waits.
const WAITING: usize = 64;
/// How often a silent agent is noticed.
const SECOND: Duration = Duration::from_secs(1);

/// Shows what the agent sees until its user has seen enough. Stdout must be a terminal.
///
/// # Errors
/// The terminal can't be used, or a thread can't be started.
pub fn run(client: &Client, colours: bool) -> io::Result<()> {
    let (events, happened) = sync_channel(WAITING);
    let (pages, wanted) = sync_channel(WAITING);
    let (keys, signals, answers, client) = (events.clone(), events.clone(), events.clone(), client.clone());
    // Before the terminal is taken over: who ends this process then finds it waiting.
    let (ready, is_ready) = sync_channel(1);
    let start = |name: &str, body: Box<dyn FnOnce() + Send>| start(name, events.clone(), body);
    start("weir-signals", Box::new(move || wait_for_signals(&signals, &ready)))?;
    // It fails where the thread said why instead.
    let _ = is_ready.recv();
    let mut taken = Taken::take(Look { colours })?;
    start("weir-keys", Box::new(move || read_keys(&keys)))?;
    start("weir-ask", Box::new(move || ask::run(&client, &wanted, &answers)))?;
    let mut state = State::new(taken.size()?);
    let end = show(&mut taken, &mut state, &happened, &pages);
    drop(taken);
    end
}

/// Starts a thread without which there is nothing to show: when it panics, everything ends.
fn start(name: &str, events: SyncSender<Event>, body: Box<dyn FnOnce() + Send>) -> io::Result<()> {
    struct Tell(SyncSender<Event>);
    impl Drop for Tell {
        fn drop(&mut self) {
            if thread::panicking() {
                let _ = self.0.send(Event::Gone("a thread of weir top panicked".into()));
            }
        }
    }
    let tell = Tell(events);
    let guarded = move || {
        let _tell = tell;
        body();
    };
    thread::Builder::new().name(name.to_owned()).spawn(guarded).map(drop)
}

fn show(taken: &mut Taken, state: &mut State, happened: &Receiver<Event>, pages: &SyncSender<Page>) -> io::Result<()> {
    let ask = |state: &State| {
        if let Some(visit) = state.visit() {
            // Full: the agent is silent, and is asked for the page in view when it speaks again.
            let _ = pages.try_send(visit.page.clone());
        }
    };
    ask(state);
    let mut second = Instant::now() + SECOND;
    loop {
        taken.show(state)?;
        let mut event = match happened.recv_timeout(second.saturating_duration_since(Instant::now())) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => {
                second = Instant::now() + SECOND;
                Event::Second
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        // Whatever has gathered is drawn once.
        loop {
            match update(state, event) {
                Then::Draw => {}
                Then::Ask => ask(state),
                Then::End(None) => return Ok(()),
                Then::End(Some(why)) => return Err(io::Error::other(why)),
            }
            match happened.try_recv() {
                Ok(next) => event = next,
                Err(_) => break,
            }
        }
    }
}

fn read_keys(events: &SyncSender<Event>) {
    loop {
        let event = match event::read() {
            Ok(Input::Key(key)) => Event::Key(key),
            Ok(Input::Resize(columns, lines)) => Event::Size(columns, lines),
            Ok(_) => continue,
            Err(error) => Event::Gone(format!("reading the terminal: {error}")),
        };
        let last = matches!(event, Event::Gone(_));
        if events.send(event).is_err() || last {
            return;
        }
    }
}

/// The terminal went away, or somebody wants an end: either way it is given back first.
fn wait_for_signals(events: &SyncSender<Event>, ready: &SyncSender<()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let waited = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let mut hangup = signal(SignalKind::hangup())?;
            let mut interrupt = signal(SignalKind::interrupt())?;
            let mut terminate = signal(SignalKind::terminate())?;
            let _ = ready.send(());
            tokio::select! {
                _ = hangup.recv() => {}
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            io::Result::Ok(())
        })
    });
    let event = match waited {
        Ok(()) => Event::Quit,
        Err(error) => Event::Gone(format!("waiting for signals: {error}")),
    };
    let _ = events.send(event);
}
