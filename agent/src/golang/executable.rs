//! One executable.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use object::elf::{EM_X86_64, ET_DYN, FileHeader64, PF_X, PT_LOAD, PT_TLS};
use object::read::elf::{FileHeader as _, ProgramHeader as _, SectionHeader as _, SectionTable};
use object::{Endianness, ReadCache, ReadRef};
use weir_common::goroutine::{GoProcess, SERVES};

use super::pclntab::{Source, Table};
use super::{buildinfo, place, version};

/// The largest table of functions that is read, bytes.
const TABLE: u64 = 128 << 20;
/// What is looked at of each version string's section, bytes.
const INFO: u64 = 512;
/// Where a goroutine begins that serves one connection: `go c.serve(ctx)` of [`Serve`](https://pkg.go.dev/net/http#Server.Serve)
/// is a closure of it, and no other closure of it is one.
const SERVE: &[u8] = b"net/http.(*Server).Serve.";
/// Where a request is handed to a connection.
const CALL: &[u8] = b"net/http.(*persistConn).roundTrip";
/// Offset of `net/http.persistConn.conn`, unchanged since Go 1.13.
const CONN: u32 = 80;
/// Bytes that are looked at of a function's code, and those that one has at least.
const CODE: u64 = 24;
const FIRST: u64 = 12;
/// Bytes of the thread-local variable of Go, which lies at the end of its block.
const LOCAL: u64 = 8;

/// Why the goroutines of a Go program are not told apart.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unknown {
    /// The file can't be read.
    #[error("the executable can't be read: {0}")]
    Unreadable(String),
    /// It is for another processor.
    #[error("only programs for x86-64 are known")]
    Machine,
    /// Another version.
    #[error("{0} is not known")]
    Version(String),
    /// Something is not where it is expected.
    #[error("{0}")]
    Odd(&'static str),
    /// It neither serves nor calls with `net/http`.
    #[error("no net/http server")]
    Serves,
}

/// A Go program whose goroutines can be told apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Executable {
    /// Its processes as they would lie at its own addresses.
    row: GoProcess,
    /// Offset in the file of where a probe is placed on what hands requests over; `None`: it has no such client.
    pub call: Option<u64>,
    /// Address of its program headers, where it may lie anywhere.
    headers: Option<u64>,
}

/// A file, as far as it was read.
struct Elf<'a> {
    file: &'a File,
    data: &'a ReadCache<&'a File>,
    endian: Endianness,
    header: &'a FileHeader64<Endianness>,
    sections: SectionTable<'a, FileHeader64<Endianness>, &'a ReadCache<&'a File>>,
}

/// A part of a file.
struct Part<'a> {
    file: &'a File,
    at: u64,
}

impl Source for Part<'_> {
    fn read(&self, at: usize, to: &mut [u8]) -> Option<()> {
        self.file.read_exact_at(to, self.at.checked_add(at as u64)?).ok()
    }
}

impl<'a> Elf<'a> {
    /// `None`: no 64-bit little-endian ELF.
    fn read(file: &'a File, data: &'a ReadCache<&'a File>) -> Option<Self> {
        let header = FileHeader64::<Endianness>::parse(data).ok()?;
        let endian = header.endian().ok().filter(|endian| *endian == Endianness::Little)?;
        let sections = header.sections(endian, data).ok()?;
        Some(Self { file, data, endian, header, sections })
    }

    /// Where a section lies in the file, and its bytes there.
    fn section(&self, name: &[u8]) -> Option<(u64, u64)> {
        let (_, section) = self.sections.section_by_name(self.endian, name)?;
        section.file_range(self.endian)
    }

