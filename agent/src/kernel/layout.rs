//! Offsets of kernel structures, from the running kernel's BTF (Documentation/bpf/btf.rst).
//!
//! A reader of its own: the crates at hand keep members private or come under a licence that a static binary can't take.

use std::collections::HashMap;
use std::path::Path;

use weir_common::knob::{GoOffsets, NO_OFFSET, Offsets};

/// Where the kernel shows its own BTF.
pub const VMLINUX: &str = "/sys/kernel/btf/vmlinux";

/// Why BTF could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing or unreadable.
    #[error("reading {path}")]
    Read {
        /// The file.
        path: String,
        /// Cause.
        source: std::io::Error,
    },
    /// The file is not BTF of version 1.
    #[error("{path} is not BTF version 1: {what}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        what: &'static str,
    },
}

const MAGIC: u16 = 0xeb9f;
const KIND_STRUCT: u32 = 4;
const KIND_UNION: u32 = 5;
/// `typedef`, `volatile`, `const`, `restrict`, type tag: stand for the type that they name.
const KIND_ALIAS: [u32; 5] = [8, 9, 10, 11, 18];

/// A parsed type section: where each type starts, and structures by name.
struct Btf<'a> {
    types: &'a [u8],
    strings: &'a [u8],
    starts: Vec<usize>,
    structs: HashMap<&'a str, u32>,
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

impl<'a> Btf<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, &'static str> {
        let magic = bytes.get(..2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
        if magic != Some(MAGIC) {
            return Err("wrong magic number");
        }
        let header = u32_at(bytes, 4).ok_or("short header")? as usize;
        let field = |n: usize| u32_at(bytes, 8 + n * 4).map(|v| v as usize).ok_or("short header");
        let section = |at: usize, len: usize| bytes.get(header + at..header + at + len).ok_or("section out of file");
        let types = section(field(0)?, field(1)?)?;
        let strings = section(field(2)?, field(3)?)?;
        let mut btf = Self { types, strings, starts: vec![usize::MAX], structs: HashMap::new() };
        let mut at = 0;
        while at + 12 <= types.len() {
            let info = u32_at(types, at + 4).ok_or("short type")?;
            let (kind, members) = (info >> 24 & 0x1f, (info & 0xffff) as usize);
            let id = btf.starts.len() as u32;
            btf.starts.push(at);
            if kind == KIND_STRUCT
                && let Some(name) = btf.string(u32_at(types, at).ok_or("short type")?)
                && !name.is_empty()
            {
                btf.structs.entry(name).or_insert(id);
            }
            at += 12
                + match kind {
                    1 | 14 | 17 => 4,
                    3 => 12,
                    4 | 5 | 15 | 19 => members * 12,
                    6 | 13 => members * 8,
                    2 | 7..=12 | 16 | 18 => 0,
                    _ => return Err("unknown kind"),
                };
        }
        Ok(btf)
    }

    fn string(&self, at: u32) -> Option<&'a str> {
        let rest = self.strings.get(at as usize..)?;
        let end = rest.iter().position(|&b| b == 0)?;
        std::str::from_utf8(rest.get(..end)?).ok()
    }

    /// Bit offset of a member, also inside anonymous structures and unions, and the type that it has.
    fn member(&self, id: u32, name: &str) -> Option<(u32, u32)> {
        let at = *self.starts.get(id as usize)?;
        let info = u32_at(self.types, at + 4)?;
        let (kind, members, bitfields) = (info >> 24 & 0x1f, (info & 0xffff) as usize, info >> 31 == 1);
        if KIND_ALIAS.contains(&kind) {
            return self.member(u32_at(self.types, at + 8)?, name);
        }
        if kind != KIND_STRUCT && kind != KIND_UNION {
            return None;
        }
        for member in 0..members {
            let row = at + 12 + member * 12;
            let (own, kind) = (self.string(u32_at(self.types, row)?)?, u32_at(self.types, row + 4)?);
            let bits = u32_at(self.types, row + 8)?;
            let offset = if bitfields { bits & 0x00ff_ffff } else { bits };
            if own == name {
                return Some((offset, kind));
            }
            if own.is_empty()
                && let Some((inner, kind)) = self.member(kind, name)
            {
                return Some((offset + inner, kind));
            }
        }
        None
    }

    /// Bit offset of `path` in a structure.
    fn bit(&self, name: &str, path: &[&str]) -> Option<u32> {
        let mut id = *self.structs.get(name)?;
        let mut sum = 0;
        for part in path {
            let (offset, kind) = self.member(id, part)?;
            sum += offset;
            id = kind;
        }
        Some(sum)
    }

    /// Byte offset of `path` in a structure.
    fn offset(&self, name: &str, path: &[&str]) -> Option<u32> {
        self.bit(name, path).map(|bit| bit / 8)
    }

    /// Where a packet says whether its checksum was verified: a byte of it, and the places of `ip_summed` and
    /// `csum_valid` in the 32 bits from there.
    fn summed(&self) -> Option<[u32; 3]> {
        let (summed, valid) = (self.bit("sk_buff", &["ip_summed"])?, self.bit("sk_buff", &["csum_valid"])?);
        let byte = summed.min(valid) / 8;
        let within = |bit: u32| Some(bit - byte * 8).filter(|bit| *bit < 31);
        Some([byte, within(summed)?, within(valid)?])
    }
}

