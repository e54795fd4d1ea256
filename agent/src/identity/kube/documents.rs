//! The API server's documents, as little as is read of them. Everything may be missing; what is not listed is skipped.

use std::borrow::Cow;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use serde::Deserialize;

/// `v1.Pod`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodDocument {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: PodSpec,
    pub(super) status: PodStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodSpec {
    pub(super) node_name: Option<String>,
    pub(super) host_network: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct PodStatus {
    pub(super) phase: Option<String>,
    #[serde(rename = "podIPs")]
    pub(super) pod_ips: Vec<PodIp>,
    #[serde(rename = "podIP")]
    pub(super) pod_ip: Option<String>,
    pub(super) container_statuses: Vec<ContainerStatus>,
    pub(super) init_container_statuses: Vec<ContainerStatus>,
    pub(super) ephemeral_container_statuses: Vec<ContainerStatus>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct PodIp {
    pub(super) ip: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ContainerStatus {
    pub(super) name: String,
    /// `containerd://<64 hex>`.
    #[serde(rename = "containerID")]
    pub(super) container_id: Option<String>,
}

/// `v1.Service`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct ServiceDocument {
    pub(super) metadata: ObjectMeta,
    pub(super) spec: ServiceSpec,
    pub(super) status: ServiceStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<String>,
    #[serde(rename = "clusterIPs")]
    pub(super) cluster_ips: Vec<String>,
    #[serde(rename = "externalIPs")]
    pub(super) external_ips: Vec<String>,
    pub(super) ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceStatus {
    pub(super) load_balancer: LoadBalancer,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LoadBalancer {
    pub(super) ingress: Vec<PodIp>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Port {
    pub(super) port: Option<u16>,
    pub(super) protocol: Option<String>,
}

impl Port {
    /// The port, where it is one of TCP.
    pub(super) fn tcp(&self) -> Option<u16> {
        self.port.filter(|_| self.protocol.as_deref().is_none_or(|protocol| protocol == "TCP"))
    }
}

/// `v1.Node`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeDocument {
    pub(super) metadata: ObjectMeta,
    pub(super) status: NodeStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeStatus {
    #[serde(deserialize_with = "or_default")]
    pub(super) addresses: Vec<NodeAddress>,
}

/// An address, or a name, which is none.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NodeAddress {
    pub(super) address: String,
}

/// `discovery.k8s.io/v1.EndpointSlice`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct SliceDocument {
    pub(super) metadata: ObjectMeta,
    #[serde(deserialize_with = "or_default")]
    pub(super) endpoints: Vec<Endpoint>,
    #[serde(deserialize_with = "or_default")]
    pub(super) ports: Vec<Port>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) addresses: Vec<String>,
}

/// The API server writes `null` for a list that has nothing in it.
fn or_default<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

macro_rules! resource {
    ($document:ty, $kind:literal, $group:literal, $plural:literal) => {
        impl Resource for $document {
            type DynamicType = ();
            type Scope = NamespaceResourceScope;

            fn kind((): &()) -> Cow<'_, str> {
                $kind.into()
            }

            fn group((): &()) -> Cow<'_, str> {
                $group.into()
            }

            fn version((): &()) -> Cow<'_, str> {
                "v1".into()
            }

            fn plural((): &()) -> Cow<'_, str> {
                $plural.into()
            }

            fn meta(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn meta_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

resource!(PodDocument, "Pod", "", "pods");
resource!(ServiceDocument, "Service", "", "services");
resource!(NodeDocument, "Node", "", "nodes");
resource!(SliceDocument, "EndpointSlice", "discovery.k8s.io", "endpointslices");
