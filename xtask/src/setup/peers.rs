//! Servers and clients that come from language registries: a Python environment, a Node folder.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::{Install, Piece, pins};
use crate::{repo, shell};

pub(crate) fn pieces() -> Vec<Piece> {
    vec![
        Piece {
            name: "Python environment".to_owned(),
            why: "gunicorn, uvicorn, Flask, FastAPI, aiohttp, requests, httpx, grpcio, gevent, OpenTelemetry, Envoy"
                .to_owned(),
            check: Box::new(check_python),
            install: Install::Own(install_python),
        },
        Piece {
            name: "Node packages".to_owned(),
            why: "undici".to_owned(),
            check: Box::new(check_node),
            install: Install::Own(install_node),
        },
        Piece {
            name: "OpenTelemetry for Java".to_owned(),
            why: "an application that tells its calls itself".to_owned(),
            check: Box::new(check_java_agent),
            install: Install::Own(install_java_agent),
        },
    ]
}

fn venv() -> Result<PathBuf> {
    Ok(repo::cache()?.join("venv"))
}

/// Prints a line for each package that is not there at the version that follows its name.
const COMPARE: &str = "
import sys
from importlib.metadata import version, PackageNotFoundError
for pin in sys.argv[1:]:
    name, wanted = pin.split('==')
    try:
        found = version(name)
    except PackageNotFoundError:
        found = 'nothing'
    if found != wanted:
        print(f'{name} {found}, pinned {wanted}')
";

fn python_pins() -> Vec<String> {
    pins::PYTHON.iter().map(|(name, version)| format!("{name}=={version}")).collect()
}

fn check_python() -> Result<(), String> {
    let inner = || -> Result<String> {
        shell::output(Command::new(venv()?.join("bin/python")).args(["-c", COMPARE]).args(python_pins()))
    };
    match inner() {
        Ok(text) if text.is_empty() => Ok(()),
        Ok(text) => Err(text.trim().replace('\n', "; ")),
        Err(_) => Err("not there".to_owned()),
    }
}

fn install_python() -> Result<()> {
    let venv = venv()?;
    if shell::succeeds(&venv.join("bin/pip").to_string_lossy(), &["--version"]).is_err() {
        // Also repairs one whose Python is gone.
        shell::run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    }
    shell::run(
        Command::new(venv.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-deps"])
            .args(python_pins()),
    )
}

fn node() -> Result<PathBuf> {
    Ok(repo::cache()?.join("node"))
}

fn check_node() -> Result<(), String> {
    let node = node().map_err(|error| error.to_string())?;
    for (name, wanted) in pins::NODE {
        let file = node.join("node_modules").join(name).join("package.json");
        let text = fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        let found: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", file.display()))?;
        if found["version"] != **wanted {
            return Err(format!("{name} {}, pinned {wanted}", found["version"]));
        }
    }
    Ok(())
}

fn install_node() -> Result<()> {
    let node = node()?;
    fs::create_dir_all(&node).with_context(|| format!("creating {}", node.display()))?;
    let file = node.join("package.json");
    fs::write(&file, "{\"private\": true}\n").with_context(|| format!("writing {}", file.display()))?;
    let packages = pins::NODE.iter().map(|(name, version)| format!("{name}@{version}"));
    shell::run(
        Command::new("npm")
            .args(["install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact", "--prefix"])
            .arg(&node)
            .args(packages),
    )
}

/// Where OpenTelemetry's agent for Java is, and what it is called there.
fn java_agent() -> Result<(PathBuf, String)> {
    let (artifact, version) = pins::JAVA_AGENT;
    let name = artifact.rsplit(':').next().unwrap_or(artifact);
    Ok((repo::cache()?.join("java"), format!("{name}-{version}.jar")))
}

fn check_java_agent() -> Result<(), String> {
    let (folder, file) = java_agent().map_err(|error| error.to_string())?;
    let path = folder.join(file);
    let said = shell::output(Command::new("java").arg("-jar").arg(&path)).map_err(|error| format!("{error:#}"))?;
    let (_, version) = pins::JAVA_AGENT;
    if said.trim() == version { Ok(()) } else { Err(format!("{} says {}", path.display(), said.trim())) }
}

fn install_java_agent() -> Result<()> {
    let (artifact, version) = pins::JAVA_AGENT;
    let (folder, _) = java_agent()?;
    shell::run(
        Command::new("mvn")
            .args(["--quiet", "--batch-mode", pins::MAVEN_COPY])
            .arg(format!("-Dartifact={artifact}:{version}:jar"))
            .arg(format!("-DoutputDirectory={}", folder.display())),
    )
}
