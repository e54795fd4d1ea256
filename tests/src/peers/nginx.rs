//! nginx, with its access log as truth.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cgroup::Cgroup;
use crate::netns::NetNs;
use crate::place::{self, Scratch};
use crate::process::{Process, children};
use crate::wait;

/// Statuses that `/s/STATUS` answers with.
pub const STATUSES: [u16; 12] = [200, 201, 204, 301, 400, 401, 403, 404, 429, 500, 502, 503];

/// A line of the access log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Access {
    /// The client's port.
    pub port: u16,
    /// Serial of the request on its connection, from 1.
    pub nth: u32,
    /// Method.
    pub method: String,
    /// Status sent.
    pub status: u16,
    /// Body bytes sent.
    pub sent: u64,
    /// Target as received.
    pub target: String,
}

/// How to start it.
#[derive(Clone, Debug, Default)]
pub struct Setup<'a> {
    /// Values for `listen`, `PORT` standing for the port; empty: `127.0.0.1:PORT`.
    pub listen: &'a [&'a str],
    /// Further directives of the server block.
    pub server: &'a str,
    /// Further directives of the http block, before the server block; `PORT` stands for the port.
    pub http: &'a str,
    /// Run inside a namespace.
    pub netns: Option<&'a NetNs>,
    /// Run inside a control group.
    pub cgroup: Option<&'a Cgroup>,
    /// Port; 0: a free one.
    pub port: u16,
    /// No access log (for loads where its cost matters).
    pub silent: bool,
    /// Workers; 0: two.
    pub workers: usize,
}

/// A running nginx.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    scratch: Scratch,
    port: u16,
}

impl Setup<'_> {
    fn count(&self) -> usize {
        if self.workers == 0 { 2 } else { self.workers }
    }
}

impl Nginx {
    /// Starts it on a free port of 127.0.0.1.
    pub fn plain() -> Result<Self> {
        Self::start(&Setup::default())
    }

    /// Starts it, waits until its workers accept.
    pub fn start(setup: &Setup<'_>) -> Result<Self> {
        let scratch = Scratch::new("nginx")?;
        let port = if setup.port == 0 { place::free_port()? } else { setup.port };
        fs::create_dir_all(scratch.join("www"))?;
        for size in [0_usize, 1, 100, 4096, 65_536, 1 << 20] {
            scratch.write(&format!("www/{size}"), content(size))?;
        }
        let path = scratch.write("nginx.conf", configuration(setup, port, &scratch))?;
        let mut command = match setup.netns {
            Some(netns) => netns.command("nginx")?,
            None => Command::new(place::program("nginx")?),
        };
        command.arg("-p").arg(scratch.path()).arg("-c").arg(path).args(["-e", "stderr"]);
        if let Some(cgroup) = setup.cgroup {
            command = cgroup.command(&command);
        }
        let process = Process::start(command, "nginx", &scratch)?;
        let nginx = Self { process, scratch, port };
        let workers = setup.count();
        wait::until(Duration::from_secs(5), "nginx's workers", || {
            Ok((nginx.scratch.join("nginx.pid").exists() && nginx.workers()?.len() == workers).then_some(()))
        })
        .with_context(|| nginx.process.output().unwrap_or_default())?;
        Ok(nginx)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its address on loopback.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// URL of a path on loopback.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Folder served under `/f/`.
    #[must_use]
    pub fn files(&self) -> PathBuf {
        self.scratch.join("www")
    }

    /// Makes a file of its folder point to another one.
    pub fn link(&self, name: &str, to: &std::path::Path) -> Result<()> {
        Ok(symlink(to, self.files().join(name))?)
    }

    /// Process ids of its workers: those that serve.
    pub fn workers(&self) -> Result<Vec<u32>> {
        children(self.process.pid())
    }

    /// The access log, in its order.
    pub fn log(&self) -> Result<Vec<Access>> {
        let path = self.scratch.join("access.log");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        text.lines().map(|line| access(line).with_context(|| format!("the access log's line {line:?}"))).collect()
    }

    /// The access log once it has this many lines (a line is written after its answer went out).
    pub fn logged(&self, count: usize) -> Result<Vec<Access>> {
        wait::until(Duration::from_secs(5), &format!("{count} lines in the access log"), || {
            Ok(Some(self.log()?).filter(|log| log.len() >= count))
        })
    }
}

/// Content of a served file: any `size` bytes that are the same every time.
#[must_use]
pub fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| b'a' + (at % 26) as u8).collect()
}

fn access(line: &str) -> Option<Access> {
    let mut words = line.splitn(6, ' ');
    Some(Access {
        port: words.next()?.parse().ok()?,
        nth: words.next()?.parse().ok()?,
        method: words.next()?.to_owned(),
        status: words.next()?.parse().ok()?,
        sent: words.next()?.parse().ok()?,
        target: words.next()?.to_owned(),
    })
}

fn configuration(setup: &Setup<'_>, port: u16, scratch: &Scratch) -> String {
    let listen = if setup.listen.is_empty() { &["127.0.0.1:PORT backlog=4096"] } else { setup.listen };
    let listen = format!("listen {};", listen.join(";\nlisten ")).replace("PORT", &port.to_string());
    let http = setup.http.replace("PORT", &port.to_string());
    let statuses: String = STATUSES
        .iter()
        .map(|status| match status {
            204 => "location = /s/204 { return 204; }\n".to_owned(),
            301 => "location = /s/301 { return 301 /s/200; }\n".to_owned(),
            _ => format!("location = /s/{status} {{ return {status} \"{status}\\n\"; }}\n"),
        })
        .collect();
    let log = if setup.silent { "access_log off;".to_owned() } else { "access_log access.log truth;".to_owned() };
    let (server, workers) = (setup.server, setup.count());
    let folder = scratch.path().display();
    format!(
        "daemon off; worker_processes {workers}; worker_rlimit_nofile 30000; pid nginx.pid; error_log stderr;
events {{ worker_connections 14000; }}
http {{
  log_format truth '$remote_port $connection_requests $request_method $status $body_bytes_sent $request_uri';
  {log}
  default_type text/plain; sendfile on; tcp_nopush on; keepalive_requests 100000000; keepalive_timeout 600s;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {http}
  server {{
    {listen}
    {statuses}
    location /f/ {{ alias {folder}/www/; }}
    {server}
  }}
}}
"
    )
}
