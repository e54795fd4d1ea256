//! Which compiler builds the kernel half.
//!
//! Shared by `agent/build.rs`, which uses it, and `xtask`, which installs it: one search, one answer.
//! Two ways work. Both need `bpf-linker`, built against the LLVM of the compiler that is used.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// The target of the kernel half.
pub(crate) const TARGET: &str = "bpfel-unknown-none";

/// Names the way by hand: `debian`, `nightly`, or `auto` (the default).
pub(crate) const CHOICE_VARIABLE: &str = "WEIR_EBPF_TOOLCHAIN";

/// Flags of every build of the kernel half. The loader needs BTF, and BTF is made from debug information. Blocks stay in
/// the order in which they are entered: LLVM's own order may end a loop by falling into its head, which the verifiers of
/// Linux 5.10 and 6.1 take for an endless loop (`back-edge from insn`, `push_insn` of `kernel/bpf/verifier.c`). Checked
/// by `agent/tests/object.rs`.
pub(crate) const RUSTFLAGS: &str = "-C debuginfo=2 -C link-arg=--btf -C link-arg=--llvm-args=-disable-block-placement";

/// rustup's nightly of the other way: the compiler of one day, whose LLVM (22) a released `bpf-linker` knows; newer ones
/// come with one that none knows yet.
pub(crate) const NIGHTLY: &str = "nightly-2026-05-01";

/// The oldest Debian `rustc` whose LLVM a released `bpf-linker` knows (1.96, LLVM 22).
const DEBIAN_MINIMUM: (u32, u32) = (1, 96);

/// A compiler that can build `core` for eBPF, with its linker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolchain {
    /// How to call it.
    pub(crate) way: Way,
    /// The folder that holds `bpf-linker`; goes in front of `PATH`.
    pub(crate) linker: PathBuf,
}

/// The two ways to have such a compiler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Debian's `rustc-web`, `cargo-web` and `rust-web-src` under `/usr`.
    Debian,
    /// rustup's [`NIGHTLY`] with the component `rust-src`.
    Nightly,
}

impl Way {
    /// The name used in [`CHOICE_VARIABLE`] and in messages.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Debian => "debian",
            Self::Nightly => "nightly",
        }
    }
}

/// Finds a usable toolchain.
///
/// # Errors
/// One line for each way that was looked at, saying what it lacks.
pub(crate) fn find() -> Result<Toolchain, String> {
    let way = complete()?;
    match find_linker() {
        Some(linker) => Ok(Toolchain { way, linker }),
        None => Err(format!("{}: complete, but bpf-linker is missing", way.name())),
    }
}

/// The way whose compiler is complete, with or without the linker.
///
/// # Errors
/// As [`find`].
pub(crate) fn complete() -> Result<Way, String> {
    let choice = env::var(CHOICE_VARIABLE).unwrap_or_default();
    let ways: &[Way] = match choice.as_str() {
        "" | "auto" => &[Way::Debian, Way::Nightly],
        "debian" => &[Way::Debian],
        "nightly" => &[Way::Nightly],
        other => return Err(format!("{CHOICE_VARIABLE}={other}: not one of auto, debian, nightly")),
    };
    let mut reasons = Vec::new();
    for &way in ways {
        match way_lacks(way) {
            None => return Ok(way),
            Some(reason) => reasons.push(format!("{}: {reason}", way.name())),
        }
    }
    Err(reasons.join("\n"))
}

