//! The runtime's table of functions, `.gopclntab`, as Go 1.20 and later write it (`src/debug/gosym/pclntab.go`). It stays in
//! stripped executables. Little-endian, 64 bits. It may have more bytes than the agent has memory for, so it is read in
//! pieces.

use std::collections::BTreeMap;

/// How it begins: the format's number, two zeros, the smallest instruction of x86-64, bytes of an address.
const HEAD: [u8; 8] = [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];
/// Bytes of the head, with the eight words behind [`HEAD`].
const HEADER: usize = 72;
/// Bytes that are read at once.
const PIECE: usize = 128 << 10;
/// The longest name that is compared.
const NAME: usize = 4096;
/// Names that are wanted at most.
const WANTED: usize = 64;

/// Where a table is read from.
pub(super) trait Source {
    /// Fills `to` from this place of the table; `None`: not all of it is there.
    fn read(&self, at: usize, to: &mut [u8]) -> Option<()>;
}

/// A table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<S> {
    source: S,
    len: usize,
    functions: usize,
    /// Where the code starts, as old versions note it; 0: not noted.
    pub(super) text: u64,
    /// Where names start and end.
    names: (usize, usize),
    /// Where rows start.
    rows: usize,
}

/// A piece of a table that is read from the front to the back.
struct Piece<'a, S> {
    table: &'a Table<S>,
    at: usize,
    bytes: Vec<u8>,
    /// Pieces that may still be read: who made the file decides how often one goes back.
    left: usize,
}

impl<'a, S: Source> Piece<'a, S> {
    fn new(table: &'a Table<S>) -> Self {
        Self { table, at: 0, bytes: Vec::new(), left: 2 * (table.len / PIECE) + 16 }
    }

    /// Two numbers of 4 bytes.
    fn pair(&mut self, at: usize) -> Option<(u32, u32)> {
        if at < self.at || at.checked_add(8)? > self.at + self.bytes.len() {
            self.left = self.left.checked_sub(1)?;
            self.at = at;
            self.bytes.resize(PIECE.min(self.table.len.checked_sub(at)?), 0);
            self.table.source.read(at, &mut self.bytes)?;
        }
        let (one, other) = self.bytes.get(at - self.at..)?.get(..8)?.split_at(4);
        Some((u32::from_le_bytes(one.try_into().ok()?), u32::from_le_bytes(other.try_into().ok()?)))
    }
}

impl<S: Source> Table<S> {
    /// Reads the header of a table of `len` bytes; `None`: another format.
    pub(super) fn parse(source: S, len: usize) -> Option<Self> {
        let mut head = [0; HEADER];
        source.read(0, &mut head)?;
        if !head.starts_with(&HEAD) {
            return None;
        }
        let word = |n: usize| Some(u64::from_le_bytes(head.get(8 + n * 8..16 + n * 8)?.try_into().ok()?));
        let place = |n: usize| word(n).and_then(|at| usize::try_from(at).ok());
        let names = (place(3)?, place(4)?);
        let table = Self { source, len, functions: place(0)?, text: word(2)?, names, rows: place(7)? };
        // Rows are pairs of 4 bytes.
        let end = table.functions.checked_mul(8)?.checked_add(table.rows)?;
        (end <= len && names.0 <= names.1 && names.1 <= len).then_some(table)
    }

