//! `WeirPolicy` objects of the cluster as they are written; what they ask for is judged elsewhere. And the way back:
//! what this node says of one, in its status.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error, Resource};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use siphasher::sip::SipHasher13;
use tokio::sync::OnceCell;
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::follow::{Event, Follow, Pause};
use super::reach::{self, Reach, late, trouble};
use super::state::{Kind, State, Trouble};
use super::watch::Watch;

/// The API group that Weir's objects are in; `deploy/kubernetes/weirpolicy.yaml` makes it.
const GROUP: &str = "weir.io";
const VERSION: &str = "v1alpha1";
const KIND: &str = "WeirPolicy";
const PLURAL: &str = "weirpolicies";

/// Policies of a page: one may have a megabyte, and little is held at once.
const PAGE: u32 = 4;
/// Policies that may wait for who takes them.
const HEARD: usize = 4;
/// Until a status must be written.
const WRITE: Duration = Duration::from_secs(10);
/// Longest name of a field manager, bytes, by the API.
const MANAGER: usize = 128;

/// A policy as the API server has it, as little as is read of it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PolicyDocument {
    metadata: ObjectMeta,
    spec: Option<Box<RawValue>>,
    status: Option<Box<RawValue>>,
}

impl Resource for PolicyDocument {
    type DynamicType = ();
    type Scope = NamespaceResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        KIND.into()
    }

    fn group((): &()) -> Cow<'_, str> {
        GROUP.into()
    }

    fn version((): &()) -> Cow<'_, str> {
        VERSION.into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        PLURAL.into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// Which policy it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyName {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name in there.
    pub name: Arc<str>,
}

impl fmt::Display for PolicyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A policy.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Which one.
    pub name: PolicyName,
    /// The object's own: another one of the same name has another.
    pub uid: Arc<str>,
    /// Counts up with every change of what is asked for.
    pub generation: i64,
    /// What is asked for, JSON as it was sent.
    pub spec: Arc<str>,
    /// Nodes that say something of it in its status, and when they last wrote.
    pub nodes: Vec<(Arc<str>, Option<String>)>,
}

/// What happened to policies.
#[derive(Clone, Debug)]
pub enum PolicyEvent {
    /// A new list begins.
    Begin,
    /// It is there, or another than before.
    Here(Policy),
    /// It is gone.
    Gone(PolicyName),
    /// The list is complete: what was not in it is gone.
    End,
}

/// Policies, followed until this is dropped.
#[derive(Debug)]
pub struct Policies {
    /// What happens to them. Nothing is lost: who sends waits.
    pub events: Receiver<PolicyEvent>,
    /// For what is said of them.
    pub pen: Pen,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Drop for Policies {
    fn drop(&mut self) {
        self.task.abort();
        self.state.watched(Kind::Policies, false);
    }
}

/// Writes what this node says of policies.
#[derive(Clone, Debug)]
pub struct Pen {
    line: Arc<Line>,
    state: Arc<State>,
}

struct Line {
    reach: Reach,
    client: OnceCell<Client>,
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("reach", &self.reach).finish_non_exhaustive()
    }
}

impl Line {
    async fn client(&self) -> Result<Client, Trouble> {
        self.client.get_or_try_init(|| reach::client(&self.reach)).await.cloned()
    }
}

impl Watch {
    /// Follows the policies of the cluster. Within a tokio runtime; to be had once at a time.
    #[must_use]
    pub fn policies(&self) -> Policies {
        let state = Arc::clone(&self.state);
        state.watched(Kind::Policies, true);
        let line = Arc::new(Line { reach: self.reach.clone(), client: OnceCell::new() });
        let (to, mut heard) = channel(HEARD);
        let (tell, events) = channel(HEARD);
        let (from, of) = (Arc::clone(&line), Arc::clone(&state));
        let task = tokio::spawn(async move {
            let mut pause = Pause::default();
            let client = loop {
                match from.client().await {
                    Ok(client) => break client,
                    Err(trouble) => {
                        of.trouble(Kind::Policies, &trouble);
                        pause.wait().await;
                    }
                }
            };
            let api = Api::all(client);
            let follow = Follow { kind: Kind::Policies, api, fields: None, page: PAGE, state: of };
            let told = async {
                while let Some(event) = heard.recv().await {
                    let Some(event) = read(event) else { continue };
                    if tell.send(event).await.is_err() {
                        break;
                    }
                }
            };
            tokio::select! {
                _ = follow.run(to, |event: Event<PolicyDocument>| event) => {}
                () = told => {}
            }
        });
        Policies { events, pen: Pen { line, state: Arc::clone(&state) }, state, task }
    }
}

