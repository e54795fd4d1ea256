//! Sending and receiving through `io_uring`: no system call carries the bytes.

use std::net::TcpStream;
use std::os::fd::AsRawFd;

use anyhow::{Context, Result, ensure};
use io_uring::{IoUring, opcode, squeue, types};

/// A ring of the calling thread's.
pub struct Ring(IoUring);

impl Ring {
    /// A small one.
    pub fn new() -> Result<Self> {
        IoUring::new(8).map(Self).context("io_uring is not to be had here (kernel.io_uring_disabled?)")
    }

    fn run(&mut self, entry: &squeue::Entry) -> Result<usize> {
        // SAFETY: the callers keep buffer and socket borrowed until this returns, and it returns when the kernel is done
        // with the entry.
        unsafe { self.0.submission().push(entry) }?;
        self.0.submit_and_wait(1)?;
        let result = self.0.completion().next().context("no completion")?.result();
        ensure!(result >= 0, std::io::Error::from_raw_os_error(-result));
        Ok(result.cast_unsigned() as usize)
    }

    /// Sends all of `bytes`.
    pub fn send(&mut self, stream: &TcpStream, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let entry = opcode::Send::new(types::Fd(stream.as_raw_fd()), bytes.as_ptr(), bytes.len() as u32).build();
            let sent = self.run(&entry)?;
            bytes = bytes.get(sent..).context("more sent than there was")?;
        }
        Ok(())
    }

    /// Receives into `buffer`; 0 at the end.
    pub fn receive(&mut self, stream: &TcpStream, buffer: &mut [u8]) -> Result<usize> {
        let length = buffer.len() as u32;
        let entry = opcode::Recv::new(types::Fd(stream.as_raw_fd()), buffer.as_mut_ptr(), length).build();
        self.run(&entry)
    }

    /// Receives until `count` bytes are there.
    pub fn receive_all(&mut self, stream: &TcpStream, count: usize) -> Result<Vec<u8>> {
        let mut all = vec![0; count];
        let mut at = 0;
        while at < count {
            let got = self.receive(stream, all.get_mut(at..).context("past the end")?)?;
            ensure!(got > 0, "closed {} bytes early", count - at);
            at += got;
        }
        Ok(all)
    }
}
