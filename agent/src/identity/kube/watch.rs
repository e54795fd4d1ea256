//! The task that hears what the API server tells, and makes changes of it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::apps::v1::ReplicaSet;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Api, Client, Error};
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::addresses::{self, Addresses, Source};
use super::book::End;
use super::documents::{NodeDocument, PodDocument, ServiceDocument, SliceDocument};
use super::follow::{Event, Follow, Pause};
use super::owner::{self, Owner, Owners};
use super::pod::Pod;
use super::reach::{self, Reach};
use super::state::{Kind, State};
use crate::meter::{Count, Meter};
use crate::model::Service;

/// Changes that may wait for the one who names processes; the watch waits when there are more.
const CHANGES: usize = 1024;
/// Documents that may wait for this task.
const HEARD: usize = 64;
/// Most pods of one node.
const PODS: usize = 8192;
/// Most pods elsewhere.
const STRANGERS: usize = 32 * 1024;
/// Most Services, most `EndpointSlice`s, and most nodes.
const OBJECTS: usize = 32 * 1024;
/// Pods of a page. A document may have a megabyte of annotations: little is held at once.
const POD_PAGE: u32 = 8;
/// Services or slices of a page.
const PAGE: u32 = 100;
/// Until an owner must be told.
const OWNER: Duration = Duration::from_secs(5);

/// What to watch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where the API server is.
    pub reach: Reach,
    /// The name of this node, as the API server has it.
    pub node: String,
    /// Pods and nodes elsewhere, too.
    pub cluster: bool,
}

/// What is another now.
#[derive(Clone, Debug)]
pub enum Change {
    /// A pod of this node is there, or is another than before.
    Pod(Arc<Pod>),
    /// A pod is gone.
    Gone(Arc<Pod>),
    /// Who answers at an end; nobody that is certain.
    End(End, Option<Arc<Service>>),
}

/// A running watch; it ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    /// How it stands.
    pub state: Arc<State>,
    pub(super) reach: Reach,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

/// Starts to watch; must be called within a tokio runtime. What is heard is to be given to
/// [`Resolver::watch`](crate::identity::Resolver::watch).
#[must_use]
pub fn start(settings: Settings, meter: Arc<Meter>) -> (Watch, Receiver<Change>) {
    let (to, changes) = channel(CHANGES);
    let state = Arc::new(State::of(&settings.node));
    state.watched(Kind::Nodes, settings.cluster);
    let reach = settings.reach.clone();
    let task = tokio::spawn(run(settings, meter, Arc::clone(&state), to));
    (Watch { state, reach, tasks: vec![task] }, changes)
}

enum Heard {
    Pod(Event<PodDocument>),
    Service(Event<ServiceDocument>),
    Slice(Event<SliceDocument>),
    Node(Event<NodeDocument>),
}

async fn run(settings: Settings, meter: Arc<Meter>, state: Arc<State>, to: Sender<Change>) {
    let mut pause = Pause::default();
    let client = loop {
        match reach::client(&settings.reach).await {
            Ok(client) => break client,
            Err(trouble) => {
                for kind in [Kind::Pods, Kind::Services, Kind::EndpointSlices] {
                    state.trouble(kind, &trouble);
                }
                pause.wait().await;
            }
        }
    };
    let (tell, mut heard) = channel(HEARD);
    let pods = Follow {
        kind: Kind::Pods,
        api: Api::all(client.clone()),
        fields: (!settings.cluster).then(|| format!("spec.nodeName={}", settings.node)),
        page: POD_PAGE,
        state: Arc::clone(&state),
    };
    let services = Follow {
        kind: Kind::Services,
        api: Api::all(client.clone()),
        fields: None,
        page: PAGE,
        state: Arc::clone(&state),
    };
    let slices = Follow {
        kind: Kind::EndpointSlices,
        api: Api::all(client.clone()),
        fields: None,
        page: PAGE,
        state: Arc::clone(&state),
    };
    let nodes = settings.cluster.then(|| Follow {
        kind: Kind::Nodes,
        api: Api::all(client.clone()),
        fields: None,
        page: PAGE,
        state: Arc::clone(&state),
    });
    let follow = async {
        let nodes = async {
            match nodes {
                Some(nodes) => nodes.run(tell.clone(), Heard::Node).await,
                None => pending().await,
            }
        };
        tokio::join!(
            pods.run(tell.clone(), Heard::Pod),
            services.run(tell.clone(), Heard::Service),
            slices.run(tell.clone(), Heard::Slice),
            nodes
        )
    };
    let mut hearing = Hearing {
        client,
        meter,
        state,
        to,
        cluster: settings.cluster,
        owners: Owners::default(),
        addresses: Addresses::default(),
        pods: HashMap::new(),
        strangers: HashSet::new(),
        sources: HashSet::new(),
        held: HashMap::new(),
        fresh: Kind::ALL.map(|_| HashSet::new()),
        nobody: Arc::new(Service::unknown()),
        listing: true,
    };
    let hear = async {
        while let Some(heard) = heard.recv().await {
            if hearing.take(heard).await.is_err() {
                break;
            }
        }
    };
    // Whichever ends first: both mean that nobody listens any more.
    tokio::select! {
        _ = follow => {}
        () = hear => {}
    }
}

