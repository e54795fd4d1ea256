//! Files that are kept over a restart.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{Error, ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Writes a file whole or not at all, for the agent's own account alone.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let young = folder.join(format!(".{}.new", name.to_string_lossy()));
    match fs::remove_file(&young) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&young)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&young, path)?;
    File::open(folder)?.sync_all()
}