    fn table(&self) -> Option<Table<Part<'a>>> {
        let names = [b".gopclntab".as_slice(), b".data.rel.ro.gopclntab"];
        let (at, len) = names.into_iter().find_map(|name| self.section(name))?;
        Table::parse(Part { file: self.file, at }, usize::try_from(len.min(TABLE)).ok()?)
    }

    fn address(&self, name: &[u8]) -> Option<u64> {
        self.sections.section_by_name(self.endian, name).map(|(_, section)| section.sh_addr.get(self.endian))
    }

    fn segments(&self) -> &'a [object::elf::ProgramHeader64<Endianness>] {
        self.header.program_headers(self.endian, self.data).unwrap_or_default()
    }

    /// Where an address of the code lies in the file.
    fn offset(&self, address: u64) -> Option<u64> {
        self.segments().iter().find_map(|segment| {
            let (start, len) = (segment.p_vaddr(self.endian), segment.p_filesz(self.endian));
            let code = segment.p_type(self.endian) == PT_LOAD && segment.p_flags(self.endian) & PF_X != 0;
            let within = address.checked_sub(start).filter(|within| code && *within < len)?;
            segment.p_offset(self.endian).checked_add(within)
        })
    }

    /// Where the program headers lie in memory.
    fn headers(&self) -> Option<u64> {
        let at = self.header.e_phoff(self.endian);
        self.segments().iter().find_map(|segment| {
            let within = at.checked_sub(segment.p_offset(self.endian))?;
            let there = segment.p_type(self.endian) == PT_LOAD && within < segment.p_filesz(self.endian);
            there.then(|| segment.p_vaddr(self.endian).checked_add(within))?
        })
    }

    /// The thread-local variables of C would lie beside Go's, nobody says in which order.
    fn is_alone(&self) -> bool {
        let local = self.segments().iter().find(|segment| segment.p_type(self.endian) == PT_TLS);
        local.is_none_or(|local| local.p_memsz(self.endian) == LOCAL)
    }

    /// A function's first instructions.
    fn code(&self, address: u64) -> Option<&'a [u8]> {
        let at = self.offset(address)?;
        [CODE, FIRST].into_iter().find_map(|len| self.data.read_bytes_at(at, len).ok())
    }

    /// A function of Go begins here that looks whether its stack is large enough.
    fn begins(&self, address: u64) -> bool {
        self.code(address).and_then(looks).is_some()
    }

    /// Where in the file a probe on a function is best placed.
    fn place(&self, address: u64) -> Option<u64> {
        let behind = self.code(address).and_then(pushes).unwrap_or_default();
        self.offset(address)?.checked_add(behind)
    }
}

/// Bytes of the look whether the stack is large enough, by the goroutine in R14, with which a function of Go begins.
fn looks(code: &[u8]) -> Option<usize> {
    // cmp rsp, [r14+16]; lea r12, [rsp-N] and cmp r12, [r14+16], with N of 1 or 4 bytes.
    let compares = |at: usize| code.get(at..at + 4) == Some(&[0x4d, 0x3b, 0x66, 0x10]);
    if code.starts_with(&[0x49, 0x3b, 0x66, 0x10]) {
        Some(4)
    } else if code.starts_with(&[0x4c, 0x8d, 0x64, 0x24]) && compares(5) {
        Some(9)
    } else if code.starts_with(&[0x4c, 0x8d, 0xa4, 0x24]) && compares(8) {
        Some(12)
    } else {
        None
    }
}

/// Where the frame pointer is pushed behind that look and its jump (jbe, near or far), with registers as at the function's
/// start. The kernel does this instruction by itself (`push_setup_xol_ops` of `arch/x86/kernel/uprobes.c`), where the
/// comparison has to be stepped over: a trap more, for each call. And who had to make room for the stack begins anew and
/// passes here once.
fn pushes(code: &[u8]) -> Option<u64> {
    let jump = looks(code)?;
    let behind = match code.get(jump..)? {
        [0x76, ..] => jump + 2,
        [0x0f, 0x86, ..] => jump + 6,
        _ => return None,
    };
    (code.get(behind) == Some(&0x55)).then_some(behind as u64)
}

impl Executable {
    /// Of a process; `Ok(None)`: no Go program.
    pub fn of(pid: u32) -> Result<Option<Self>, Unknown> {
        let unreadable = |error: io::Error| Unknown::Unreadable(error.to_string());
        let file = File::open(place::path(pid)).map_err(unreadable)?;
        let data = ReadCache::new(&file);
        let Some(elf) = Elf::read(&file, &data) else { return Ok(None) };
        let info = elf.section(b".go.buildinfo").and_then(|(at, len)| data.read_bytes_at(at, len.min(INFO)).ok());
        info.map(|info| Self::read(&elf, info)).transpose()
    }