impl Toolchain {
    /// A `cargo SUBCOMMAND` of this toolchain, cleared of what the surrounding build put into the environment:
    /// a foreign wrapper, flags or toolchain name would break it. The caller adds packages and target folder.
    #[must_use]
    pub(crate) fn cargo(&self, subcommand: &str) -> Command {
        let mut command = match self.way {
            Way::Debian => {
                let mut command = Command::new("/usr/bin/cargo");
                command.arg(subcommand);
                command
            }
            Way::Nightly => {
                let mut command = Command::new("rustup");
                command.args(["run", NIGHTLY, "cargo", subcommand]);
                command
            }
        };
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(is_foreign) {
                command.env_remove(name);
            }
        }
        if self.way == Way::Debian {
            command.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
        }
        command.env("RUSTFLAGS", RUSTFLAGS).env("PATH", self.path());
        command.args(["--target", TARGET, "-Zbuild-std=core", "--profile", "ebpf", "--package", "weir-ebpf"]);
        command
    }

    /// Builds the object of the workspace at `root`; a folder of its own in `target`, since the outer cargo holds the lock of
    /// that one.
    #[must_use]
    pub(crate) fn build(&self, root: &Path, target: &Path) -> Command {
        let mut command = self.cargo("build");
        command.args(["--locked", "--bin", "weir-ebpf", "--target-dir"]).arg(target.join("ebpf")).current_dir(root);
        command.stdout(Stdio::null());
        command
    }

    /// `PATH` with the linker's folder first; for the Debian way `/usr/bin` before rustup's proxies.
    fn path(&self) -> std::ffi::OsString {
        let mut folders = vec![self.linker.clone()];
        if self.way == Way::Debian {
            folders.insert(0, PathBuf::from("/usr/bin"));
        }
        folders.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        // Fails only on a folder with a colon in its name, which then could not have been in PATH.
        env::join_paths(folders).unwrap_or_default()
    }
}

/// A variable that cargo or its user set for the outer build and that must not reach the inner one.
fn is_foreign(name: &str) -> bool {
    const EXACT: &[&str] = &[
        "CARGO",
        "CARGO_INCREMENTAL",
        "RUSTC",
        "RUSTDOC",
        "RUSTFLAGS",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
        "RUSTUP_TOOLCHAIN",
    ];
    const BEGINS: &[&str] = &["CARGO_ENCODED_", "CARGO_BUILD_", "CARGO_TARGET_", "CARGO_PROFILE_", "CARGO_UNSTABLE_"];
    EXACT.contains(&name) || BEGINS.iter().any(|prefix| name.starts_with(prefix))
}

/// What this way lacks, or `None` when it is complete but for the linker.
fn way_lacks(way: Way) -> Option<String> {
    match way {
        Way::Debian => debian_lacks(),
        Way::Nightly => nightly_lacks(),
    }
}

fn debian_lacks() -> Option<String> {
    let rustc = Path::new("/usr/bin/rustc");
    if !rustc.exists() || !Path::new("/usr/bin/cargo").exists() {
        return Some("no rustc and cargo in /usr/bin (packages rustc-web, cargo-web)".to_owned());
    }
    let Some(version) = output(Command::new(rustc).arg("--version")) else {
        return Some("/usr/bin/rustc does not run".to_owned());
    };
    if parse_version(&version).is_none_or(|version| version < DEBIAN_MINIMUM) {
        let (major, minor) = DEBIAN_MINIMUM;
        return Some(format!("/usr/bin/rustc is `{version}`, wanted {major}.{minor} or newer"));
    }
    let Some(sysroot) = output(Command::new(rustc).args(["--print", "sysroot"])) else {
        return Some("/usr/bin/rustc does not tell its sysroot".to_owned());
    };
    library_lacks(Path::new(&sysroot), "package rust-web-src")
}

fn nightly_lacks() -> Option<String> {
    match output(Command::new("rustup").args(["run", NIGHTLY, "rustc", "--print", "sysroot"])) {
        None => Some(format!("rustup has no toolchain named {NIGHTLY}")),
        Some(sysroot) => library_lacks(Path::new(&sysroot), "rustup component rust-src of it"),
    }
}

fn library_lacks(sysroot: &Path, remedy: &str) -> Option<String> {
    let sources = sysroot.join("lib/rustlib/src/rust/library/core/src/lib.rs");
    (!sources.exists()).then(|| format!("no sources of `core` under {} ({remedy})", sysroot.display()))
}

/// The folder of `bpf-linker`: cargo's own before `PATH`, since that is where `cargo xtask setup` puts it.
fn find_linker() -> Option<PathBuf> {
    let cargo_home = env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")));
    let path = env::var_os("PATH").unwrap_or_default();
    cargo_home
        .map(|home| home.join("bin"))
        .into_iter()
        .chain(env::split_paths(&path))
        .find(|folder| folder.join("bpf-linker").is_file())
}

/// First line of what a command prints; `None` when it can't be started or fails.
fn output(command: &mut Command) -> Option<String> {
    command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC");
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()?.lines().next().map(str::to_owned)
}

/// Major and minor of `rustc 1.96.0 (…)`.
fn parse_version(line: &str) -> Option<(u32, u32)> {
    let mut numbers = line.split_whitespace().nth(1)?.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}
