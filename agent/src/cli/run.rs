//! `weir run`: the agent in the foreground.

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::screen::{Screen, coloured};
use super::{live, notify};
use crate::app::{self, Agent, SetLog, Viewer};
use crate::config::{Loaded, Sources};

/// How long what waits for others may go on when the agent has ended.
const GRACE: Duration = Duration::from_millis(500);

/// Runs the agent in the foreground
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  weir run                          watch the whole node, a line a call on a terminal
  weir run --set otlp.endpoint=http://127.0.0.1:4317
  weir run -c /etc/weir/weir.yaml --output none")]
pub(super) struct Arguments {
    /// The file [default: /etc/weir/weir.yaml if it is there]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets a key, as recent.memory=16MiB
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Least level of messages on stderr: the key log.level
    #[arg(long, value_name = "LEVEL")]
    log: Option<String>,
    /// What is written to stdout [default: live on a terminal, none otherwise]
    #[arg(long, value_enum)]
    output: Option<Output>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// A line a call
    Live,
    /// A JSON document a call
    Json,
    /// Nothing
    None,
}

/// Runs until SIGINT or SIGTERM. SIGHUP reads the configuration again.
pub(super) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let mut sets = arguments.set;
    sets.extend(arguments.log.map(|level| format!("log.level={level}")));
    let sources = Sources::of_process(arguments.config, sets);
    let loaded = sources.load()?;
    let set_log = log(&loaded);
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    let terminal = std::io::stdout().is_terminal();
    let output = arguments.output.unwrap_or(if terminal { Output::Live } else { Output::None });
    app::one_heap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("weir-doors")
        .enable_all()
        .build()
        .context("starting the runtime")?;
    hold_signals();
    let (viewer, writer) = match output {
        Output::None => (None, None),
        Output::Live => live::start(live::Form::Line(Screen::of_stdout()))?,
        Output::Json => live::start(live::Form::Json)?,
    };
    let ended = runtime.block_on(serve(loaded, sources, viewer, set_log));
    // Whoever still waits for a name service that is dead is not waited for.
    runtime.shutdown_timeout(GRACE);
    // The agent is gone and with it who sends lines: what waits is written.
    if let Some(writer) = writer {
        let _ = writer.join();
    }
    ended
}

/// Leaves signals to the runtime's threads. The verifier gives up with EAGAIN when one waits for the thread that loads a
/// program; loading is then tried again with the verifier's log on, which takes minutes: an agent that is told to end while
/// it starts would not.
fn hold_signals() {
    // SAFETY: a set of signals is plain data; it is emptied before it is used.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: `set` is alive, the signals exist, and the former mask is not asked for.
    unsafe {
        libc::sigemptyset(&raw mut set);
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP] {
            libc::sigaddset(&raw mut set, signal);
        }
        libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut());
    }
}

/// What is written. The Kubernetes client calls each try that fails an error; the agent says once what it means.
fn filter(directives: &str) -> EnvFilter {
    EnvFilter::new(format!("kube_client=off,{directives}"))
}

/// Messages go to stderr; gives what changes their level later.
fn log(loaded: &Loaded) -> SetLog {
    let builder = tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(coloured(&std::io::stderr()))
        .with_target(false)
        .with_env_filter(filter(&loaded.settings.log))
        .with_filter_reloading();
    let handle = builder.reload_handle();
    builder.init();
    Box::new(move |directives| {
        if let Err(error) = handle.reload(filter(directives)) {
            tracing::error!(%error, "the log level could not be changed");
        }
    })
}

async fn serve(loaded: Loaded, sources: Sources, viewer: Option<Viewer>, log: SetLog) -> anyhow::Result<()> {
    let begun = std::time::Instant::now();
    let mut interrupt = signal(SignalKind::interrupt()).context("handling SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("handling SIGTERM")?;
    let mut hangup = signal(SignalKind::hangup()).context("handling SIGHUP")?;
    let agent = Agent::start(loaded, sources, viewer, log).await?;
    tracing::info!(ready_ms = begun.elapsed().as_millis() as u64, "watching");
    notify::tell(notify::READY);
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            _ = hangup.recv() => reload(&agent.core()).await,
        }
    }
    notify::tell(notify::STOPPING);
    agent.stop().await;
    Ok(())
}

async fn reload(core: &app::Core) {
    match core.reload("config (SIGHUP)").await {
        Ok(warnings) => {
            for warning in warnings {
                tracing::warn!("{warning}");
            }
            tracing::info!("configuration taken over");
        }
        Err(refused) => tracing::error!("configuration refused, everything stays as it was: {refused}"),
    }
}
