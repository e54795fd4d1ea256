//! The task that hears what the API server tells, and makes changes of it.

use std::collections::{BTreeSet, HashMap, HashSet};
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
use super::documents::{PodDocument, ServiceDocument, SliceDocument};
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
const PODS: usize = 4096;
/// Most Services, and most `EndpointSlice`s.
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
    let reach = settings.reach.clone();
    let task = tokio::spawn(run(settings, meter, Arc::clone(&state), to));
    (Watch { state, reach, tasks: vec![task] }, changes)
}

enum Heard {
    Pod(Event<PodDocument>),
    Service(Event<ServiceDocument>),
    Slice(Event<SliceDocument>),
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
        fields: Some(format!("spec.nodeName={}", settings.node)),
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
    let follow = async {
        tokio::join!(
            pods.run(tell.clone(), Heard::Pod),
            services.run(tell.clone(), Heard::Service),
            slices.run(tell.clone(), Heard::Slice)
        )
    };
    let mut hearing = Hearing {
        client,
        meter,
        state,
        to,
        owners: Owners::default(),
        addresses: Addresses::default(),
        pods: HashMap::new(),
        sources: [HashSet::new(), HashSet::new()],
        fresh: [HashSet::new(), HashSet::new(), HashSet::new()],
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

/// Nobody takes changes any more.
struct Closed;

struct Hearing {
    client: Client,
    meter: Arc<Meter>,
    state: Arc<State>,
    to: Sender<Change>,
    owners: Owners,
    addresses: Addresses,
    /// By uid.
    pods: HashMap<Arc<str>, Arc<Pod>>,
    /// Services and slices that are known.
    sources: [HashSet<Source>; 2],
    /// What the list that is running has told so far, by kind.
    fresh: [HashSet<Source>; 3],
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
            let gone = self.pods.keys().filter(|uid| !fresh.contains(&Source::Pod(Arc::clone(uid))));
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
        let known = self.sources.iter().flatten().filter(|source| !fresh.contains(*source));
        let of_kind = known.filter(|source| matches!(source, Source::Service(_)) == (kind == Kind::Services));
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
            && fresh.len() < OBJECTS
        {
            fresh.insert(source);
        }
    }

    async fn pod(&mut self, document: PodDocument) -> Result<(), Closed> {
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
        self.state.holds(Kind::Pods, self.pods.len());
        if !self.listing {
            self.tell_local();
        }
        self.tell(Change::Pod(Arc::clone(&pod))).await?;
        self.claim(&Source::Pod(pod.uid.clone()), ends, &Arc::new(pod.service())).await
    }

    async fn no_pod(&mut self, uid: &str) -> Result<(), Closed> {
        let Some(pod) = self.pods.remove(uid) else { return Ok(()) };
        self.state.holds(Kind::Pods, self.pods.len());
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
        let Some(known) = self.sources.get_mut(usize::from(kind == Kind::EndpointSlices)) else { return Ok(()) };
        if known.len() >= OBJECTS && !known.contains(&source) {
            self.meter.add(Count::EvictedKubernetes, 1);
            return Ok(());
        }
        known.insert(source.clone());
        self.state.holds(kind, known.len());
        self.claim(&source, ends, &service).await
    }

    async fn no_source(&mut self, told: Option<(Source, Vec<End>, Arc<Service>)>) -> Result<(), Closed> {
        let Some((source, ..)) = told else { return Ok(()) };
        self.drop_source(&source).await
    }

    async fn drop_source(&mut self, source: &Source) -> Result<(), Closed> {
        let kind = if matches!(source, Source::Service(_)) { Kind::Services } else { Kind::EndpointSlices };
        if let Some(known) = self.sources.get_mut(usize::from(kind == Kind::EndpointSlices)) {
            known.remove(source);
            self.state.holds(kind, known.len());
        }
        let nobody = Arc::clone(&self.nobody);
        self.claim(source, Vec::new(), &nobody).await
    }

    async fn claim(&mut self, source: &Source, ends: Vec<End>, service: &Arc<Service>) -> Result<(), Closed> {
        let mut full = 0;
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