    fn read(elf: &Elf<'_>, info: &[u8]) -> Result<Self, Unknown> {
        if elf.header.e_machine(elf.endian) != EM_X86_64 {
            return Err(Unknown::Machine);
        }
        let version = buildinfo::version(info).ok_or(Unknown::Odd("it does not tell its version"))?;
        let offsets = version::offsets(version).ok_or_else(|| Unknown::Version(version.to_owned()))?;
        let form = Unknown::Odd("its table of functions has another form");
        let table = elf.table().ok_or_else(|| form.clone())?;
        let found = table.find(|name| name.starts_with(SERVE) || name == CALL).ok_or(form)?;
        let (calls, serves): (Vec<_>, Vec<_>) = found.into_iter().partition(|(name, _)| &**name == CALL);
        if serves.is_empty() {
            return Err(Unknown::Serves);
        }
        if serves.len() > SERVES {
            return Err(Unknown::Odd("its server has another form"));
        }
        if !elf.is_alone() {
            return Err(Unknown::Odd("it has thread-local variables beside Go's"));
        }
        // Newer tables do not tell where the code starts. Which place it is, is told by code that is known.
        let (_, known) = calls.first().or_else(|| serves.first()).ok_or(Unknown::Serves)?;
        let texts = [Some(table.text).filter(|text| *text != 0), elf.address(b".text")];
        let start = |text: u64| text.checked_add(u64::from(*known)).filter(|start| elf.begins(*start)).map(|_| text);
        let text = texts.into_iter().flatten().find_map(start);
        let text = text.ok_or(Unknown::Odd("its functions begin in another way"))?;
        let mut row = GoProcess {
            serves: [0; SERVES],
            running: -(LOCAL as i32),
            id: offsets.id,
            start: offsets.start,
            conn: CONN,
        };
        for (place, (_, start)) in row.serves.iter_mut().zip(&serves) {
            *place = text.wrapping_add(u64::from(*start));
        }
        let call = match calls.first() {
            None => None,
            Some((_, start)) => {
                let at = elf.place(text.wrapping_add(u64::from(*start)));
                Some(at.ok_or(Unknown::Odd("its client is not in the file"))?)
            }
        };
        let headers = if elf.header.e_type(elf.endian) == ET_DYN {
            Some(elf.headers().ok_or(Unknown::Odd("its headers are not in memory"))?)
        } else {
            None
        };
        Ok(Self { row, call, headers })
    }

    /// A process of it; `None`: it is gone.
    #[must_use]
    pub fn process(&self, pid: u32) -> Option<GoProcess> {
        let bias = self.headers.map_or(Some(0), |headers| place::bias(pid, headers))?;
        let mut row = self.row;
        for serve in row.serves.iter_mut().filter(|serve| **serve != 0) {
            *serve = serve.checked_add(bias)?;
        }
        Some(row)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_is_placed_where_the_frame_pointer_is_pushed() {
        let near = [0x76, 0x20, 0x55, 0x48];
        let far = [0x0f, 0x86, 1, 2, 3, 4, 0x55];
        let small = [0x49, 0x3b, 0x66, 0x10];
        let medium = [0x4c, 0x8d, 0x64, 0x24, 0xb0, 0x4d, 0x3b, 0x66, 0x10];
        let large = [0x4c, 0x8d, 0xa4, 0x24, 0x10, 0xfe, 0xff, 0xff, 0x4d, 0x3b, 0x66, 0x10];
        for look in [&small[..], &medium, &large] {
            assert_eq!(pushes(&[look, &near].concat()), Some(look.len() as u64 + 2));
            assert_eq!(pushes(&[look, &far].concat()), Some(look.len() as u64 + 6));
            // sub rsp, a jump of another kind, and nothing more.
            for other in [&[0x76, 0x20, 0x48, 0x83][..], &[0x77, 0x20, 0x55], &[0x0f, 0x87, 1, 2, 3, 4, 0x55], &[]] {
                let code = [look, other].concat();
                assert_eq!((looks(&code), pushes(&code)), (Some(look.len()), None));
            }
        }
        assert_eq!((looks(&near), pushes(&near)), (None, None));
    }

    #[test]
    fn this_program_is_no_go_program() {
        assert_eq!(Executable::of(std::process::id()), Ok(None));
        assert!(matches!(Executable::of(u32::MAX), Err(Unknown::Unreadable(_))));
    }
}
