//! Who answers under an address: pods, Services, what stands behind Services, and nodes.
//!
//! An address that two different ones claim names nobody.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::super::environ::clean;
use super::book::End;
use super::documents::{NodeDocument, ServiceDocument, SliceDocument};
use crate::model::{Evidence, Service};

/// Most ends that are known at once.
const ENDS: usize = 64 * 1024;
/// Most ends of one source: an `EndpointSlice` has at most 1000 endpoints.
const OF_ONE: usize = 4096;

/// An address that one machine has to itself; `None` for what may be met anywhere (loopback, link-local, multicast).
pub(super) fn address(text: &str) -> Option<IpAddr> {
    let ip = text.parse::<IpAddr>().ok()?.to_canonical();
    let shared = ip.is_loopback() || ip.is_unspecified() || ip.is_multicast();
    let local = match ip {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    (!shared && !local).then_some(ip)
}

/// Who claims an end. What stands first is nearer to the process that answers, and wins.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    /// A pod, by uid.
    Pod(Arc<str>),
    /// A Service, by namespace and name.
    Service(Arc<str>),
    /// An `EndpointSlice`, by namespace and name.
    Slice(Arc<str>),
    /// A node, by name: whoever shares its address.
    Node(Arc<str>),
}

impl Source {
    fn rank(&self) -> u8 {
        match self {
            Self::Pod(_) => 0,
            Self::Service(_) => 1,
            Self::Slice(_) => 2,
            Self::Node(_) => 3,
        }
    }
}

/// The claims.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    ends: HashMap<End, Vec<(Source, Arc<Service>)>>,
    sources: HashMap<Source, Vec<End>>,
}

impl Addresses {
    /// `source` claims `ends`, and no others, for `service`; no ends: it is gone. Gives the ends whose answer may be
    /// another now. Ends beyond the bound are left out and counted in `full`.
    pub(super) fn claim(
        &mut self,
        source: &Source,
        mut ends: Vec<End>,
        service: &Arc<Service>,
        full: &mut u64,
    ) -> Vec<End> {
        ends.sort_unstable();
        ends.dedup();
        let before = self.sources.remove(source).unwrap_or_default();
        for end in &before {
            if let Some(claims) = self.ends.get_mut(end) {
                claims.retain(|(by, _)| by != source);
                if claims.is_empty() {
                    self.ends.remove(end);
                }
            }
        }
        let room = ENDS.saturating_sub(self.ends.len()).min(OF_ONE);
        *full += ends.len().saturating_sub(room) as u64;
        ends.truncate(room);
        for end in &ends {
            self.ends.entry(*end).or_default().push((source.clone(), Arc::clone(service)));
        }
        let mut touched = before;
        touched.extend(&ends);
        touched.sort_unstable();
        touched.dedup();
        if !ends.is_empty() {
            self.sources.insert(source.clone(), ends);
        }
        touched
    }

    /// Who answers at an end, where that is certain.
    pub(super) fn at(&self, end: End) -> Option<Arc<Service>> {
        let claims = self.ends.get(&end)?;
        let rank = claims.iter().map(|(source, _)| source.rank()).min()?;
        let mut nearest = claims.iter().filter(|(source, _)| source.rank() == rank).map(|(_, service)| service);
        let first = nearest.next()?;
        nearest.all(|other| other.name == first.name && other.namespace == first.namespace).then(|| Arc::clone(first))
    }
}

/// A Service, and where it is reached: its cluster address whatever the port, addresses that it may share with others
/// at its own ports.
pub(super) fn service(document: &ServiceDocument) -> Option<(Source, Vec<End>, Arc<Service>)> {
    let meta = &document.metadata;
    let (namespace, name) = (meta.namespace.as_deref()?, meta.name.as_deref()?);
    let spec = &document.spec;
    let cluster = spec.cluster_ips.iter().chain(&spec.cluster_ip).filter_map(|text| address(text));
    let mut ends: Vec<End> = cluster.map(|ip| End { ip, port: None }).collect();
    let shared = spec.external_ips.iter().chain(document.status.load_balancer.ingress.iter().map(|it| &it.ip));
    for ip in shared.filter_map(|text| address(text)) {
        ends.extend(spec.ports.iter().filter_map(|port| Some(End { ip, port: Some(port.tcp()?) })));
    }
    Some((Source::Service(Arc::from(format!("{namespace}/{name}"))), ends, named(namespace, name)?))
}

/// The endpoints of a Service, each at its ports.
pub(super) fn slice(document: &SliceDocument) -> Option<(Source, Vec<End>, Arc<Service>)> {
    let meta = &document.metadata;
    let (namespace, name) = (meta.namespace.as_deref()?, meta.name.as_deref()?);
    let of = meta.labels.as_ref()?.get("kubernetes.io/service-name")?;
    let ports: Vec<u16> = document.ports.iter().filter_map(super::documents::Port::tcp).collect();
    let addresses = document.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let ends = addresses.filter_map(|text| address(text));
    let ends = ends.flat_map(|ip| ports.iter().map(move |&port| End { ip, port: Some(port) })).take(OF_ONE + 1);
    Some((Source::Slice(Arc::from(format!("{namespace}/{name}"))), ends.collect(), named(namespace, of)?))
}

/// A node, and its addresses.
pub(super) fn node(document: &NodeDocument) -> Option<(Source, Vec<End>, Arc<Service>)> {
    let name = clean(document.metadata.name.as_deref()?)?;
    let ends = document.status.addresses.iter().filter_map(|it| address(&it.address));
    let ends = ends.map(|ip| End { ip, port: None }).take(OF_ONE).collect();
    let attributes = vec![(Arc::from("k8s.node.name"), name.clone())];
    let service = Service { name: name.clone(), evidence: Evidence::KubernetesNode, attributes, ..Service::unknown() };
    Some((Source::Node(name), ends, Arc::new(service)))
}

fn named(namespace: &str, name: &str) -> Option<Arc<Service>> {
    let (namespace, name) = (clean(namespace)?, clean(name)?);
    let attributes =
        vec![(Arc::from("k8s.namespace.name"), namespace.clone()), (Arc::from("k8s.service.name"), name.clone())];
    Some(Arc::new(Service {
        name,
        namespace: Some(namespace),
        evidence: Evidence::KubernetesService,
        attributes,
        ..Service::unknown()
    }))
}
