//! Loads and attaches what the plan says, keeps the links, and knows each program's verdict.

use std::fs::File;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use aya::maps::{MapData, RingBuf};
use aya::programs::links::CgroupAttachMode;
use aya::programs::{CgroupSkbAttachType, Program as Loaded, ProgramError};
use aya::{Btf, Ebpf, EbpfLoader};
use serde::Serialize;

use super::cgroup;
use super::facts::{Facts, chain};
use super::gate::{Gate, GateError};
use super::goroutines::Rows;
use super::link::{self, Place};
use super::plan::{Intent, Plan, Program};
use super::tables::{Counts, Errands, Foreign};

/// The kernel half.
static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("WEIR_EBPF_OBJECT"));

/// What the loader may be told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Bytes of the ring, a power of two of at least a page.
    pub ring: u32,
    /// Bytes of an answer's start that are kept whole, 0 to 64 KiB; 0: what is due in any case.
    pub window: u32,
    /// Where to attach; `None`: the root of cgroup v2.
    pub cgroup: Option<PathBuf>,
    /// Process whose sockets are not observed: this one.
    pub own: u32,
    /// What processes read is told.
    pub chains: bool,
    /// And which goroutine of them calls.
    pub go: bool,
}

/// Why the kernel half could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The object as such was refused.
    #[error("loading the kernel half")]
    Object(#[source] Box<aya::EbpfError>),
    /// A map is missing or has another kind.
    #[error("opening map {name}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Cause; absent when it is missing.
        source: Option<aya::maps::MapError>,
    },
    /// The cgroup can't be opened.
    #[error("opening cgroup {}", path.display())]
    Cgroup {
        /// Its folder.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// Another agent watches there.
    #[error(
        "another agent{} already watches {}; stop it first, or give this one a cgroup of its own with kernel.cgroup",
        pid.map(|pid| format!(" (process {pid})")).unwrap_or_default(), path.display()
    )]
    InUse {
        /// The cgroup's folder.
        path: PathBuf,
        /// The other agent, where it is known.
        pid: Option<u32>,
    },
    /// A table of the gate can't be had.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// A program without which nothing is seen was refused.
    #[error("{program}: {why}")]
    Essential {
        /// Its name.
        program: &'static str,
        /// What the kernel said.
        why: String,
    },
}

/// What became of a program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", content = "why", rename_all = "snake_case")]
pub enum Verdict {
    /// It runs.
    Attached,
    /// The plan left it out.
    LeftOut(String),
    /// The kernel refused it.
    Refused(String),
    /// The configuration turned it off, with this key.
    Off(&'static str),
}

/// The key that turns `weir_rcv_space` off.
const CHAINS: &str = "traces.chains";
/// The key that turns `weir_go_call` off.
const GO: &str = "traces.go";

/// The kernel half at work. Dropping it detaches everything.
pub struct Half {
    /// Counters.
    pub counts: Counts,
    /// What became of each program.
    pub verdicts: Vec<(Program, Verdict)>,
    /// The gate.
    pub gate: Gate,
    maps: Vec<OwnedFd>,
    errands: Errands,
    pub(super) go: Rows,
    ebpf: Ebpf,
    /// Locked: see `cgroup::hold`.
    cgroup: File,
}

impl std::fmt::Debug for Half {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Half").field("verdicts", &self.verdicts).finish_non_exhaustive()
    }
}

/// Run-time statistics of a program (`bpf_prog_info`); zeros while `kernel.bpf_stats_enabled` is off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Runs {
    /// How often it ran.
    pub count: u64,
    /// Nanoseconds spent in it.
    pub ns: u64,
}

/// What the capturing thread has of the kernel half.
pub struct Line {
    /// Records come.
    pub ring: RingBuf<MapData>,
    /// Connections go that need not be watched.
    pub foreign: Foreign,
}

impl std::fmt::Debug for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Line").field("foreign", &self.foreign).finish_non_exhaustive()
    }
}