/// What a source is one of.
fn kind_of(source: &Source) -> Kind {
    match source {
        Source::Pod(_) => Kind::Pods,
        Source::Service(_) => Kind::Services,
        Source::Slice(_) => Kind::EndpointSlices,
        Source::Node(_) => Kind::Nodes,
    }
}

/// Nobody takes changes any more.
struct Closed;

struct Hearing {
    client: Client,
    meter: Arc<Meter>,
    state: Arc<State>,
    to: Sender<Change>,
    /// Pods elsewhere are told, too.
    cluster: bool,
    owners: Owners,
    addresses: Addresses,
    /// By uid.
    pods: HashMap<Arc<str>, Arc<Pod>>,
    /// Pods elsewhere, by uid.
    strangers: HashSet<Arc<str>>,
    /// Services, slices and nodes that are known.
    sources: HashSet<Source>,
    /// How many of each kind.
    held: HashMap<usize, usize>,
    /// What the list that is running has told so far, by kind.
    fresh: [HashSet<Source>; 5],
    nobody: Arc<Service>,
    /// A list of pods is running: what is told of them all comes with its end.
    listing: bool,
}

impl Hearing {
    async fn take(&mut self, heard: Heard) -> Result<(), Closed> {
        match heard {
            Heard::Pod(Event::Here(document)) => self.pod(document).await,
            Heard::Pod(Event::Gone(document)) => self.no_pod(document.metadata.uid.as_deref().unwrap_or("")).await,
            Heard::Service(Event::Here(document)) => self.source(Kind::Services, addresses::service(&document)).await,
            Heard::Service(Event::Gone(document)) => self.no_source(addresses::service(&document)).await,
            Heard::Slice(Event::Here(document)) => self.source(Kind::EndpointSlices, addresses::slice(&document)).await,
            Heard::Slice(Event::Gone(document)) => self.no_source(addresses::slice(&document)).await,
            Heard::Node(Event::Here(document)) => self.source(Kind::Nodes, addresses::node(&document)).await,
            Heard::Node(Event::Gone(document)) => self.no_source(addresses::node(&document)).await,
            Heard::Node(Event::Begin) => self.begin(Kind::Nodes),
            Heard::Node(Event::End) => self.end(Kind::Nodes).await,
            Heard::Pod(Event::Begin) => self.begin(Kind::Pods),
            Heard::Service(Event::Begin) => self.begin(Kind::Services),
            Heard::Slice(Event::Begin) => self.begin(Kind::EndpointSlices),
            Heard::Pod(Event::End) => self.end(Kind::Pods).await,
            Heard::Service(Event::End) => self.end(Kind::Services).await,
            Heard::Slice(Event::End) => self.end(Kind::EndpointSlices).await,
        }
    }

    async fn tell(&self, change: Change) -> Result<(), Closed> {
        self.to.send(change).await.map_err(|_| Closed)
    }

