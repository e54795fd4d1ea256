//! Apache httpd, with its access log as truth.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::nginx::{Access, content};
use crate::place::{self, Scratch};
use crate::process::Process;
use crate::wait;

/// Multi-processing module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mpm {
    /// A process a connection.
    Prefork,
    /// Threads and an event loop in a few processes.
    Event,
}

/// A running httpd that serves files under `/f/`.
#[derive(Debug)]
pub struct Apache {
    process: Process,
    scratch: Scratch,
    port: u16,
}

impl Apache {
    /// Starts it on a free port of 127.0.0.1, waits until it listens.
    pub fn start(mpm: Mpm) -> Result<Self> {
        let scratch = Scratch::new("apache")?;
        let port = place::free_port()?;
        fs::create_dir_all(scratch.join("www/f"))?;
        for size in [0_usize, 1, 100, 4096, 65_536, 1 << 20] {
            scratch.write(&format!("www/f/{size}"), content(size))?;
        }
        let folder = scratch.path().display().to_string();
        let modules = Path::new("/usr/lib/apache2/modules");
        let mpm = match mpm {
            Mpm::Prefork => "prefork",
            Mpm::Event => "event",
        };
        let load = [format!("mpm_{mpm}"), "authz_core".to_owned()]
            .map(|module| format!("LoadModule {module}_module {}/mod_{module}.so\n", modules.display()))
            .concat();
        let configuration = format!(
            "ServerRoot {folder}\nServerName localhost\nListen 127.0.0.1:{port}\nPidFile {folder}/pid\nErrorLog /dev/stderr\n{load}
DocumentRoot {folder}/www\nUser www-data\nGroup www-data\nMutex pthread\nKeepAlive On\nMaxKeepAliveRequests 0\nKeepAliveTimeout 60
LogFormat \"%{{remote}}p %k %m %>s %B %U\" truth\nCustomLog {folder}/access.log truth\n<Directory {folder}/www>\nRequire all granted\n</Directory>\n"
        );
        let path = scratch.write("httpd.conf", configuration)?;
        let mut command = Command::new(place::program("apache2")?);
        command.arg("-f").arg(path).args(["-D", "FOREGROUND"]);
        let process = Process::start(command, "apache", &scratch)?;
        let apache = Self { process, scratch, port };
        wait::listening(([127, 0, 0, 1], port).into(), Duration::from_secs(5))
            .with_context(|| apache.process.output().unwrap_or_default())?;
        Ok(apache)
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Process id of its first process, the parent of those that serve.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The access log once it has this many lines; `nth` counts from 0 here.
    pub fn logged(&self, count: usize) -> Result<Vec<Access>> {
        wait::until(Duration::from_secs(5), &format!("{count} lines in httpd's log"), || {
            let text = fs::read_to_string(self.scratch.join("access.log")).unwrap_or_default();
            if text.lines().count() < count {
                return Ok(None);
            }
            text.lines().map(access).collect::<Result<Vec<_>>>().map(Some)
        })
    }
}

fn access(line: &str) -> Result<Access> {
    let words: Vec<&str> = line.split(' ').collect();
    let [port, nth, method, status, sent, target] = words.as_slice() else { bail!("httpd's log says {line:?}") };
    Ok(Access {
        port: port.parse()?,
        nth: nth.parse()?,
        method: (*method).to_owned(),
        status: status.parse()?,
        sent: sent.parse()?,
        target: (*target).to_owned(),
    })
}
