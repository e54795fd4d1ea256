//! Whether the API server of Kubernetes is asked, and what `weir doctor` says of it.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::mpsc::Receiver;

use super::blocks::Blocks;
use super::doctor::{Row, Standing};
use crate::config::{Kubernetes, KubernetesMode};
use crate::identity::kube::{self, Change, Reach, State, Watch};
use crate::meter::Meter;

/// Where a pod finds its service account's token.
const TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// Starts the watch, if settings and place ask for it, and tells the drop decisions of it. Must be called within a tokio runtime.
pub(super) fn start(settings: &Kubernetes, meter: &Arc<Meter>, blocks: &Blocks) -> Option<(Watch, Receiver<Change>)> {
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() && Path::new(TOKEN).exists();
    let reach = reach(settings, in_pod)?;
    let node = settings.node.clone().or_else(node_name).unwrap_or_default();
    tracing::info!(node, "pods and Services are named by the API server of Kubernetes");
    let (watch, news) = kube::start(kube::Settings { reach, node, cluster: settings.cluster }, Arc::clone(meter));
    blocks.know(Arc::clone(&watch.state));
    Some((watch, news))
}

fn reach(settings: &Kubernetes, in_pod: bool) -> Option<Reach> {
    match (settings.mode, &settings.kubeconfig) {
        (KubernetesMode::Off, _) => None,
        (_, Some(file)) => Some(Reach::File(file.clone())),
        (_, None) if in_pod => Some(Reach::Pod),
        (KubernetesMode::On, None) => Some(Reach::User),
        (KubernetesMode::Auto, None) => None,
    }
}

fn node_name() -> Option<String> {
    let named = std::env::var("NODE_NAME").ok().filter(|name| !name.is_empty());
    named.or_else(|| Some(std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_lowercase()))
}

/// Rows of `weir doctor`.
pub(super) fn rows(state: &State) -> impl Iterator<Item = Row> {
    let row = |subject: String, standing, detail, remedy: &str| Row {
        section: "fact",
        subject,
        standing,
        detail,
        remedy: remedy.to_owned(),
    };
    let kinds = state.kinds().into_iter().map(move |(kind, known)| {
        let count = format!("{} known", known.objects);
        let (standing, detail, remedy) = match known.trouble {
            Some(trouble) if trouble.absent => {
                (Standing::Ok, "no such kind in this cluster".to_owned(), trouble.remedy)
            }
            Some(trouble) if known.listed => {
                let age = known.age.as_secs();
                (Standing::Degraded, format!("{count}, nothing new for {age} s: {}", trouble.why), trouble.remedy)
            }
            Some(trouble) => (Standing::Degraded, format!("never told: {}", trouble.why), trouble.remedy),
            None if known.listed => (Standing::Ok, count, ""),
            None => (Standing::Unknown, "not told yet".to_owned(), ""),
        };
        row(format!("kubernetes {kind}"), standing, detail, remedy)
    });
    let status = state.unwritten().map(move |trouble| {
        let detail = format!("not written: {}", trouble.why);
        row("kubernetes weirpolicies/status".to_owned(), Standing::Degraded, detail, trouble.remedy)
    });
    kinds.chain(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_is_asked_where_there_is_one() {
        let settings = |mode, file: Option<&str>| Kubernetes {
            mode,
            kubeconfig: file.map(Into::into),
            node: None,
            cluster: false,
        };
        let file = || Some(Reach::File("/k".into()));
        for (mode, config, in_pod, expected) in [
            (KubernetesMode::Auto, None, false, None),
            (KubernetesMode::Auto, None, true, Some(Reach::Pod)),
            (KubernetesMode::Auto, Some("/k"), true, file()),
            (KubernetesMode::On, None, false, Some(Reach::User)),
            (KubernetesMode::On, None, true, Some(Reach::Pod)),
            (KubernetesMode::Off, Some("/k"), true, None),
        ] {
            assert_eq!(reach(&settings(mode, config), in_pod), expected, "{mode:?} {config:?} {in_pod}");
        }
    }
}
