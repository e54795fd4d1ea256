//! What the keys do.

/// Keys and what they do, a line each.
pub(super) const KEYS: [(&str, &str); 13] = [
    ("1-6 Tab Left Right", "pages"),
    ("Up Down PgUp PgDn Home End", "move; at the top it stays there"),
    ("Enter", "a service's endpoints and edges; others' calls"),
    ("Esc  Backspace", "clear the filter, else back"),
    ("/  F4", "rows with this text; Enter keeps, Esc clears it"),
    ("s  F6", "sort by the next column"),
    ("S", "the other way round"),
    ("Space", "pause, go on"),
    ("h  ?  F1", "this help; any key ends it"),
    ("q  F10  Ctrl-C", "quit"),
    ("", ""),
    ("IN OUT ERR", "calls answered, made, failed (4xx for clients)"),
    ("P99 <=", "99 of 100 calls took no longer"),
];
