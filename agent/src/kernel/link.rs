//! Cgroup links that can be pinned: aya 0.14 keeps the descriptors of its own to itself.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Commands of `bpf(2)`.
const BPF_OBJ_PIN: libc::c_long = 6;
const BPF_LINK_CREATE: libc::c_long = 28;

/// Where a program of a cgroup is attached (`enum bpf_attach_type`).
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// `BPF_CGROUP_INET_INGRESS`.
    Ingress = 0,
    /// `BPF_CGROUP_INET_EGRESS`.
    Egress = 1,
    /// `BPF_CGROUP_INET_SOCK_CREATE`.
    SockCreate = 2,
    /// `BPF_CGROUP_SOCK_OPS`.
    SockOps = 3,
    /// `BPF_CGROUP_INET4_CONNECT`.
    Connect4 = 10,
    /// `BPF_CGROUP_INET6_CONNECT`.
    Connect6 = 11,
}

#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    place: u32,
    flags: u32,
}

#[repr(C)]
struct ObjPin {
    path: u64,
    object: u32,
    flags: u32,
}

pub(super) fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<libc::c_int> {
    let pointer: *const T = attributes;
    // SAFETY: `attributes` is alive and as long as it is said; the kernel only reads it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as libc::c_int) }
}

/// Attaches a program to a cgroup, beside what is there. The link ends with its last descriptor and pin.
pub(super) fn create(program: BorrowedFd<'_>, cgroup: &File, place: Place) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: program.as_raw_fd().cast_unsigned(),
        target: cgroup.as_raw_fd().cast_unsigned(),
        place: place as u32,
        flags: 0,
    };
    let fd = bpf(BPF_LINK_CREATE, &attributes)?;
    // SAFETY: the kernel has just made it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Pins a map or a link into a bpffs.
pub(super) fn pin(object: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjPin { path: path.as_ptr() as u64, object: object.as_raw_fd().cast_unsigned(), flags: 0 };
    bpf(BPF_OBJ_PIN, &attributes).map(drop)
}