/// Loads the object and attaches the plan's programs; gives the kernel half and the line to it.
pub fn load(facts: &Facts, plan: &Plan, settings: &Settings) -> Result<(Half, Line), Error> {
    let path = settings.cgroup.as_deref().or(facts.cgroup2_path.as_deref()).unwrap_or(Path::new("/sys/fs/cgroup"));
    let cgroup = File::open(path).map_err(|source| Error::Cgroup { path: path.to_owned(), source })?;
    cgroup::hold(&cgroup).map_err(|taken| Error::InUse { path: path.to_owned(), pid: taken.pid })?;
    let btf = Btf::from_sys_fs().ok();
    let goroutines = u32::from(plan.goroutines);
    let mut loader = EbpfLoader::new();
    loader
        .btf(btf.as_ref())
        .override_global("OFFSETS", &facts.offsets, true)
        .override_global("WINDOW", &settings.window, true)
        .override_global("SELF_TGID", &settings.own, true)
        .override_global("CURRENT", &plan.current, true)
        .override_global("GO_OFFSETS", &facts.go_offsets, true)
        .override_global("GOROUTINES", &goroutines, true)
        .map_max_entries("RING", settings.ring);
    let mut ebpf = loader.load(OBJECT).map_err(|error| Error::Object(Box::new(error)))?;
    let maps = ebpf.maps().filter_map(|(_, map)| fd(map)).collect();
    let mut take = |name: &'static str| ebpf.take_map(name).ok_or(Error::Map { name, source: None });
    let ring = take("RING")?;
    let ring = RingBuf::try_from(ring).map_err(|source| Error::Map { name: "RING", source: Some(source) })?;
    let counts =
        Counts::new(take(Counts::MAP)?).map_err(|source| Error::Map { name: Counts::MAP, source: Some(source) })?;
    let foreign =
        Foreign::new(take(Foreign::MAP)?).map_err(|source| Error::Map { name: Foreign::MAP, source: Some(source) })?;

    let errands =
        Errands::take(&mut ebpf).map_err(|source| Error::Map { name: Errands::MAPS[0], source: Some(source) })?;
    let go = Rows::take(&mut ebpf).map_err(|source| Error::Map { name: Rows::MAP, source: Some(source) })?;
    let mut gate = Gate::take(&mut ebpf, &cgroup)?;
    let mut verdicts = Vec::new();
    for (program, intent) in &plan.rows {
        let verdict = match intent {
            Intent::LeaveOut(why) => Verdict::LeftOut(why.clone()),
            Intent::Attach if *program == Program::RcvSpace && !settings.chains => Verdict::Off(CHAINS),
            Intent::Attach if *program == Program::GoCall && !settings.go => Verdict::Off(GO),
            Intent::Attach => match attach(&mut ebpf, *program, &cgroup) {
                Ok(link) => {
                    gate.supports(link);
                    Verdict::Attached
                }
                Err(why) if matches!(program, Program::Ingress | Program::Egress) => {
                    return Err(Error::Essential { program: program.name(), why });
                }
                Err(why) => Verdict::Refused(why),
            },
        };
        verdicts.push((*program, verdict));
    }
    Ok((Half { counts, verdicts, gate, maps, errands, go, ebpf, cgroup }, Line { ring, foreign }))
}

/// A file descriptor of its own for a map.
pub(super) fn fd(map: &aya::maps::Map) -> Option<OwnedFd> {
    use aya::maps::Map;
    let (Map::RingBuf(data)
    | Map::PerCpuArray(data)
    | Map::Array(data)
    | Map::SkStorage(data)
    | Map::LpmTrie(data)
    | Map::HashMap(data)
    | Map::LruHashMap(data)
    | Map::ProgramArray(data)
    | Map::Unsupported(data)) = map
    else {
        return None;
    };
    data.fd().as_fd().try_clone_to_owned().ok()
}

fn attach(ebpf: &mut Ebpf, program: Program, cgroup: &File) -> Result<Option<OwnedFd>, String> {
    let loaded = ebpf.program_mut(program.name()).ok_or("the object has no such program")?;
    load_and_attach(loaded, program, cgroup).map_err(|error| told(&error))
}

/// What the kernel said to a program.
pub(super) fn told(error: &ProgramError) -> String {
    match error {
        // The verifier's last lines say what it refused.
        ProgramError::LoadError { io_error, verifier_log } => {
            let log = verifier_log.to_string();
            let is_figure =
                |line: &&str| ["verification time", "stack depth", "processed "].iter().any(|it| line.starts_with(it));
            let tail: Vec<_> = log.lines().filter(|line| !is_figure(line)).rev().take(3).collect();
            format!("{io_error}; verifier: {}", tail.into_iter().rev().collect::<Vec<_>>().join(" | "))
        }
        _ => chain(error),
    }
}