    #[allow(clippy::unnecessary_wraps, reason = "one of the answers of `take`")]
    fn begin(&mut self, kind: Kind) -> Result<(), Closed> {
        if let Some(fresh) = self.fresh.get_mut(kind as usize) {
            fresh.clear();
        }
        self.listing |= kind == Kind::Pods;
        Ok(())
    }

    /// A list is complete: forgets what was not in it.
    async fn end(&mut self, kind: Kind) -> Result<(), Closed> {
        let fresh = self.fresh.get_mut(kind as usize).map(std::mem::take).unwrap_or_default();
        if kind == Kind::Pods {
            self.listing = true;
            let gone = self.pods.keys().chain(&self.strangers);
            let gone = gone.filter(|uid| !fresh.contains(&Source::Pod(Arc::clone(uid))));
            for uid in gone.cloned().collect::<Vec<_>>() {
                self.no_pod(&uid).await?;
            }
            self.listing = false;
            self.tell_local();
            if self.pods.is_empty() {
                let node = &self.state.node;
                tracing::warn!(node, "no pod is on a node of this name; if that is wrong, set kubernetes.node");
            }
            return Ok(());
        }
        let known = self.sources.iter().filter(|source| !fresh.contains(*source));
        let of_kind = known.filter(|source| kind_of(source) == kind);
        for source in of_kind.cloned().collect::<Vec<_>>() {
            self.drop_source(&source).await?;
        }
        Ok(())
    }

    /// Tells which namespaces have a pod on this node.
    fn tell_local(&self) {
        let namespaces: BTreeSet<Arc<str>> =
            self.pods.values().filter_map(|pod| pod.k8s_namespace().cloned()).collect();
        self.state.set_local(namespaces);
    }

    fn seen(&mut self, kind: Kind, source: Source) {
        if let Some(fresh) = self.fresh.get_mut(kind as usize)
            && fresh.len() < OBJECTS + STRANGERS
        {
            fresh.insert(source);
        }
    }

    /// A pod of another node: who answers at its addresses. Its owner's owner is not asked for.
    async fn stranger(&mut self, document: &PodDocument) -> Result<(), Closed> {
        let Some(pod) = Pod::of(document, &self.owners, &mut 0) else { return Ok(()) };
        let source = Source::Pod(pod.uid.clone());
        self.seen(Kind::Pods, source.clone());
        if self.strangers.len() >= STRANGERS && !self.strangers.contains(&pod.uid) {
            self.meter.add(Count::EvictedKubernetes, 1);
            return Ok(());
        }
        self.strangers.insert(pod.uid.clone());
        self.holds_pods();
        let ends: Vec<End> = pod.addresses.iter().map(|&ip| End { ip, port: None }).collect();
        self.claim(&source, ends, &Arc::new(pod.service())).await
    }

    fn holds_pods(&self) {
        self.state.holds(Kind::Pods, self.pods.len() + self.strangers.len());
    }

    async fn pod(&mut self, document: PodDocument) -> Result<(), Closed> {
        if self.cluster && document.spec.node_name.as_deref() != Some(self.state.node.as_str()) {
            return self.stranger(&document).await;
        }
        if let Some(owner) = self.owners.unknown(&document.metadata) {
            self.ask(&document.metadata, owner).await;
        }
        let mut refused = 0;
        let pod = Pod::of(&document, &self.owners, &mut refused);
        // What a document takes is freed before the next one comes.
        drop(document);
        self.meter.add(Count::RefusedAnnotation, refused);
        let Some(pod) = pod else { return Ok(()) };
        self.seen(Kind::Pods, Source::Pod(pod.uid.clone()));
        let known = self.pods.get(&pod.uid);
        if known.is_some_and(|known| **known == pod) {
            return Ok(());
        }
        if known.is_none() && self.pods.len() >= PODS {
            self.meter.add(Count::EvictedKubernetes, 1);
            return Ok(());
        }
        let pod = Arc::new(pod);
        let ends = pod.addresses.iter().map(|&ip| End { ip, port: None }).collect();
        self.pods.insert(pod.uid.clone(), Arc::clone(&pod));
        self.holds_pods();
        if !self.listing {
            self.tell_local();
        }
        self.tell(Change::Pod(Arc::clone(&pod))).await?;
        self.claim(&Source::Pod(pod.uid.clone()), ends, &Arc::new(pod.service())).await
    }

