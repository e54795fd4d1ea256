//! Ssh clients that are logged in: whoever asks for a rule must not lock himself out.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// Processes above the one that asked that are looked at.
const ABOVE: usize = 64;
/// Bytes of an environment that are looked at.
const ENVIRONMENT: u64 = 1 << 20;
/// `TCP_ESTABLISHED`, as `/proc/net/tcp` writes it.
const ESTABLISHED: &str = "01";
/// Servers of ssh, by executable: OpenSSH, its sessions since 9.8, Dropbear.
const DAEMONS: [&str; 3] = ["sshd", "sshd-session", "dropbear"];

/// A connection of an ssh client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Session {
    client: SocketAddr,
    server: SocketAddr,
    /// A process in the connection's network namespace.
    net: PathBuf,
}

/// A row of `/proc/net/tcp` and `tcp6`.
struct Row {
    local: SocketAddr,
    remote: SocketAddr,
    uid: u32,
    inode: u64,
}

/// How long it is believed that a process works for no ssh client, nanoseconds: to look means to read files of it and of
/// everybody above it, and who changes much asks often.
const BELIEVED_NS: u64 = 1_000_000_000;

/// Who asked last and works for no ssh client.
#[derive(Debug, Default)]
pub(super) struct Asker(Option<(u32, u64, u64)>);

impl Asker {
    /// The session that a process runs in, as [`Session::of`] tells it.
    pub(super) fn session(&mut self, pid: u32, now: u64) -> Option<Session> {
        let started = started(&PathBuf::from(format!("/proc/{pid}")))?;
        if self.0.is_some_and(|(of, at, seen)| (of, at) == (pid, started) && now.saturating_sub(seen) < BELIEVED_NS) {
            return None;
        }
        let session = Session::of(pid);
        self.0 = session.is_none().then_some((pid, started, now));
        session
    }
}

impl Session {
    /// The session that a process runs in: the connection that the ssh server above it holds. Of several (forwarded
    /// ports) the one that `SSH_CONNECTION` names; without a server above it (tmux, screen) that one too, where root
    /// holds it. `None`: there is none, or it can't be told which one it is.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let (mut named, mut at) = (None, pid);
        for _ in 0..ABOVE {
            let process = PathBuf::from(format!("/proc/{at}"));
            let exe = fs::read_link(process.join("exe")).unwrap_or_default();
            let net = process.join("net");
            if DAEMONS.iter().any(|name| exe.file_name() == Some(OsStr::new(name)) || is_replaced(&exe, name)) {
                let held = held(&process);
                let mut rows: Vec<_> = rows(&net).into_iter().filter(|row| held.contains(&row.inode)).collect();
                if rows.len() > 1 {
                    rows.retain(|row| named == Some((row.remote, row.local)));
                }
                if let [row] = rows.as_slice() {
                    return Some(Self { client: row.remote, server: row.local, net });
                }
            }
            named = named.or_else(|| connection(&environment(&process)));
            match parent(&process) {
                Some(above) if above > 1 => at = above,
                _ => break,
            }
        }
        let (client, server) = named?;
        let session = Self { client, server, net: format!("/proc/{pid}/net").into() };
        // The process that asks ends soon; its ancestor in the same namespace stays.
        let stays = Self { net: format!("/proc/{at}/net").into(), ..session.clone() };
        session.lives().then(|| if stays.lives() { stays } else { session })
    }

    /// The client's address.
    pub(super) fn client(&self) -> IpAddr {
        self.client.ip()
    }

    /// The connection is still there, held by root.
    pub(super) fn lives(&self) -> bool {
        let mine = |row: &Row| row.remote == self.client && row.local == self.server && row.uid == 0 && row.inode != 0;
        rows(&self.net).iter().any(mine)
    }
}

/// A daemon that was replaced while it runs.
fn is_replaced(exe: &Path, name: &str) -> bool {
    exe.file_name().and_then(OsStr::to_str).and_then(|file| file.strip_suffix(" (deleted)")) == Some(name)
}

fn parent(process: &Path) -> Option<u32> {
    field(process, 4)?.parse().ok()
}

/// When a process started, in clock ticks: with its id that is who it is.
fn started(process: &Path) -> Option<u64> {
    field(process, 22)?.parse().ok()
}

/// A field of `/proc/PID/stat` behind the second, by its number in proc(5).
fn field(process: &Path, number: usize) -> Option<String> {
    let text = fs::read_to_string(process.join("stat")).ok()?;
    // The second field is a name in parentheses, which may hold anything.
    text.rsplit_once(')')?.1.split_whitespace().nth(number - 3).map(str::to_owned)
}

