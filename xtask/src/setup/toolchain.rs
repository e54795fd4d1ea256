//! The compiler and linker of the kernel half.

use std::{path::Path, process::Command};

use anyhow::{Context as _, Result, anyhow, bail};

use super::{Install, Piece, Stage, apt, pins};
use crate::shell;

// The search that agent/build.rs does: what is found here is what will be used there.
#[path = "../../../agent/build/toolchain.rs"]
pub(crate) mod search;

use search::Way;

/// The toolchain, and for tests also its clippy.
pub(crate) fn pieces(stage: Stage) -> Vec<Piece> {
    let mut pieces = vec![Piece {
        name: "eBPF toolchain".to_owned(),
        why: "building the kernel half".to_owned(),
        check: Box::new(check),
        install: Install::Own(install),
    }];
    if stage >= Stage::Test {
        for component in ["clippy", "fmt"] {
            pieces.push(Piece {
                name: format!("cargo {component}"),
                why: "cargo xtask lint".to_owned(),
                check: Box::new(move || cargo_has(component)),
                install: Install::Own(install_components),
            });
        }
    }
    // On a bare machine the way is not there yet, but known: this list is made before anything is installed.
    if stage >= Stage::Test && wants_nightly() {
        pieces.push(Piece {
            name: format!("clippy of {}", search::NIGHTLY),
            why: "cargo xtask lint of the kernel half".to_owned(),
            check: Box::new(|| shell::succeeds("rustup", &["run", search::NIGHTLY, "cargo-clippy", "--version"])),
            install: Install::Own(|| {
                shell::run(Command::new("rustup").args(["component", "add", "--toolchain", search::NIGHTLY, "clippy"]))
            }),
        });
    } else if stage >= Stage::Test {
        pieces.push(Piece {
            name: pins::EBPF_CLIPPY.to_owned(),
            why: "cargo xtask lint of the kernel half".to_owned(),
            check: Box::new(|| shell::succeeds("/usr/bin/cargo-clippy", &["--version"])),
            install: Install::Apt(vec![pins::EBPF_CLIPPY]),
        });
    }
    pieces
}

fn check() -> Result<(), String> {
    let toolchain = search::find()?;
    let linker = toolchain.linker.join("bpf-linker");
    shell::succeeds(&linker.to_string_lossy(), &["--version"])
}

fn cargo_has(component: &str) -> Result<(), String> {
    // Through rustup's proxy a missing component starts and fails, so the status counts here.
    shell::output(Command::new("cargo").args([component, "--version"])).map(drop).map_err(|error| error.to_string())
}

fn install_components() -> Result<()> {
    shell::run(Command::new("rustup").args(["component", "add", "clippy", "rustfmt"]))
}

/// The kernel half is built with rustup's nightly, now or once it is installed.
fn wants_nightly() -> bool {
    if let Ok(way) = search::complete() {
        return way == Way::Nightly;
    }
    let choice = std::env::var(search::CHOICE_VARIABLE).unwrap_or_default();
    let has_apt = Command::new("apt-get").arg("--version").output().is_ok();
    choice == "nightly" || (choice != "debian" && !has_apt)
}

/// Completes the way that was chosen by hand, or the one that is nearly there, or Debian's.
fn install() -> Result<()> {
    if search::complete().is_err() {
        if wants_nightly() {
            shell::run(Command::new("rustup").args([
                "toolchain",
                "install",
                search::NIGHTLY,
                "--profile",
                "minimal",
                "--component",
                "rust-src",
            ]))?;
        } else {
            apt::install(pins::EBPF_PACKAGES)?;
        }
    }
    let way = search::complete().map_err(|reasons| anyhow!("the compiler is still not complete: {reasons}"))?;
    let llvm = llvm_major(way)?;
    install_linker(llvm)
}

/// The LLVM that the way's compiler has inside.
fn llvm_major(way: Way) -> Result<u32> {
    let mut command = match way {
        Way::Debian => Command::new("/usr/bin/rustc"),
        Way::Nightly => {
            let mut command = Command::new("rustup");
            command.args(["run", search::NIGHTLY, "rustc"]);
            command
        }
    };
    let text = shell::output(command.arg("-vV").env_remove("RUSTUP_TOOLCHAIN"))?;
    parse_llvm(&text).with_context(|| format!("no LLVM version in: {text}"))
}

fn parse_llvm(text: &str) -> Option<u32> {
    let version = text.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    version.split('.').next()?.parse().ok()
}

/// Builds the linker against the shared LLVM of the same major version as the compiler's: bitcode of a newer
/// one can't be read.
fn install_linker(llvm: u32) -> Result<()> {
    let prefix = format!("/usr/lib/llvm-{llvm}");
    if !Path::new(&prefix).join("include/llvm").exists() && !Path::new(&prefix).join("lib").exists() {
        if !shell::is_root() {
            bail!("bpf-linker needs LLVM {llvm} under {prefix}. Type as root: apt-get install -y llvm-{llvm}-dev");
        }
        shell::run(Command::new("apt-get").args(["install", "-y", "-qq", &format!("llvm-{llvm}-dev")]))?;
    }
    shell::run(
        Command::new("cargo")
            .args(["install", "bpf-linker", "--version", pins::BPF_LINKER, "--locked", "--force", "--quiet"])
            .args(["--no-default-features", "--features", &format!("llvm-{llvm}")])
            .env("LLVM_PREFIX", &prefix),
    )
}

#[cfg(test)]
mod tests {
    use super::parse_llvm;

    #[test]
    fn the_major_version_of_llvm_is_read() {
        assert_eq!(parse_llvm("rustc 1.96.0\nrelease: 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(parse_llvm("rustc 1.96.0\n"), None);
    }
}
