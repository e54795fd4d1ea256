//! Rules for the text of files.

use std::env;

use anyhow::Result;

use super::tree;
use crate::repo;

/// A file of Rust longer than this holds more than one idea.
const LONGEST: usize = 600;

/// Files of Rust that are too long.
pub(crate) fn sizes() -> Result<Vec<String>> {
    let mut broken = Vec::new();
    for path in tree::rust_files()? {
        let lines = tree::text(&path)?.map_or(0, |text| text.lines().count());
        broken.extend(too_long(&path, lines));
    }
    Ok(broken)
}

fn too_long(path: &str, lines: usize) -> Option<String> {
    (lines > LONGEST).then(|| format!("{path}: {lines} lines, at most {LONGEST}"))
}

/// Lines that name a folder of the machine that they were written on.
pub(crate) fn machine_paths() -> Result<Vec<String>> {
    let mut forbidden = vec![format!("{}/", repo::root().display())];
    if let Some(home) = env::var_os("HOME").and_then(|home| home.into_string().ok()).filter(|home| home.len() > 1) {
        forbidden.push(format!("{}/", home.trim_end_matches('/')));
    }
    let mut broken = Vec::new();
    for path in tree::files()? {
        if let Some(text) = tree::text(&path)? {
            broken.extend(naming(&path, &text, &forbidden));
        }
    }
    Ok(broken)
}

fn naming(path: &str, text: &str, forbidden: &[String]) -> Vec<String> {
    text.lines()
        .enumerate()
        .filter_map(|(index, line)| {
            let found = forbidden.iter().find(|folder| line.contains(folder.as_str()))?;
            Some(format!("{path}:{}: names {found}, a folder of this machine", index + 1))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{naming, too_long};

    #[test]
    fn the_limit_of_a_file_is_600_lines() {
        assert_eq!(too_long("a.rs", 600), None);
        assert!(too_long("a.rs", 601).is_some());
    }

    #[test]
    fn a_line_that_names_a_folder_of_the_machine_is_found() {
        let forbidden = ["/somewhere/me/".to_owned()];
        let text = "fine: /usr/lib\nlet path = \"/somewhere/me/weir\";\n";
        assert_eq!(naming("a.rs", text, &forbidden), ["a.rs:2: names /somewhere/me/, a folder of this machine"]);
    }
}