fn environment(process: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Ok(file) = File::open(process.join("environ")) {
        // What can't be read says nothing.
        let _ = file.take(ENVIRONMENT).read_to_end(&mut bytes);
    }
    bytes
}

/// `SSH_CONNECTION` (ssh(1)): the client's address and port, the server's address and port.
fn connection(environment: &[u8]) -> Option<(SocketAddr, SocketAddr)> {
    let mut variables = environment.split(|byte| *byte == 0);
    let value = variables.find_map(|variable| variable.strip_prefix(b"SSH_CONNECTION="))?;
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    let mut end = || {
        let address: IpAddr = words.next()?.split('%').next()?.parse().ok()?;
        Some(SocketAddr::new(address.to_canonical(), words.next()?.parse().ok()?))
    };
    Some((end()?, end()?))
}

/// Inodes of the sockets that a process holds.
fn held(process: &Path) -> Vec<u64> {
    let files = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
    let inode = |path: PathBuf| path.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok();
    files.filter_map(|file| inode(fs::read_link(file.path()).ok()?)).collect()
}

/// Established connections of a network namespace.
fn rows(net: &Path) -> Vec<Row> {
    let text = |name| fs::read_to_string(net.join(name)).unwrap_or_default();
    let both = [text("tcp"), text("tcp6")];
    both.iter().flat_map(|text| text.lines().skip(1).filter_map(row)).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut fields = line.split_whitespace().skip(1);
    let (local, remote) = (end(fields.next()?)?, end(fields.next()?)?);
    if fields.next()? != ESTABLISHED {
        return None;
    }
    let mut fields = fields.skip(3);
    let uid = fields.next()?.parse().ok()?;
    Some(Row { local, remote, uid, inode: fields.nth(1)?.parse().ok()? })
}

/// An address in words of 32 bits as the machine keeps them, and a port.
fn end(text: &str) -> Option<SocketAddr> {
    let (address, port) = text.split_once(':')?;
    let words = |n: usize| address.get(8 * n..8 * n + 8).and_then(|word| u32::from_str_radix(word, 16).ok());
    let address: IpAddr = match address.len() {
        8 => Ipv4Addr::from(words(0)?.to_ne_bytes()).into(),
        32 => {
            let mut bytes = [0; 16];
            for (n, to) in bytes.chunks_exact_mut(4).enumerate() {
                to.copy_from_slice(&words(n)?.to_ne_bytes());
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some(SocketAddr::new(address.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_variable_is_read() {
        let of = |text: &str| connection(text.as_bytes());
        let wanted = Some(("203.0.113.9:50000".parse().unwrap(), "192.0.2.1:22".parse().unwrap()));
        assert_eq!(of("A=b\0SSH_CONNECTION=203.0.113.9 50000 192.0.2.1 22\0C=d"), wanted);
        assert_eq!(of("SSH_CONNECTION=::ffff:203.0.113.9 50000 ::ffff:192.0.2.1 22"), wanted);
        assert_eq!(of("SSH_CONNECTION=fe80::2%eth0 1 fe80::1%eth0 22").map(|ends| ends.0.port()), Some(1));
        for bad in ["", "SSH_CONNECTION=", "SSH_CONNECTION=a 1 b 2", "XSSH_CONNECTION=203.0.113.9 5 192.0.2.1 22"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_session_lives_as_long_as_its_connection() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).unwrap();
            let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (server, _) = listener.accept().unwrap();
            let session = Session {
                client: client.local_addr().unwrap(),
                server: server.local_addr().unwrap(),
                net: "/proc/self/net".into(),
            };
            // SAFETY: no arguments, always succeeds.
            assert_eq!(session.lives(), unsafe { libc::geteuid() } == 0);
            let held = held(Path::new("/proc/self"));
            let row =
                rows(&session.net).into_iter().find(|row| row.local == session.server && row.remote == session.client);
            assert!(held.contains(&row.unwrap().inode));
            drop((client, server));
            assert!(!session.lives());
        }
    }

    #[test]
    fn nobody_is_logged_in_here() {
        assert_eq!(parent(Path::new("/proc/self")), Some(std::os::unix::process::parent_id()));
        assert_eq!(Session::of(1), None);
        let mut asker = Asker::default();
        assert_eq!([asker.session(1, 5), asker.session(u32::MAX, 5)], [None, None]);
        assert!(asker.0.is_none_or(|(pid, _, seen)| (pid, seen) == (1, 5)));
    }
}
