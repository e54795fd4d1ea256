//! `--output live` and `--output json`: calls as they come, written by a thread of its own, so that a slow terminal
//! costs lines and not calls.

use std::{
    io::{BufWriter, ErrorKind, Write, stdout},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, TryRecvError, sync_channel},
    },
    thread::JoinHandle,
};

use super::{line::Line, print, screen::Screen};
use crate::{app::Viewer, model::json::CallJson};

/// Lines that wait for stdout; beyond it they are left out and counted.
const WAITING: usize = 16_384;

/// What is written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// A line for people.
    Line(Screen),
    /// CONTRACT "A call".
    Json,
}

/// Starts the writer; gives who takes the calls, and the writer, which ends when that is gone and everything is written.
pub(super) fn start(form: Form) -> std::io::Result<(Option<Viewer>, Option<JoinHandle<()>>)> {
    let (sender, lines) = sync_channel::<String>(WAITING);
    let left_out = Arc::new(AtomicU64::new(0));
    let missed = Arc::clone(&left_out);
    let writer = std::thread::Builder::new().name("weir-live".into()).spawn(move || write(&lines, &missed))?;
    let viewer: Viewer = Box::new(move |call| {
        let line = match form {
            Form::Line(screen) => Line::of(call).show(screen),
            Form::Json => serde_json::to_string(&CallJson(call)).unwrap_or_default(),
        };
        if sender.try_send(line).is_err() {
            left_out.fetch_add(1, Relaxed);
        }
    });
    Ok((Some(viewer), Some(writer)))
}

/// Writes until nobody sends any more. A reader that went away is no reason to stop watching.
fn write(lines: &Receiver<String>, missed: &AtomicU64) {
    let mut out = BufWriter::new(stdout());
    let mut failed = false;
    while let Ok(mut line) = lines.recv() {
        loop {
            let _ = writeln!(out, "{line}");
            match lines.try_recv() {
                Ok(next) => line = next,
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => break,
            }
        }
        // What a full disk does not take waits in the buffer, and then is lost: that is said.
        match out.flush() {
            Err(error) if error.kind() != ErrorKind::BrokenPipe && !failed => {
                failed = true;
                tracing::warn!(%error, "calls can't be written to stdout; weir calls has them");
            }
            written => failed = failed && written.is_err(),
        }
        let missed = missed.swap(0, Relaxed);
        if missed > 0 {
            print::said(&format!("weir: {missed} calls came faster than they could be shown; weir calls has them"));
        }
    }
}
