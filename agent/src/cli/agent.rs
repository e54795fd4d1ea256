//! How a verb finds the running agent.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::{
    config::{Sources, Written},
    control::client::{Client, Error},
};

/// Where the agent is.
#[derive(Debug, Args)]
pub(super) struct Agent {
    /// Control socket of the agent [default: control.socket of /etc/weir/weir.yaml, or /run/weir/control.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

impl Agent {
    pub(super) fn client(&self) -> Client {
        let socket = self.socket.clone().unwrap_or_else(|| {
            // A broken file is the agent's to tell of: it still answers where it was started.
            let loaded = Sources::of_process(None, Vec::new()).load();
            loaded.map_or_else(|_| Written::default().control.socket.into(), |loaded| loaded.settings.socket)
        });
        Client::new(&socket)
    }

    /// Asks the agent for a change, however long it takes: it would be made without us, too.
    pub(super) fn change(&self, method: &str, target: &str, sent: Option<&Value>) -> Result<Value, Error> {
        self.client().change(method, target, sent, || {
            eprintln!(
                "the agent is still at it; waiting (who does not wait finds out with `weir mode` or `weir block list`)"
            );
        })
    }
}
