//! A screen that is written line by line, and how things look on it.

use ratatui::Frame;
use ratatui::style::{Color, Modifier, Style};

use super::fit;
use super::table::{Stand, Tone};

/// How it looks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Without, what matters is bold, underlined or reversed.
    pub(super) colours: bool,
}

impl Look {
    fn pick(self, colour: Style, plain: Modifier) -> Style {
        if self.colours { colour } else { Style::new().add_modifier(plain) }
    }

    pub(super) fn head(self) -> Style {
        self.pick(Style::new().fg(Color::Black).bg(Color::Green), Modifier::BOLD | Modifier::UNDERLINED)
    }

    pub(super) fn chosen(self) -> Style {
        self.pick(Style::new().fg(Color::Black).bg(Color::Cyan), Modifier::REVERSED)
    }

    pub(super) fn title(self) -> Style {
        self.pick(Style::new().fg(Color::Cyan).add_modifier(Modifier::BOLD), Modifier::BOLD)
    }

    pub(super) fn alarm(self) -> Style {
        self.pick(Style::new().fg(Color::White).bg(Color::Red), Modifier::BOLD | Modifier::REVERSED)
    }

    pub(super) fn tone(self, tone: Tone) -> Style {
        match tone {
            Tone::Plain => Style::new(),
            Tone::Good => self.pick(Style::new().fg(Color::Green), Modifier::empty()),
            Tone::Warn => self.pick(Style::new().fg(Color::Yellow), Modifier::empty()),
            Tone::Bad => self.pick(Style::new().fg(Color::Red), Modifier::BOLD),
            Tone::Dim => Style::new().add_modifier(Modifier::DIM),
        }
    }
}

/// A screen that is written line by line.
pub(super) struct Paper<'a, 'b> {
    /// Where it is written to.
    pub(super) frame: &'a mut Frame<'b>,
    /// How.
    pub(super) look: Look,
}

impl Paper<'_, '_> {
    pub(super) fn columns(&self) -> usize {
        usize::from(self.frame.area().width)
    }

    pub(super) fn lines(&self) -> usize {
        usize::from(self.frame.area().height)
    }

    /// Writes a text that is cut where the screen ends; gives where the next one may begin.
    pub(super) fn put(&mut self, line: usize, column: usize, text: &str, style: Style) -> usize {
        let (left, end) = (self.columns().saturating_sub(column), column + fit::width(text));
        if line >= self.lines() || left == 0 {
            return end;
        }
        let text = if end > self.columns() { &fit::fit(text, left, Stand::Left) } else { text };
        if let (Ok(x), Ok(y)) = (u16::try_from(column), u16::try_from(line)) {
            self.frame.buffer_mut().set_stringn(x, y, text, left, style);
        }
        end
    }

    /// Writes a text over a whole line.
    pub(super) fn put_line(&mut self, line: usize, text: &str, style: Style) {
        let text = fit::fit(text, self.columns(), Stand::Left);
        self.put(line, 0, &text, style);
    }
}
