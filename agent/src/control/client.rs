//! How the verbs ask a running agent: a blocking client for the control socket.

use std::{
    io::{self, BufRead as _, BufReader, Read, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

/// An answer that does not come within this time is not waited for, but for that of a change: it is made all the same, and
/// only the answer tells what became of it. On a busy node programs take their time to load.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a line at most.
const LINE: u64 = 1 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody listens.
    #[error("no agent answers at {}: {source}{}", path.display(), hint(source))]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The agent refused; the text is its own.
    #[error("{0}")]
    Refused(String),
    /// The answer broke off or is not one.
    #[error("the agent at {} answered badly: {source}", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What was wrong.
        source: io::Error,
    },
}

impl Error {
    /// There is a socket, which this user may not use.
    #[must_use]
    pub fn is_forbidden(&self) -> bool {
        matches!(self, Self::Unreachable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied)
    }
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => "; start one with: weir run",
        io::ErrorKind::PermissionDenied => "; reading needs root or the group weir",
        _ => "",
    }
}

/// An agent's control socket.
#[derive(Clone, Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// Of a socket; nothing is asked yet.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Asks for a document.
    pub fn document<T: serde::de::DeserializeOwned>(&self, method: &str, target: &str) -> Result<T, Error> {
        let mut text = Vec::new();
        self.send(method, target, "", Wait::Patience)?.read_to_end(&mut text).map_err(|source| self.bad(source))?;
        serde_json::from_slice(&text).map_err(|error| self.bad(error.into()))
    }

    /// Asks for a change. Waits for the answer for as long as the agent lives; `waits` is called once, after 10 s.
    pub fn change(
        &self,
        method: &str,
        target: &str,
        sent: Option<&serde_json::Value>,
        waits: fn(),
    ) -> Result<serde_json::Value, Error> {
        let mut text = Vec::new();
        let sent = sent.map_or(String::new(), ToString::to_string);
        let mut body = self.send(method, target, &sent, Wait::Change(waits))?;
        body.read_to_end(&mut text).map_err(|source| self.bad(source))?;
        serde_json::from_slice(&text).map_err(|error| self.bad(error.into()))
    }

    /// Asks for a text.
    pub fn text(&self, target: &str) -> Result<String, Error> {
        let mut text = String::new();
        self.send("GET", target, "", Wait::Patience)?.read_to_string(&mut text).map_err(|source| self.bad(source))?;
        Ok(text)
    }

    /// Asks for lines; the iterator ends when the agent has told all, for a follower when the agent stops.
    pub fn lines(&self, target: &str) -> Result<impl Iterator<Item = Result<String, Error>> + use<>, Error> {
        let mut body = self.send("GET", target, "", Wait::Follower)?;
        let client = self.clone();
        Ok(std::iter::from_fn(move || {
            let mut line = Vec::new();
            match body.by_ref().take(LINE).read_until(b'\n', &mut line) {
                Ok(0) => None,
                Ok(_) if line.pop() == Some(b'\n') => {
                    Some(String::from_utf8(line).map_err(|error| client.bad(io::Error::other(error))))
                }
                Ok(_) => Some(Err(client.bad(io::ErrorKind::UnexpectedEof.into()))),
                Err(source) => Some(Err(client.bad(source))),
            }
        }))
    }

    fn bad(&self, source: io::Error) -> Error {
        // What the kernel calls "try again" is that nothing came in time.
        let source = match source.kind() {
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, format!("nothing came within {} s", PATIENCE.as_secs()))
            }
            _ => source,
        };
        Error::Answer { path: self.path.clone(), source }
    }

    /// Sends a request and reads the head of its answer.
    fn send(&self, method: &str, target: &str, sent: &str, wait: Wait) -> Result<BufReader<Body>, Error> {
        let unreachable = |source| Error::Unreachable { path: self.path.clone(), source };
        let mut stream = UnixStream::connect(&self.path).map_err(unreachable)?;
        stream.set_read_timeout(Some(PATIENCE)).map_err(unreachable)?;
        let request = format!(
            "{method} {target} HTTP/1.1\r\nHost: weir\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{sent}",
            sent.len()
        );
        // Who is refused before he asked may find his answer all the same.
        let written = stream.write_all(request.as_bytes());
        let stream =
            Patient { stream, waits: if let Wait::Change(waits) = wait { Some((waits, false)) } else { None } };
        let mut reader = BufReader::new(stream);
        let head = match (head(&mut reader), written) {
            (Ok(head), _) => head,
            (Err(_), Err(source)) => return Err(unreachable(source)),
            (Err(source), Ok(())) => return Err(self.bad(source)),
        };
        if matches!(wait, Wait::Follower) {
            // It waits as long as nothing happens.
            reader.get_ref().stream.set_read_timeout(None).map_err(|source| self.bad(source))?;
        }
        let mut body = BufReader::new(Body { reader, chunked: head.chunked, left: head.length, ended: false });
        if head.status == 200 {
            return Ok(body);
        }
        let mut text = String::new();
        body.by_ref().take(LINE).read_to_string(&mut text).map_err(|source| self.bad(source))?;
        let error = serde_json::from_str::<serde_json::Value>(&text).ok();
        let error = error.and_then(|document| document.get("error")?.as_str().map(str::to_owned));
        Err(Error::Refused(error.unwrap_or_else(|| format!("the agent answered {}", head.status))))
    }
}

