//! `cargo xtask run`: from a checkout to live lines of real calls.

use std::{
    env, fs,
    io::IsTerminal as _,
    os::unix::process::{CommandExt as _, parent_id},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};

use crate::{
    repo,
    setup::{self, Stage, toolchain::search},
    shell, traffic,
};

/// How long to wait for a first call before saying how to make one.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the agent may take to answer before the watcher gives up; the agent has said why by then.
const START_LIMIT: Duration = Duration::from_secs(20);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Also make a little traffic: a server and a client on loopback, two requests a second
    #[arg(long)]
    demo_traffic: bool,
    /// Handed to `weir run`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    weir: Vec<String>,
}

#[derive(clap::Args)]
pub(crate) struct WatchArguments {
    /// Milliseconds that the start took so far
    #[arg(long)]
    spent: u64,
    /// Milliseconds since the checkout was made, on its first run
    #[arg(long)]
    clone_age: Option<u64>,
    #[arg(long)]
    demo_traffic: bool,
}

/// Builds, then becomes the agent, so that its signals and its exit code are its own.
pub(crate) fn main(arguments: &Arguments) -> Result<()> {
    let begin = Instant::now();
    let clone_age = if repo::weir().exists() { None } else { clone_age() };
    setup::prepare(Stage::Run)?;
    build()?;
    let weir = repo::weir();
    let mut watcher = Command::new(env::current_exe().context("finding this program")?);
    watcher.arg("watch").arg("--spent").arg(begin.elapsed().as_millis().to_string());
    if let Some(age) = clone_age {
        watcher.arg("--clone-age").arg((age + begin.elapsed()).as_millis().to_string());
    }
    if arguments.demo_traffic {
        watcher.arg("--demo-traffic");
    }
    let mut agent = if shell::is_root() {
        Command::new(&weir)
    } else {
        if !std::io::stdin().is_terminal() {
            bail!("watching a node needs root. Type as root: {} run --output live", weir.display());
        }
        eprintln!("run: watching a node needs root: sudo {} run --output live", weir.display());
        let mut agent = Command::new("sudo");
        agent.arg(&weir);
        agent
    };
    agent.args(["run", "--output", "live"]).args(&arguments.weir);
    watcher.stdin(Stdio::null()).spawn().context("starting the watcher")?;
    Err(agent.exec()).with_context(|| format!("starting {}", weir.display()))
}

/// Builds the binary that is run and tested here.
pub(crate) fn build() -> Result<()> {
    built("release", &repo::weir())
}

/// Builds the binary to install, and to measure.
pub(crate) fn build_dist() -> Result<()> {
    built("dist", &repo::dist())
}

fn built(profile: &str, binary: &Path) -> Result<()> {
    let begin = Instant::now();
    let mut command = Command::new("cargo");
    command.args(["build", "--profile", profile, "--package", "weir"]).current_dir(repo::root());
    shell::compiled(&mut command);
    // The first time takes minutes: whoever looks on sees how far it is.
    if !std::io::stderr().is_terminal() || binary.exists() {
        command.arg("--quiet");
    }
    let kernel_half = kernel_half(binary);
    let built = shell::run(&mut command);
    if let Some(mut kernel_half) = kernel_half {
        // The build script has waited for it. What it could not build, that has said.
        let _ = kernel_half.wait();
    }
    built?;
    eprintln!("build: {} ({:.1} s)", binary.display(), begin.elapsed().as_secs_f32());
    Ok(())
}

/// Begins to build the kernel half where nothing is built yet. Cargo starts build scripts of what nothing depends on last:
/// one processor would be left with it while the others wait. The build script finds it done, or waits for it.
fn kernel_half(binary: &Path) -> Option<Child> {
    let target = repo::target();
    // An object that was built before is taken instead (`agent/build.rs`).
    let given = env::var_os("WEIR_EBPF_OBJECT_FILE").is_some_and(|file| !file.is_empty());
    if given || binary.exists() || target.join("ebpf").exists() {
        return None;
    }
    search::find().ok()?.build(repo::root(), &target).stdin(Stdio::null()).stderr(Stdio::null()).spawn().ok()
}

/// How old the checkout is, where the file system tells.
fn clone_age() -> Option<Duration> {
    let created = fs::metadata(repo::root().join(".git")).ok()?.created().ok()?;
    SystemTime::now().duration_since(created).ok()
}

/// Runs beside the agent: says when it answers, and how to make a call when there is none.
pub(crate) fn watch(arguments: &WatchArguments) -> Result<()> {
    let begin = Instant::now();
    let agent = parent_id();
    while !answers(&["stats", "--json"]) {
        if begin.elapsed() > START_LIMIT || parent_id() != agent {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let passed = |before: u64| (Duration::from_millis(before) + begin.elapsed()).as_secs_f32();
    eprintln!("run: ready {:.1} s after the start", passed(arguments.spent));
    if let Some(age) = arguments.clone_age {
        eprintln!("run: ready {:.1} s after the clone", passed(age));
    }
    if arguments.demo_traffic {
        return traffic::run(|| parent_id() == agent);
    }
    let ready = Instant::now();
    while ready.elapsed() < PATIENCE && parent_id() == agent {
        if has_call() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(200));
    }
    if parent_id() == agent {
        eprintln!(
            "run: no HTTP call on this machine yet. Make one, in another terminal:\n  \
             python3 -m http.server 8000 & sleep 1; curl http://127.0.0.1:8000/\n\
             run: or start again with: cargo xtask run --demo-traffic"
        );
    }
    Ok(())
}

fn answers(arguments: &[&str]) -> bool {
    shell::output(Command::new(repo::weir()).args(arguments)).is_ok()
}

fn has_call() -> bool {
    shell::output(Command::new(repo::weir()).args(["calls", "--last", "1", "--json"]))
        .is_ok_and(|text| !text.trim().is_empty())
}
