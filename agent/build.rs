//! Builds the kernel half and names the object for `include_bytes_aligned!(env!("WEIR_EBPF_OBJECT"))`.
//!
//! `WEIR_EBPF_OBJECT_FILE=FILE` takes an object that was built before instead.

use std::{
    env,
    error::Error,
    fs,
    path::{Path, PathBuf},
};

#[path = "build/toolchain.rs"]
mod toolchain;

const OBJECT_FILE_VARIABLE: &str = "WEIR_EBPF_OBJECT_FILE";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-env-changed={OBJECT_FILE_VARIABLE}");
    println!("cargo::rerun-if-env-changed={}", toolchain::CHOICE_VARIABLE);
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run by cargo only")?);
    let built = match env::var_os(OBJECT_FILE_VARIABLE) {
        Some(file) if !file.is_empty() => {
            let file = PathBuf::from(file);
            println!("cargo::rerun-if-changed={}", file.display());
            file
        }
        _ => build(&out)?,
    };
    let object = out.join("weir.bpf.o");
    fs::copy(&built, &object)
        .map_err(|error| format!("copying {} to {}: {error}", built.display(), object.display()))?;
    println!("cargo::rustc-env=WEIR_EBPF_OBJECT={}", object.display());
    Ok(())
}

/// Runs the inner cargo; returns the object's path.
fn build(out: &Path) -> Result<PathBuf, Box<dyn Error>> {
    let package = env::var_os("CARGO_MANIFEST_DIR").ok_or("CARGO_MANIFEST_DIR is not set: run by cargo only")?;
    // Asked when it runs: a target folder may have been copied from another checkout.
    let root = Path::new(&package).parent().ok_or("the package has no parent folder")?;
    for input in
        ["agent-ebpf", "agent-common/src", "agent-common/Cargo.toml", "Cargo.toml", "Cargo.lock", "agent/build"]
    {
        println!("cargo::rerun-if-changed={}", root.join(input).display());
    }
    let toolchain = toolchain::find().map_err(|reasons| {
        format!("no toolchain for the kernel half. Run: cargo xtask setup\nwhat was looked at:\n{reasons}")
    })?;
    let target = target_folder(out);
    let status = toolchain
        .build(root, target)
        .status()
        .map_err(|error| format!("starting cargo of the {} toolchain: {error}", toolchain.way.name()))?;
    if !status.success() {
        return Err(format!(
            "building the kernel half with the {} toolchain failed ({status}); its messages are above. \
             If they speak of the linker or of LLVM: cargo xtask setup",
            toolchain.way.name()
        )
        .into());
    }
    Ok(target.join("ebpf").join(toolchain::TARGET).join("ebpf/weir-ebpf"))
}

/// The workspace's target folder: the nearest one above `OUT_DIR` that cargo tagged.
fn target_folder(out: &Path) -> &Path {
    out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists()).unwrap_or(out)
}
