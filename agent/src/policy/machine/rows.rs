//! Rows under construction and the classes of symbols.

use weir_common::judge::{ACCEPT, ACTION, ARGUMENT, CLASSES, COLUMNS, Classes, ESCAPES, Row};

/// Class of a space.
pub(super) const SPACE: u8 = 0;
/// Class of CR.
pub(super) const CR: u8 = 95;
/// Class of LF.
pub(super) const LF: u8 = 96;
/// Class of the bytes that some servers take for a space: VT, FF, FS..US.
pub(super) const ODD_SPACE: u8 = 97;
/// Class of the other control characters.
pub(super) const CONTROL: u8 = 98;
/// Class of an encoded octet that is content for every server and that no rule names.
pub(super) const ENCODED: u8 = 99;
/// Class of an encoded slash.
pub(super) const ENCODED_SLASH: u8 = 100;
/// Class of an encoded backslash or control character.
pub(super) const ENCODED_BAD: u8 = 101;
/// Class of raw octets above 0x7f.
pub(super) const HIGH: u8 = 102;
/// Class of a tab.
pub(super) const TAB: u8 = 103;
/// First class that rules hand out to the encoded octets they name.
pub(super) const NAMED: u8 = 104;

/// The class of a printable ASCII character.
pub(super) const fn printable(byte: u8) -> u8 {
    byte - b' '
}

/// RFC 9110 §5.6.2 `tchar`.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The class of every symbol; `named` are the encoded octets that get classes of their own, in order.
pub(super) fn classes(named: &[u8]) -> Classes {
    std::array::from_fn(|symbol| class(symbol as u16, named))
}

fn raw(byte: u8) -> u8 {
    match byte {
        b' '..=b'~' => printable(byte),
        b'\r' => CR,
        b'\n' => LF,
        b'\t' => TAB,
        0x0b | 0x0c | 0x1c..=0x1f => ODD_SPACE,
        0x80.. => HIGH,
        _ => CONTROL,
    }
}

/// RFC 3986 §6.2.2.2 decodes unreserved characters. Servers decode the others too before they look a path up, so
/// every encoded character that does not structure a path counts as the character itself.
fn encoded(byte: u8, named: &[u8]) -> u8 {
    match byte {
        b'/' => ENCODED_SLASH,
        b'\\' | 0..0x20 | 0x7f => ENCODED_BAD,
        b'%' | b'?' | b'#' | b';' | b' ' | 0x80.. => {
            named.iter().position(|&other| other == byte).map_or(ENCODED, |at| NAMED + at as u8)
        }
        _ => printable(byte),
    }
}

/// The class of a pattern's symbol.
pub(super) fn class(symbol: u16, named: &[u8]) -> u8 {
    let byte = (symbol & 255) as u8;
    if symbol < 256 { raw(byte) } else { encoded(byte, named) }
}

/// Encoded octets that can get a class of their own.
pub(super) const NAMED_MAX: usize = CLASSES - NAMED as usize;

/// The table that is being built.
#[derive(Debug)]
pub(super) struct Rows(pub(super) Vec<Row>);

impl Rows {
    /// Adds a state: every symbol leads to `elsewhere`.
    pub(super) fn add(&mut self, elsewhere: u16, action: u16, argument: u16) -> u16 {
        let mut row = [elsewhere; COLUMNS];
        row[ESCAPES] = 0;
        row[ARGUMENT] = argument;
        row[ACTION] = action;
        row[ACCEPT] = 0;
        self.0.push(row);
        (self.0.len() - 1) as u16
    }

    /// Adds a state with the successors of another one and what it accepts, but an action of its own.
    pub(super) fn like(&mut self, model: u16, action: u16, argument: u16) -> u16 {
        let mut row = self.0[usize::from(model)];
        row[ARGUMENT] = argument;
        row[ACTION] = action;
        self.0.push(row);
        (self.0.len() - 1) as u16
    }

    /// Sets the successor for a class.
    pub(super) fn on(&mut self, state: u16, class: u8, next: u16) {
        self.0[usize::from(state)][usize::from(class)] = next;
    }

    /// Every symbol leads to `next`.
    pub(super) fn fill(&mut self, state: u16, next: u16) {
        self.0[usize::from(state)][..CLASSES].fill(next);
    }

    /// Gives a state the successors of another one.
    pub(super) fn follow(&mut self, state: u16, model: u16) {
        let row = self.0[usize::from(model)];
        self.0[usize::from(state)][..CLASSES].copy_from_slice(&row[..CLASSES]);
    }

    /// Sets the successor for a printable character.
    pub(super) fn on_byte(&mut self, state: u16, byte: u8, next: u16) {
        self.on(state, printable(byte), next);
    }

    /// Sets the successor for a letter in both cases, or for any other printable character.
    pub(super) fn on_letter(&mut self, state: u16, byte: u8, next: u16) {
        self.on_byte(state, byte.to_ascii_lowercase(), next);
        self.on_byte(state, byte.to_ascii_uppercase(), next);
    }

    /// Sets what the state accepts.
    pub(super) fn accept(&mut self, state: u16, accept: u16) {
        self.0[usize::from(state)][ACCEPT] = accept;
    }

    /// Percent-encoding starts here.
    pub(super) fn escapes(&mut self, state: u16) {
        self.0[usize::from(state)][ESCAPES] = 1;
    }
}

/// Behind the method: which form the target has (RFC 9112 §3.2). Returns the state right behind the space.
pub(super) fn target(rows: &mut Rows, exits: super::head::Exits, root: u16, authority: u16) -> u16 {
    use weir_common::judge::{ACT_FLAG, ACT_NONE, ACT_ROOT, state, unclear};
    let other = state::TARGET;
    rows.on(other, SPACE, exits.path_space);
    rows.on(other, TAB, exits.path_odd);
    rows.on(other, ODD_SPACE, exits.path_odd);
    rows.on(other, CR, exits.path_cr);
    rows.on(other, LF, exits.path_lf);
    let start = rows.add(other, ACT_NONE, 0);
    rows.follow(start, other);
    rows.on_byte(start, b'/', root);
    // Servers take any scheme (RFC 3986 §3.1), and some of them one without an authority behind it.
    let scheme = rows.like(other, ACT_NONE, 0);
    let colon = rows.like(other, ACT_NONE, 0);
    let slash = rows.like(root, ACT_ROOT, root);
    for byte in b'a'..=b'z' {
        rows.on_letter(start, byte, scheme);
        rows.on_letter(scheme, byte, scheme);
    }
    for byte in *b"0123456789+-." {
        rows.on_byte(scheme, byte, scheme);
    }
    rows.on_byte(scheme, b':', colon);
    rows.on_byte(colon, b'/', slash);
    rows.on_byte(slash, b'/', authority);
    let spaces = rows.like(start, ACT_FLAG, unclear::SPACE);
    for from in [start, spaces] {
        rows.on(from, SPACE, spaces);
        rows.on(from, TAB, spaces);
        rows.on(from, ODD_SPACE, spaces);
    }
    start
}
