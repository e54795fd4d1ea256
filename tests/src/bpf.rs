//! Programs that take others' places at a control group: the kernel attaches 64 of a kind there, and no more.

use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

use anyhow::{Context, Result, ensure};

const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const CGROUP_SKB: u32 = 8;
/// `mov r0, 1; exit`: lets every packet pass.
const PASS: [u64; 2] = [0x0000_0001_0000_00b7, 0x95];

/// `union bpf_attr` as far as a program needs it (`include/uapi/linux/bpf.h`).
#[repr(C)]
struct Load {
    kind: u32,
    count: u32,
    code: u64,
    license: u64,
    log: [u64; 2],
    version: u32,
    flags: u32,
    name: [u8; 16],
    device: u32,
    place: u32,
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> std::io::Result<OwnedFd> {
    let pointer: *const T = attributes;
    // SAFETY: `attributes` is alive and as long as it is said; the kernel only reads it.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    if fd < 0 {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(i32::try_from(fd).unwrap_or(-1)) })
}

/// Takes every place that is left at a group for programs that see what is received. They let everything pass, and go
/// with what is returned.
pub fn crowd(group: &Path) -> Result<Vec<OwnedFd>> {
    let group = File::open(group)?;
    let license = c"GPL";
    let load = Load {
        kind: CGROUP_SKB,
        count: PASS.len() as u32,
        code: PASS.as_ptr() as u64,
        license: license.as_ptr() as u64,
        log: [0; 2],
        version: 0,
        flags: 0,
        name: [0; 16],
        device: 0,
        place: 0,
    };
    let program = bpf(PROG_LOAD, &load).context("loading a program")?;
    let mut links = Vec::new();
    loop {
        ensure!(links.len() < 1000, "the kernel attaches any number");
        let to = [program.as_raw_fd().cast_unsigned(), group.as_raw_fd().cast_unsigned(), 0, 0];
        match bpf(LINK_CREATE, &to) {
            Ok(link) => links.push(link),
            Err(error) if error.raw_os_error() == Some(libc::E2BIG) => return Ok(links),
            Err(error) => return Err(error).context("attaching a program"),
        }
    }
}