/// How long an answer is waited for.
#[derive(Clone, Copy)]
enum Wait {
    /// [`PATIENCE`].
    Patience,
    /// The same for its head, and without an end for what follows.
    Follower,
    /// As long as the agent lives; what is called after [`PATIENCE`].
    Change(fn()),
}

/// A connection, and whom to tell that it is waited for: what to call, and whether that was done.
struct Patient {
    stream: UnixStream,
    waits: Option<(fn(), bool)>,
}

impl Read for Patient {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.stream.read(into);
            let Some((tell, told)) = &mut self.waits else { return read };
            // The kernel says it in one of two ways. An agent that dies ends the connection.
            match &read {
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if !std::mem::replace(told, true) {
                        tell();
                    }
                }
                _ => return read,
            }
        }
    }
}

struct Head {
    status: u16,
    chunked: bool,
    length: u64,
}

fn head(reader: &mut impl io::BufRead) -> io::Result<Head> {
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"\r\n\r\n") {
        if reader.by_ref().take(LINE).read_until(b'\n', &mut bytes)? == 0 || bytes.len() as u64 > LINE {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; 32];
    let mut response = httparse::Response::new(&mut fields);
    response.parse(&bytes).map_err(io::Error::other)?;
    let field = |name: &str| {
        let field = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case(name));
        field.and_then(|field| std::str::from_utf8(field.value).ok())
    };
    Ok(Head {
        status: response.code.unwrap_or(0),
        chunked: field("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")),
        length: field("content-length").and_then(|length| length.parse().ok()).unwrap_or(0),
    })
}

/// A body without its framing (RFC 9112 §6 and §7.1).
struct Body {
    reader: BufReader<Patient>,
    chunked: bool,
    /// Bytes left of the body or of the chunk.
    left: u64,
    ended: bool,
}

impl Read for Body {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 && self.chunked && !self.ended {
            self.next_chunk()?;
        }
        if self.left == 0 || into.is_empty() {
            return Ok(0);
        }
        let read = self.reader.by_ref().take(self.left).read(into)?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= read as u64;
        if self.left == 0 && self.chunked {
            self.line()?;
        }
        Ok(read)
    }
}

impl Body {
    fn next_chunk(&mut self) -> io::Result<()> {
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        self.left = u64::from_str_radix(size, 16).map_err(io::Error::other)?;
        self.ended = self.left == 0;
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.reader.by_ref().take(1024).read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    static TOLD: AtomicU32 = AtomicU32::new(0);

    #[test]
    fn who_asked_for_a_change_waits_and_is_told_once() {
        let (stream, mut agent) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let waits = || {
            TOLD.fetch_add(1, Ordering::Relaxed);
        };
        let mut patient = Patient { stream, waits: Some((waits, false)) };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while TOLD.load(Ordering::Relaxed) == 0 {
                    std::thread::yield_now();
                }
                std::thread::sleep(Duration::from_millis(20));
                agent.write_all(b"a").unwrap();
                drop(agent);
            });
            let mut text = String::new();
            patient.read_to_string(&mut text).unwrap();
            assert_eq!((text.as_str(), TOLD.load(Ordering::Relaxed)), ("a", 1));
        });
        patient.waits = None;
        let (stream, _agent) = UnixStream::pair().unwrap();
        stream.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        patient.stream = stream;
        assert!(patient.read(&mut [0]).is_err(), "a question is not waited for without an end");
    }
}
