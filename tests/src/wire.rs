//! A client and a server of the tests' own, with every segment, pause, shutdown and reset under control.
//!
//! Only a small reader of answers is here: what is right is judged against bytes that the test itself wrote.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use rustix::net::sockopt;

use crate::place;

/// Longest that any read may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// One end of a connection.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    ahead: Vec<u8>,
}

/// An HTTP message as it came: start line and header section, then content with its framing taken off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Start line and header section with the empty line.
    pub head: Vec<u8>,
    /// Content.
    pub body: Vec<u8>,
}

impl Message {
    /// Start line.
    #[must_use]
    pub fn start(&self) -> String {
        let line = self.head.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default();
        String::from_utf8_lossy(line).into_owned()
    }

    /// Status code of an answer.
    pub fn status(&self) -> Result<u16> {
        let start = self.start();
        start.split(' ').nth(1).and_then(|code| code.parse().ok()).with_context(|| format!("no status in {start:?}"))
    }

    /// Value of a header field.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.head);
        text.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    }
}

impl Wire {
    /// Connects; each later [`Wire::send`] is a segment of its own.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("to {address}"))?;
        Self::over(stream)
    }

    /// Takes a connected stream over.
    pub fn over(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Self { stream, ahead: Vec::new() })
    }

    /// The stream below.
    #[must_use]
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Port of this end.
    pub fn port(&self) -> Result<u16> {
        Ok(self.stream.local_addr()?.port())
    }

    /// Sends bytes in one call, which is one segment as long as it fits.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.stream.write_all(bytes.as_ref())?)
    }

    /// Sends pieces of `size` bytes, each in a call of its own.
    pub fn send_by(&mut self, size: usize, bytes: impl AsRef<[u8]>) -> Result<()> {
        bytes.as_ref().chunks(size).try_for_each(|piece| self.send(piece))
    }

    /// Reads until `end` is in what was read; gives everything up to and with it, `None` when the peer closed before.
    pub fn read_until(&mut self, end: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut from = 0;
        loop {
            if let Some(at) = find(&self.ahead, end, from) {
                return Ok(Some(self.ahead.drain(..at + end.len()).collect()));
            }
            from = self.ahead.len().saturating_sub(end.len());
            if self.fill()? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads this many bytes.
    pub fn read_exact(&mut self, count: usize) -> Result<Vec<u8>> {
        while self.ahead.len() < count {
            ensure!(self.fill()? > 0, "closed {} bytes early", count - self.ahead.len());
        }
        Ok(self.ahead.drain(..count).collect())
    }

    /// Reads until the peer closes.
    pub fn read_to_end(&mut self) -> Result<Vec<u8>> {
        while self.fill()? > 0 {}
        Ok(std::mem::take(&mut self.ahead))
    }

    fn fill(&mut self) -> Result<usize> {
        let mut buffer = [0; 1 << 14];
        let count = self.stream.read(&mut buffer)?;
        self.ahead.extend_from_slice(buffer.get(..count).context("more than asked for")?);
        Ok(count)
    }

    /// Reads a request with its body (`Content-Length` or chunked); `None` at the end of the connection.
    pub fn request(&mut self) -> Result<Option<Message>> {
        let Some(head) = self.read_until(b"\r\n\r\n")? else { return Ok(None) };
        let message = Message { head, body: Vec::new() };
        let body = self.body(&message, Some(0))?;
        Ok(Some(Message { body, ..message }))
    }

    /// Reads the final answer to a request with `method`, stepping over 1xx.
    pub fn answer(&mut self, method: &str) -> Result<Message> {
        loop {
            let head = self.read_until(b"\r\n\r\n")?.context("closed before the answer")?;
            let message = Message { head, body: Vec::new() };
            let status = message.status()?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let empty = method == "HEAD" || matches!(status, 101 | 204 | 304);
            let body = if empty { Vec::new() } else { self.body(&message, None)? };
            return Ok(Message { body, ..message });
        }
    }

    fn body(&mut self, message: &Message, without: Option<usize>) -> Result<Vec<u8>> {
        if message.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            let mut body = Vec::new();
            loop {
                let line = self.read_until(b"\r\n")?.context("closed inside a chunk")?;
                let line = String::from_utf8_lossy(&line).into_owned();
                let digits = line.split([';', '\r', ' ']).next().unwrap_or_default();
                let size = usize::from_str_radix(digits, 16).with_context(|| format!("chunk {line:?}"))?;
                if size == 0 {
                    while self.read_until(b"\r\n")?.context("closed inside trailers")? != b"\r\n" {}
                    return Ok(body);
                }
                body.extend(self.read_exact(size)?);
                self.read_exact(2)?;
            }
        }
        match message.header("content-length").map(|length| length.parse()).transpose()?.or(without) {
            Some(length) => self.read_exact(length),
            None => self.read_to_end(),
        }
    }

    /// Says that nothing more will be sent.
    pub fn finish(&self) -> Result<()> {
        Ok(self.stream.shutdown(Shutdown::Write)?)
    }

    /// Closes with a reset.
    pub fn reset(self) -> Result<()> {
        Ok(sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO))?)
    }
}

fn find(bytes: &[u8], what: &[u8], from: usize) -> Option<usize> {
    bytes.get(from..)?.windows(what.len()).position(|window| window == what).map(|at| at + from)
}

/// A server whose answers the test scripts; it runs until dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    listener: TcpListener,
    acceptor: Option<JoinHandle<Vec<String>>>,
}

impl Server {
    /// Listens on a free port of 127.0.0.1; `serve` gets each connection, on a thread of its own.
    pub fn start(serve: impl Fn(Wire) -> Result<()> + Clone + Send + 'static) -> Result<Self> {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, place::free_port()?))?, serve)
    }

    /// The same on a listener of the test's own.
    pub fn on(listener: TcpListener, serve: impl Fn(Wire) -> Result<()> + Clone + Send + 'static) -> Result<Self> {
        let address = listener.local_addr()?;
        let accepts = listener.try_clone()?;
        let acceptor = thread::spawn(move || {
            let mut threads = Vec::new();
            for stream in accepts.incoming() {
                let Ok(stream) = stream else { break };
                let serve = serve.clone();
                threads.push(thread::spawn(move || serve(Wire::over(stream)?)));
            }
            let failed = threads.into_iter().filter_map(|thread| match thread.join() {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(format!("{error:#}")),
                Err(_) => Some("a thread of the server failed".to_owned()),
            });
            failed.collect()
        });
        Ok(Self { address, listener, acceptor: Some(acceptor) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Ends it once all connections that it has accepted have ended; fails with what went wrong in any of them. The
    /// kernel resets those that still wait to be accepted.
    pub fn stop(mut self) -> Result<()> {
        let failed = self.end()?;
        ensure!(failed.is_empty(), "the server's side: {}", failed.join("; "));
        Ok(())
    }

    fn end(&mut self) -> Result<Vec<String>> {
        let Some(acceptor) = self.acceptor.take() else { return Ok(Vec::new()) };
        // Wakes the acceptor with an error.
        rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both)?;
        match acceptor.join() {
            Ok(failed) => Ok(failed),
            Err(_) => bail!("the accepting thread failed"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("the server at {}: {error:#}", self.address);
        }
    }
}