    async fn no_pod(&mut self, uid: &str) -> Result<(), Closed> {
        if let Some(stranger) = self.strangers.take(uid) {
            self.holds_pods();
            let nobody = Arc::clone(&self.nobody);
            return self.claim(&Source::Pod(stranger), Vec::new(), &nobody).await;
        }
        let Some(pod) = self.pods.remove(uid) else { return Ok(()) };
        self.holds_pods();
        if !self.listing {
            self.tell_local();
        }
        let nobody = Arc::clone(&self.nobody);
        self.claim(&Source::Pod(pod.uid.clone()), Vec::new(), &nobody).await?;
        self.tell(Change::Gone(pod)).await
    }

    async fn source(&mut self, kind: Kind, told: Option<(Source, Vec<End>, Arc<Service>)>) -> Result<(), Closed> {
        let Some((source, ends, service)) = told else { return Ok(()) };
        self.seen(kind, source.clone());
        if !self.sources.contains(&source) {
            let held = self.held.entry(kind as usize).or_default();
            if *held >= OBJECTS {
                self.meter.add(Count::EvictedKubernetes, 1);
                return Ok(());
            }
            *held += 1;
            self.state.holds(kind, *held);
            self.sources.insert(source.clone());
        }
        self.claim(&source, ends, &service).await
    }

    async fn no_source(&mut self, told: Option<(Source, Vec<End>, Arc<Service>)>) -> Result<(), Closed> {
        let Some((source, ..)) = told else { return Ok(()) };
        self.drop_source(&source).await
    }

    async fn drop_source(&mut self, source: &Source) -> Result<(), Closed> {
        if self.sources.remove(source) {
            let kind = kind_of(source);
            let held = self.held.entry(kind as usize).or_default();
            *held = held.saturating_sub(1);
            self.state.holds(kind, *held);
        }
        let nobody = Arc::clone(&self.nobody);
        self.claim(source, Vec::new(), &nobody).await
    }

    async fn claim(&mut self, source: &Source, ends: Vec<End>, service: &Arc<Service>) -> Result<(), Closed> {
        let mut full = 0;
        self.state.shares(source, &ends);
        let touched = self.addresses.claim(source, ends, service, &mut full);
        self.meter.add(Count::EvictedKubernetes, full);
        for end in touched {
            self.tell(Change::End(end, self.addresses.at(end))).await?;
        }
        Ok(())
    }

    /// Asks for the metadata of a pod's owner; one that may not be asked for stands for itself.
    async fn ask(&mut self, pod: &ObjectMeta, owner: Owner) {
        let (Some(uid), Some(namespace)) = (owner.uid.clone(), pod.namespace.as_deref()) else { return };
        let client = self.client.clone();
        let asked = async {
            match owner.kind {
                owner::Kind::Job => Api::<Job>::namespaced(client, namespace)
                    .get_metadata_opt(&owner.name)
                    .await
                    .map(|it| it.map(|it| it.metadata)),
                _ => Api::<ReplicaSet>::namespaced(client, namespace)
                    .get_metadata_opt(&owner.name)
                    .await
                    .map(|it| it.map(|it| it.metadata)),
            }
        };
        match timeout(OWNER, asked).await {
            // Another one of the same name would be no answer.
            Ok(Ok(meta)) => {
                let meta = meta.filter(|meta| meta.uid.as_deref() == Some(&*uid));
                self.owners.learn(uid, meta.as_ref().and_then(Owner::controlling));
            }
            Ok(Err(Error::Api(status))) if matches!(status.code, 401 | 403) => {
                tracing::debug!(owner = %owner.name, why = %status.message, "the owner of an owner is not told");
                self.owners.learn(uid, None);
            }
            // Asked again with the pod's next change.
            Ok(Err(_)) | Err(_) => {}
        }
    }
}
