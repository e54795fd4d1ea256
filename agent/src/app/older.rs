//! What became of the look at sockets that are older than the agent, for `weir doctor`.

use std::fmt::Write as _;
use std::io;
use std::sync::OnceLock;

use super::doctor::{Row, Standing};
use crate::identity::Sockets;
use crate::kernel::facts::chain;

/// Told once.
#[derive(Debug, Default)]
pub(super) struct Older(OnceLock<(Standing, String, &'static str)>);

impl Older {
    /// It is over.
    pub(super) fn tell(&self, found: io::Result<Sockets>) {
        let told = match found {
            Ok(found) => judge(&found),
            Err(error) => {
                let why = chain(&error);
                tracing::warn!(error = why, "sockets older than the agent have no owner until they send");
                (Standing::Degraded, format!("no owner until they send: {why}"), "see the reason")
            }
        };
        // There is one look.
        let _ = self.0.set(told);
    }

    /// Whether it was told.
    pub(super) fn is_over(&self) -> bool {
        self.0.get().is_some()
    }

    /// A row of `weir doctor`.
    pub(super) fn row(&self) -> Row {
        let pending = || (Standing::Unknown, "no owner until they send, or all processes are looked at".to_owned(), "");
        let (standing, detail, remedy) = self.0.get().cloned().unwrap_or_else(pending);
        Row { section: "fact", subject: "older sockets".to_owned(), standing, detail, remedy: remedy.to_owned() }
    }
}

fn judge(found: &Sockets) -> (Standing, String, &'static str) {
    let spaces = found.namespaces;
    let mut detail =
        format!("{} found in {spaces} network namespace{}", found.sockets.len(), if spaces == 1 { "" } else { "s" });
    for (count, what) in [
        (found.left_out, "too many"),
        (found.namespaces_denied, "network namespaces that may not be entered"),
        (found.processes_denied, "processes whose descriptors may not be read"),
    ] {
        if count > 0 {
            // Writing to a string can't fail.
            let _ = write!(detail, ", {count} {what}");
        }
    }
    if found.namespaces_denied + found.processes_denied > 0 {
        (Standing::Degraded, detail, "grant CAP_SYS_ADMIN (namespaces) and CAP_SYS_PTRACE (descriptors)")
    } else {
        (Standing::Ok, detail, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_not_be_seen_is_said() {
        let older = Older::default();
        assert_eq!(older.row().standing, Standing::Unknown);
        older.tell(Ok(Sockets { namespaces: 1, processes_denied: 7, ..Sockets::default() }));
        let row = older.row();
        assert_eq!(
            (row.standing, &*row.detail),
            (Standing::Degraded, "0 found in 1 network namespace, 7 processes whose descriptors may not be read")
        );
    }
}