/// An event without what is not asked for; `None`: of something that is no policy.
fn read(event: Event<PolicyDocument>) -> Option<PolicyEvent> {
    Some(match event {
        Event::Begin => PolicyEvent::Begin,
        Event::End => PolicyEvent::End,
        Event::Gone(document) => PolicyEvent::Gone(name(&document.metadata)?),
        Event::Here(document) => {
            let meta = &document.metadata;
            let nodes = document.status.as_deref().and_then(|status| serde_json::from_str::<Status>(status.get()).ok());
            PolicyEvent::Here(Policy {
                name: name(meta)?,
                uid: meta.uid.as_deref()?.into(),
                generation: meta.generation.unwrap_or_default(),
                spec: document.spec.as_deref().map_or("null", RawValue::get).into(),
                nodes: nodes
                    .unwrap_or_default()
                    .nodes
                    .into_iter()
                    .map(|node| (node.name.into(), node.updated))
                    .collect(),
            })
        }
    })
}

fn name(meta: &ObjectMeta) -> Option<PolicyName> {
    Some(PolicyName { namespace: meta.namespace.as_deref()?.into(), name: meta.name.as_deref()?.into() })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    nodes: Vec<Node>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Node {
    name: String,
    updated: Option<String>,
}

impl Pen {
    /// Writes what a node says of a policy in the place of what it said before; `None`: nothing any more. Each node has
    /// an entry of its own and owns nothing else, so that no two of them are ever in each other's way.
    pub async fn write(&self, name: &PolicyName, uid: &str, node: &str, entry: Option<Value>) -> Result<(), Trouble> {
        let document = json!({
            "apiVersion": format!("{GROUP}/{VERSION}"), "kind": KIND,
            // Another object of the same name is not written to.
            "metadata": { "name": &*name.name, "namespace": &*name.namespace, "uid": uid },
            // An empty list, as a status without anything would be none.
            "status": { "nodes": entry.into_iter().collect::<Vec<_>>() },
        });
        let client = self.line.client().await?;
        let api: Api<PolicyDocument> = Api::namespaced(client, &name.namespace);
        let how = PatchParams { field_manager: Some(manager(node)), force: true, ..PatchParams::default() };
        let written = timeout(WRITE, api.patch_status(&name.name, &how, &Patch::Apply(document))).await;
        let done = match written {
            // It is gone, or another one has its name: there is nothing to say of it.
            Ok(Ok(_)) => Ok(()),
            Ok(Err(Error::Api(status))) if matches!(status.code, 404 | 409) => Ok(()),
            Ok(Err(Error::Api(status))) if status.code == 403 => {
                Err(Trouble { why: trouble(&Error::Api(status)).why, remedy: STATUS, absent: false })
            }
            Ok(Err(error)) => Err(trouble(&error)),
            Err(_) => Err(late("writing a status")),
        };
        self.state.wrote(done.as_ref().err().cloned());
        done
    }
}

const STATUS: &str =
    "allow patch of weirpolicies/status to this account by a ClusterRole, as deploy/kubernetes/rbac.yaml does";

/// The field manager of a node.
fn manager(node: &str) -> String {
    let whole = format!("weir-{node}");
    if whole.len() <= MANAGER {
        return whole;
    }
    format!("weir-{:016x}", SipHasher13::new().hash(node.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_are_read_whatever_their_status_is() {
        let document = |status: Value| {
            let whole = json!({ "kind": KIND, "spec": { "rules": [1] }, "status": status, "metadata": {
                "namespace": "shop", "name": "a", "uid": "u", "generation": 3, "resourceVersion": "9",
            } });
            serde_json::from_str::<PolicyDocument>(&whole.to_string()).unwrap()
        };
        for (status, nodes) in [
            (json!({ "nodes": [{ "name": "n1", "updated": "2026-01-01T00:00:00Z" }, { "name": "n2" }] }), 2),
            (json!({ "nodes": 7 }), 0),
            (json!(null), 0),
        ] {
            let Some(PolicyEvent::Here(policy)) = read(Event::Here(document(status))) else { panic!("no policy") };
            assert_eq!((&*policy.spec, policy.generation, policy.nodes.len()), (r#"{"rules":[1]}"#, 3, nodes));
            assert_eq!(policy.name.to_string(), "shop/a");
        }
        assert!(read(Event::Here(PolicyDocument::default())).is_none());
    }

    #[test]
    fn managers_are_short_and_apart() {
        let long = "n".repeat(253);
        assert_eq!(manager("n1"), "weir-n1");
        assert!(manager(&long).len() <= MANAGER && manager(&long) != manager(&format!("{long}x")));
    }
}
