//! The runtime's table of functions, `.gopclntab`, as Go 1.20 and later write it (`src/debug/gosym/pclntab.go`). It stays in
//! stripped executables. Little-endian, 64 bits.

/// How it begins: the format's number, two zeros, the smallest instruction of x86-64, bytes of an address.
const HEAD: [u8; 8] = [0xf1, 0xff, 0xff, 0xff, 0, 0, 1, 8];

/// A table.
#[derive(Clone, Copy, Debug)]
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    functions: usize,
    /// Where the code starts, as old versions note it; 0: not noted.
    pub(super) text: u64,
    /// Where names start.
    names: usize,
    /// Where rows start.
    rows: usize,
}

impl<'a> Table<'a> {
    /// Reads the header; `None`: another format.
    pub(super) fn parse(bytes: &'a [u8]) -> Option<Self> {
        if !bytes.starts_with(&HEAD) {
            return None;
        }
        let word = |n: usize| Some(u64::from_le_bytes(bytes.get(8 + n * 8..16 + n * 8)?.try_into().ok()?));
        let place = |n: usize| word(n).and_then(|at| usize::try_from(at).ok());
        let table = Self { bytes, functions: place(0)?, text: word(2)?, names: place(3)?, rows: place(7)? };
        // Rows are pairs of 4 bytes.
        let end = table.functions.checked_mul(8)?.checked_add(table.rows)?;
        (end <= bytes.len() && table.names <= bytes.len()).then_some(table)
    }

    fn number(&self, at: usize) -> Option<u32> {
        self.bytes.get(at..at.checked_add(4)?)?.try_into().ok().map(u32::from_le_bytes)
    }

    fn name(&self, offset: u32) -> Option<&'a [u8]> {
        let rest = self.bytes.get(self.names.checked_add(offset as usize)?..)?;
        rest.split(|&byte| byte == 0).next()
    }

    /// Functions for whose names `wanted` answers, with where they begin behind the start of the code.
    pub(super) fn find(&self, wanted: impl Fn(&[u8]) -> bool) -> Vec<(&'a [u8], u32)> {
        let row = |n: usize| {
            let at = self.rows + n * 8;
            let (start, row) = (self.number(at)?, self.number(at + 4)?);
            // A function's own row: where it begins, once more, and its name.
            let row = self.rows.checked_add(row as usize)?;
            let name = self.name(self.number(row.checked_add(4)?)?)?;
            (self.number(row)? == start && wanted(name)).then_some((name, start))
        };
        (0..self.functions).filter_map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        let words = [functions.len(), 0, 0x40_1000, 72, 0, 0, 0, 72 + names.len()];
        let words: Vec<u8> = words.iter().flat_map(|word| (*word as u64).to_le_bytes()).collect();
        [HEAD.as_slice(), &words, &names, &rows, &own].concat()
    }

    #[test]
    fn functions_are_found_by_name() {
        let bytes = table(&[("main.main", 0), ("net/http.a", 64), ("net/http.b", 128)]);
        let table = Table::parse(&bytes).unwrap();
        assert_eq!(table.text, 0x40_1000);
        let found = table.find(|name| name.starts_with(b"net/http."));
        assert_eq!(found, [(b"net/http.a".as_slice(), 64), (b"net/http.b", 128)]);
    }

    proptest! {
        #[test]
        fn junk_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300), at in 0usize..200, to in any::<u8>()) {
            let junk = [HEAD.as_slice(), &bytes].concat();
            if let Some(table) = Table::parse(&junk) {
                table.find(|_| true);
            }
            let mut bytes = table(&[("main.main", 0), ("net/http.a", 64)]);
            if let Some(byte) = bytes.get_mut(at) { *byte = to; }
            if let Some(table) = Table::parse(&bytes) {
                table.find(|_| true);
            }
        }
    }
}