/// Gives the links of those programs that the gate needs to go on without an agent: roles and owners of connections.
fn load_and_attach(loaded: &mut Loaded, program: Program, cgroup: &File) -> Result<Option<OwnedFd>, ProgramError> {
    // A cgroup link is multi anyway; `AllowMultiple` gets EINVAL from link_create.
    let mode = CgroupAttachMode::Single;
    match loaded {
        Loaded::CgroupSkb(skb) => {
            skb.load()?;
            let way =
                if program == Program::Ingress { CgroupSkbAttachType::Ingress } else { CgroupSkbAttachType::Egress };
            skb.attach(cgroup, way, mode)?;
        }
        Loaded::CgroupSock(sock) => {
            sock.load()?;
            let link = link::create(sock.fd()?.as_fd(), cgroup, Place::SockCreate);
            return link.map(Some).map_err(ProgramError::IOError);
        }
        Loaded::SockOps(ops) => {
            ops.load()?;
            let link = link::create(ops.fd()?.as_fd(), cgroup, Place::SockOps);
            return link.map(Some).map_err(ProgramError::IOError);
        }
        Loaded::TracePoint(point) => {
            let name = if program == Program::SchedExec { "sched_process_exec" } else { "sched_process_exit" };
            point.load()?;
            point.attach("sched", name)?;
        }
        // Attached to each executable that there is: `kernel::goroutines`.
        Loaded::UProbe(probe) => probe.load()?,
        Loaded::BtfTracePoint(point) => {
            point.load("tcp_rcv_space_adjust", &Btf::from_sys_fs()?)?;
            point.attach()?;
        }
        _ => return Err(ProgramError::UnexpectedProgramType),
    }
    Ok(None)
}

impl Half {
    /// Loads the gate's programs, where that was not done yet.
    pub fn load_gate(&mut self) -> Result<(), GateError> {
        self.gate.load(&mut self.ebpf)
    }

    /// Attaches the gate, or detaches it.
    pub fn enforce(&mut self, on: bool) -> Result<(), GateError> {
        if on { self.gate.attach(&mut self.ebpf, &self.cgroup) } else { self.gate.detach() }
    }

    /// What processes read is told.
    #[must_use]
    pub fn tells_reads(&self) -> bool {
        self.verdicts.contains(&(Program::RcvSpace, Verdict::Attached))
    }

    /// Attaches what tells of processes' reads, or detaches it and forgets what it has told. Gives whether it runs.
    pub fn chains(&mut self, on: bool) -> bool {
        let Some(at) = self.verdicts.iter().position(|(program, _)| *program == Program::RcvSpace) else {
            return false;
        };
        let Some((program, verdict)) = self.verdicts.get_mut(at) else { return false };
        match (&*verdict, on) {
            (Verdict::Off(_), true) => {
                *verdict = match attach(&mut self.ebpf, *program, &self.cgroup) {
                    Ok(_) => Verdict::Attached,
                    Err(why) => Verdict::Refused(why),
                };
            }
            (Verdict::Attached, false) => {
                if let Some(Loaded::BtfTracePoint(point)) = self.ebpf.program_mut(program.name())
                    && let Err(error) = point.unload()
                {
                    tracing::warn!(error = chain(&error), "detaching weir_rcv_space");
                }
                self.errands.clear();
                *verdict = Verdict::Off(CHAINS);
            }
            _ => {}
        }
        *verdict == Verdict::Attached
    }

    /// Makes ready what tells which goroutine calls, or says that it is not to be. Gives whether it is.
    pub fn goroutines(&mut self, on: bool) -> bool {
        let Some(at) = self.verdicts.iter().position(|(program, _)| *program == Program::GoCall) else { return false };
        let Some((program, verdict)) = self.verdicts.get_mut(at) else { return false };
        match (&*verdict, on) {
            (Verdict::Off(_), true) => {
                let loaded =
                    matches!(self.ebpf.program(program.name()), Some(Loaded::UProbe(probe)) if probe.fd().is_ok());
                let ready = if loaded { Ok(None) } else { attach(&mut self.ebpf, *program, &self.cgroup) };
                *verdict = ready.map_or_else(Verdict::Refused, |_| Verdict::Attached);
            }
            (Verdict::Attached, false) => *verdict = Verdict::Off(GO),
            _ => {}
        }
        self.tells_goroutines()
    }

    /// A program of the object.
    pub(super) fn program(&mut self, program: Program) -> Option<&mut Loaded> {
        self.ebpf.program_mut(program.name())
    }

    /// Locked memory of the maps, bytes (`memlock` of their fdinfo), without sockets' own storage.
    #[must_use]
    pub fn map_bytes(&self) -> u64 {
        self.maps
            .iter()
            .filter_map(|fd| {
                let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd())).ok()?;
                let line = text.lines().find_map(|line| line.strip_prefix("memlock:"))?;
                line.trim().parse::<u64>().ok()
            })
            .sum()
    }

    /// Run-time statistics of each attached program.
    #[must_use]
    pub fn runs(&self) -> Vec<(Program, Runs)> {
        let attached = self.verdicts.iter().filter(|(_, verdict)| *verdict == Verdict::Attached);
        attached
            .filter_map(|(program, _)| {
                let info = self.ebpf.program(program.name())?.info().ok()?;
                Some((*program, Runs { count: info.run_count(), ns: info.run_time().as_nanos() as u64 }))
            })
            .collect()
    }
}