    /// Names that are wanted, by their place behind the start of names.
    fn named(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<BTreeMap<u32, Box<[u8]>>> {
        let (mut found, mut at) = (BTreeMap::new(), self.names.0);
        let mut piece = vec![0; PIECE];
        while at < self.names.1 {
            let len = PIECE.min(self.names.1 - at);
            let bytes = piece.get_mut(..len)?;
            self.source.read(at, bytes)?;
            let mut done = 0;
            for name in bytes.split_inclusive(|byte| *byte == 0) {
                if let Some((0, name)) = name.split_last()
                    && wanted(name)
                {
                    let place = u32::try_from(at + done - self.names.0).ok()?;
                    found.insert(place, name.into());
                    if found.len() > WANTED {
                        return None;
                    }
                }
                // A name that goes on in the next piece is read again there, unless it is too long for any.
                let whole = name.ends_with(&[0]) || name.len() > NAME || at + done + name.len() == self.names.1;
                done += if whole { name.len() } else { 0 };
            }
            at += done;
        }
        Some(found)
    }

    /// Functions for whose names `wanted` answers, with where they begin behind the start of the code; `None`: not readable
    /// as a table.
    pub(super) fn find(&self, wanted: impl Fn(&[u8]) -> bool) -> Option<Vec<(Box<[u8]>, u32)>> {
        let names = self.named(wanted)?;
        let (mut functions, mut rows) = (Piece::new(self), Piece::new(self));
        let mut found = Vec::new();
        for n in 0..self.functions {
            let (start, row) = functions.pair(self.rows + n * 8)?;
            // A function's own row: where it begins, once more, and its name.
            let (again, name) = rows.pair(self.rows.checked_add(row as usize)?)?;
            if let Some(name) = names.get(&name)
                && again == start
                && found.len() < WANTED
            {
                found.push((name.clone(), start));
            }
        }
        Some(found)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Source for &[u8] {
        fn read(&self, at: usize, to: &mut [u8]) -> Option<()> {
            to.copy_from_slice(self.get(at..at.checked_add(to.len())?)?);
            Some(())
        }
    }

    fn table(functions: &[(&str, u32)]) -> Vec<u8> {
        let mut names = Vec::new();
        let (mut rows, mut own) = (Vec::new(), Vec::new());
        let first = functions.len() * 8 + 4;
        for (name, start) in functions {
            rows.extend([*start, (first + own.len()) as u32].map(u32::to_le_bytes).concat());
            own.extend([*start, names.len() as u32].map(u32::to_le_bytes).concat());
            names.extend(name.as_bytes());
            names.push(0);
        }
        rows.extend([0; 4]);
        let end = 72 + names.len();
        let words = [functions.len(), 0, 0x40_1000, 72, end, 0, 0, end];
        let words: Vec<u8> = words.iter().flat_map(|word| (*word as u64).to_le_bytes()).collect();
        [HEAD.as_slice(), &words, &names, &rows, &own].concat()
    }

    #[test]
    fn functions_are_found_by_name() {
        let bytes = table(&[("main.main", 0), ("net/http.a", 64), ("net/http.b", 128)]);
        let table = Table::parse(bytes.as_slice(), bytes.len()).unwrap();
        assert_eq!(table.text, 0x40_1000);
        let found = table.find(|name| name.starts_with(b"net/http.")).unwrap();
        assert_eq!(found, [(b"net/http.a".as_slice().into(), 64), (b"net/http.b".as_slice().into(), 128)]);
    }

    /// Wherever a piece ends, and whatever is too long to be compared.
    #[test]
    fn a_table_of_many_pieces_is_read_whole() {
        let long = "x".repeat(3 * PIECE);
        let names: Vec<_> = (0..40_000).map(|n| format!("pkg.{}{n}", "f".repeat(n % 61))).collect();
        let mut functions: Vec<_> = names.iter().zip((0..).step_by(16)).map(|(name, at)| (name.as_str(), at)).collect();
        functions.insert(20_000, (&long, 7));
        let bytes = table(&functions);
        assert!(bytes.len() > 12 * PIECE);
        let table = Table::parse(bytes.as_slice(), bytes.len()).unwrap();
        for n in (0..40_000).step_by(997).chain([39_999]) {
            let found = table.find(|name| name == names[n].as_bytes()).unwrap();
            assert_eq!(found, [(names[n].as_bytes().into(), n as u32 * 16)]);
        }
        assert_eq!(table.find(|name| name == b"f").unwrap(), []);
        assert!(table.find(|name| name.starts_with(b"pkg.")).is_none(), "too many are wanted");
    }

    /// Rows that lie the other way round would have each piece read again and again.
    #[test]
    fn going_back_has_an_end() {
        let names: Vec<_> = (0..40_000).map(|n| format!("pkg.{n}")).collect();
        let functions: Vec<_> = names.iter().zip(0..).map(|(name, at)| (name.as_str(), at)).collect();
        let mut bytes = table(&functions);
        let rows = 72 + names.iter().map(|name| name.len() + 1).sum::<usize>();
        let end = rows + functions.len() * 8;
        let mut turned: Vec<_> = bytes[rows..end].chunks(8).map(<[u8]>::to_vec).collect();
        turned.reverse();
        bytes[rows..end].copy_from_slice(&turned.concat());
        let table = Table::parse(bytes.as_slice(), bytes.len()).unwrap();
        assert!(table.find(|name| name == b"pkg.0").is_none());
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..200, to in any::<u8>()) {
            let junk = [HEAD.as_slice(), &bytes].concat();
            if let Some(table) = Table::parse(junk.as_slice(), junk.len()) {
                table.find(|_| true);
            }
            let mut bytes = table(&[("main.main", 0), ("net/http.a", 64)]);
            if let Some(byte) = bytes.get_mut(at) { *byte = to; }
            if let Some(table) = Table::parse(bytes.as_slice(), bytes.len()) {
                table.find(|_| true);
            }
        }
    }
}
