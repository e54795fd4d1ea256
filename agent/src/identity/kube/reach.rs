//! How the API server is reached, and what is said when it is not.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config, Error};

use super::state::Trouble;

/// Until a connection must be made.
const CONNECT: Duration = Duration::from_secs(5);

/// Who tells where the API server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The pod that this process is in: `KUBERNETES_SERVICE_HOST` and the service account's token.
    Pod,
    /// A kubeconfig file.
    File(PathBuf),
    /// What `kubectl` would use: `KUBECONFIG`, else `~/.kube/config`.
    User,
}

/// A client; no connection is made yet.
pub(super) async fn client(reach: &Reach) -> Result<Client, Trouble> {
    let options = KubeConfigOptions::default();
    let trouble = |why: String| Trouble { why, remedy: CONFIG, absent: false };
    let mut config = match reach {
        Reach::Pod => Config::incluster().map_err(|error| trouble(error.to_string()))?,
        Reach::File(path) => {
            let file = Kubeconfig::read_from(path).map_err(|error| trouble(error.to_string()))?;
            Config::from_custom_kubeconfig(file, &options).await.map_err(|error| trouble(error.to_string()))?
        }
        Reach::User => Config::from_kubeconfig(&options).await.map_err(|error| trouble(error.to_string()))?,
    };
    config.connect_timeout = Some(CONNECT);
    Client::try_from(config).map_err(|error| trouble(said(&error)))
}

const CONFIG: &str = "give kubernetes.kubeconfig a file that kubectl can use, or set kubernetes.mode to off";
const FORBIDDEN: &str = "allow get, list and watch of pods, services, endpointslices and weirpolicies to this account by a ClusterRole, as deploy/kubernetes/rbac.yaml does";
const ABSENT: &str =
    "to have policies, apply deploy/kubernetes/weirpolicy.yaml; to have none, set enforce.policies to false";
const TOKEN: &str = "the token is not accepted: mount a valid service account token, or renew the kubeconfig";
const SERVER: &str = "see that the API server runs and that this node reaches it";

/// What an error of the API means.
pub(super) fn trouble(error: &Error) -> Trouble {
    let remedy = match error {
        Error::Api(status) if status.code == 403 => FORBIDDEN,
        Error::Api(status) if status.code == 401 => TOKEN,
        _ => SERVER,
    };
    Trouble { why: said(error), remedy, absent: false }
}

/// There is no such kind.
pub(super) fn absent(why: &Trouble) -> Trouble {
    Trouble { remedy: ABSENT, absent: true, ..why.clone() }
}

/// What took too long.
pub(super) fn late(what: &str) -> Trouble {
    Trouble { why: format!("{what}: no answer in time"), remedy: SERVER, absent: false }
}

/// An error with its causes, short and harmless.
fn said(error: &Error) -> String {
    const LONGEST: usize = 300;
    let mut text = match error {
        Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    };
    let mut cause = std::error::Error::source(error).and_then(std::error::Error::source);
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text.chars().filter(|c| !c.is_control()).take(LONGEST).collect()
}