/// Reads the offsets that the kernel half wants. A member that this kernel lacks stays [`NO_OFFSET`].
pub fn read(path: &Path) -> Result<(Offsets, GoOffsets), Error> {
    let name = || path.display().to_string();
    let bytes = std::fs::read(path).map_err(|source| Error::Read { path: name(), source })?;
    let btf = Btf::parse(&bytes).map_err(|what| Error::Malformed { path: name(), what })?;
    let offset = |name, path: &[&str]| btf.offset(name, path).unwrap_or(NO_OFFSET);
    let [skb_bits, skb_summed, skb_valid] = btf.summed().unwrap_or([NO_OFFSET; 3]);
    let go = GoOffsets {
        // On x86-64 only.
        task_base: offset("task_struct", &["thread", "fsbase"]),
        task_files: offset("task_struct", &["files"]),
        files_table: offset("files_struct", &["fdt"]),
        table_files: offset("fdtable", &["fd"]),
        file_private: offset("file", &["private_data"]),
        socket_sock: offset("socket", &["sk"]),
        sock_cookie: offset("sock", &["__sk_common", "skc_cookie"]),
        sock_copied: offset("tcp_sock", &["copied_seq"]),
    };
    let offsets = Offsets {
        sock_owned: offset("sock", &["sk_lock", "owned"]),
        task_tgid: offset("task_struct", &["tgid"]),
        task_pid: offset("task_struct", &["pid"]),
        task_parent: offset("task_struct", &["real_parent"]),
        task_mm: offset("task_struct", &["mm"]),
        mm_arg_start: offset("mm_struct", &["arg_start"]),
        mm_arg_end: offset("mm_struct", &["arg_end"]),
        // `possible_net_t` holds nothing but the pointer.
        sock_net: offset("sock", &["__sk_common", "skc_net"]),
        net_cookie: offset("net", &["net_cookie"]),
        skb_bits,
        skb_summed,
        skb_valid,
        sock_wq: offset("sock", &["sk_wq"]),
        wq_head: offset("socket_wq", &["wait", "head"]),
        sock_socket: offset("sock", &["sk_socket"]),
        socket_file: offset("socket", &["file"]),
        file_flags: offset("file", &["f_flags"]),
        task_io_uring: offset("task_struct", &["io_uring"]),
    };
    Ok((offsets, go))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_every_offset() {
        let (offsets, go) = read(Path::new(VMLINUX)).unwrap();
        assert!(go.are_known() || !cfg!(target_arch = "x86_64"), "{go:?}");
        for offset in [offsets.sock_owned, offsets.task_tgid, offsets.task_parent, offsets.mm_arg_start] {
            assert!(offset != NO_OFFSET && offset < 16384, "{offsets:?}");
        }
        for offset in [offsets.sock_wq, offsets.wq_head, offsets.sock_socket, offsets.socket_file, offsets.file_flags] {
            assert!(offset != NO_OFFSET && offset < 16384, "{offsets:?}");
        }
        assert_eq!(offsets.task_tgid, offsets.task_pid + 4);
        assert_eq!(offsets.mm_arg_end, offsets.mm_arg_start + 8);
        assert!(offsets.skb_bits < 1024 && offsets.skb_summed < 31 && offsets.skb_valid < 31, "{offsets:?}");
    }

    #[test]
    fn garbage_is_refused() {
        assert!(Btf::parse(b"").is_err());
        assert!(Btf::parse(&[0x9f, 0xeb, 1, 0, 255, 255, 255, 255]).is_err());
        let mut bytes = std::fs::read(VMLINUX).unwrap();
        bytes.truncate(bytes.len() / 2);
        assert!(Btf::parse(&bytes).is_err());
    }
}
