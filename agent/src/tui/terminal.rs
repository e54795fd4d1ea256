//! The terminal: taken over, and given back whatever happens.

use std::io::{self, BufWriter, Stdout, Write as _};
use std::sync::Once;

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::{Hide, Show};
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};

use super::draw::draw;
use super::paper::Look;
use super::state::State;

/// A frame of a large terminal; it goes out in one piece, so that nothing flickers.
const FRAME: usize = 1 << 18;

/// The terminal of stdout, taken over until this is dropped.
pub(super) struct Taken {
    terminal: Terminal<CrosstermBackend<BufWriter<Stdout>>>,
    look: Look,
}

impl Taken {
    /// Takes it over.
    pub(super) fn take(look: Look) -> io::Result<Self> {
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let before = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                give_back();
                before(panic);
            }));
        });
        enable_raw_mode()?;
        let entered = execute!(io::stdout(), EnterAlternateScreen, Hide);
        let terminal =
            entered.and_then(|()| Terminal::new(CrosstermBackend::new(BufWriter::with_capacity(FRAME, io::stdout()))));
        match terminal {
            Ok(terminal) => Ok(Self { terminal, look }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    /// Columns and lines.
    pub(super) fn size(&self) -> io::Result<(u16, u16)> {
        self.terminal.size().map(|size| (size.width, size.height))
    }

    /// Draws what has changed.
    pub(super) fn show(&mut self, state: &State) -> io::Result<()> {
        self.terminal.draw(|frame| draw(state, self.look, frame)).map(drop)
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        give_back();
    }
}

/// Gives it back as it was. A terminal that is gone needs nothing.
fn give_back() {
    let mut out = io::stdout();
    let _ = execute!(out, LeaveAlternateScreen, Show);
    let _ = disable_raw_mode();
    let _ = out.flush();
}
