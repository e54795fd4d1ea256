#![cfg(test)]

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Value, json};
use tokio::sync::mpsc::channel;

use super::addresses::{self, Addresses, Source, address};
use super::book::{Book, End};
use super::documents::{PodDocument, ServiceDocument, SliceDocument};
use super::owner::{Kind, Owner, Owners};
use super::pod::Pod;
use super::watch::Change;
use crate::model::{Evidence, Service};

fn document(meta: &Value, spec: &Value, status: &Value) -> PodDocument {
    let mut whole = json!({ "kind": "Pod", "metadata": meta, "spec": spec, "status": status });
    let meta = whole["metadata"].as_object_mut().unwrap();
    for (key, value) in
        [("namespace", "shop"), ("name", "web-5d9f-x2x"), ("uid", "0f4d9a54-1d0c-4a0e-9a53-6b2f1b7c8d9e")]
    {
        meta.entry(key).or_insert_with(|| value.into());
    }
    serde_json::from_value(whole).unwrap()
}

fn owner(version: &str, kind: &str, name: &str) -> Value {
    json!([{ "apiVersion": version, "kind": kind, "name": name, "uid": format!("uid-of-{name}"), "controller": true }])
}

fn pod(meta: &Value) -> Pod {
    Pod::of(&document(meta, &json!({}), &json!({})), &Owners::default(), &mut 0).unwrap()
}

fn named(pod: &Pod) -> (&str, Evidence) {
    (&pod.name, pod.evidence)
}

fn attribute<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.attributes.iter().find(|(name, _)| &**name == key).map(|(_, value)| &**value)
}

#[test]
fn a_pod_is_named_by_annotation_label_owner_and_itself_in_this_order() {
    let deployment = owner("apps/v1", "ReplicaSet", "web-5d9f");
    let labels = json!({
        "pod-template-hash": "5d9f", "app.kubernetes.io/instance": "shop-eu", "app.kubernetes.io/name": "shop",
        "app.kubernetes.io/version": "1.2",
    });
    let mut meta = json!({
        "ownerReferences": deployment, "labels": labels,
        "annotations": {
            "resource.opentelemetry.io/service.name": "storefront", "resource.opentelemetry.io/service.namespace": "eu",
            "resource.opentelemetry.io/team": "blue", "other.io/service.name": "no",
        },
    });
    let annotated = pod(&meta);
    assert_eq!(named(&annotated), ("storefront", Evidence::PodAnnotation));
    assert_eq!(&*annotated.namespace, "eu");
    let said: Vec<_> = annotated.said.iter().map(|(key, value)| (&**key, &**value)).collect();
    assert_eq!(said, [("team", "blue"), ("service.version", "1.2")]);
    meta["annotations"] = Value::Null;
    let labelled = pod(&meta);
    assert_eq!((named(&labelled), &*labelled.namespace), (("shop-eu", Evidence::PodLabel), "shop"));
    meta["labels"].as_object_mut().unwrap().remove("app.kubernetes.io/instance");
    assert_eq!(named(&pod(&meta)), ("shop", Evidence::PodLabel));
    meta["labels"] = json!({ "pod-template-hash": "5d9f" });
    assert_eq!(named(&pod(&meta)), ("web", Evidence::Workload));
    meta["ownerReferences"] = Value::Null;
    assert_eq!(named(&pod(&meta)), ("web-5d9f-x2x", Evidence::Workload));
}

#[test]
fn owners_are_told_to_the_letter() {
    let told = |owners: Value, labels: Value| {
        let pod = pod(&json!({ "ownerReferences": owners, "labels": labels }));
        let list: Vec<_> = pod.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
        (pod.name.to_string(), list.into_iter().skip(3).collect::<Vec<_>>())
    };
    let hash = json!({ "pod-template-hash": "5d9f" });
    let (name, list) = told(owner("apps/v1", "ReplicaSet", "web-5d9f"), hash.clone());
    let expected = ["k8s.replicaset.name=web-5d9f", "k8s.replicaset.uid=uid-of-web-5d9f", "k8s.deployment.name=web"];
    assert_eq!((name.as_str(), list.as_slice()), ("web", expected.map(str::to_owned).as_slice()));
    for (kind, version, key) in
        [("StatefulSet", "apps/v1", "statefulset"), ("DaemonSet", "apps/v1", "daemonset"), ("Job", "batch/v1", "job")]
    {
        let (name, list) = told(owner(version, kind, "db"), Value::Null);
        assert_eq!(name, "db");
        assert_eq!(list, [format!("k8s.{key}.name=db"), format!("k8s.{key}.uid=uid-of-db")]);
    }
    // Somebody else's kind of the same name, an owner that does not control, a ReplicaSet of nobody.
    assert_eq!(told(owner("example.org/v1", "ReplicaSet", "web-5d9f"), hash.clone()).0, "web-5d9f-x2x");
    let mut guest = owner("apps/v1", "DaemonSet", "db");
    guest[0]["controller"] = false.into();
    assert_eq!(told(guest, Value::Null), ("web-5d9f-x2x".to_owned(), vec![]));
    assert_eq!(told(owner("apps/v1", "ReplicaSet", "alone"), hash).0, "alone");
}

#[test]
fn the_owner_of_an_owner_is_asked_for_once() {
    let meta = |owners: Value, labels: Value| -> ObjectMeta {
        serde_json::from_value(json!({ "ownerReferences": owners, "labels": labels, "namespace": "shop" })).unwrap()
    };
    let job = meta(owner("batch/v1", "Job", "nightly-29351220"), Value::Null);
    let mut owners = Owners::default();
    let unknown = owners.unknown(&job).unwrap();
    assert_eq!((unknown.kind, &*unknown.name), (Kind::Job, "nightly-29351220"));
    assert_eq!(&**owners.workload(&job).unwrap().name(), "nightly-29351220");
    let cron = Owner { kind: Kind::CronJob, name: "nightly".into(), uid: Some("c".into()) };
    owners.learn(unknown.uid.unwrap(), Some(cron));
    assert_eq!(owners.unknown(&job), None);
    assert_eq!(&**owners.workload(&job).unwrap().name(), "nightly");
    let hash = json!({ "pod-template-hash": "5d9f" });
    assert_eq!(owners.unknown(&meta(owner("apps/v1", "ReplicaSet", "web-5d9f"), hash)), None);
    let bare = meta(owner("apps/v1", "ReplicaSet", "web-5d9f"), Value::Null);
    owners.learn(owners.unknown(&bare).unwrap().uid.unwrap(), None);
    assert_eq!(owners.unknown(&bare), None);
    assert_eq!(owners.unknown(&meta(owner("apps/v1", "DaemonSet", "d"), Value::Null)), None);
}

#[test]
fn what_a_pod_says_is_bounded_and_harmless() {
    let mut annotations = serde_json::Map::new();
    annotations.insert("huge".to_owned(), "x".repeat(1 << 20).into());
    annotations.insert("resource.opentelemetry.io/service.name".to_owned(), "a\nb\u{1b}[31m".into());
    annotations.insert("resource.opentelemetry.io/long".to_owned(), "x".repeat(256).into());
    annotations.insert("resource.opentelemetry.io/".to_owned(), "no key".into());
    annotations.insert("resource.opentelemetry.io/empty".to_owned(), " ".into());
    for n in 0..40 {
        annotations.insert(format!("resource.opentelemetry.io/z{n:02}"), "v".into());
    }
    let mut refused = 0;
    let document = document(&json!({ "annotations": annotations }), &json!({}), &json!({}));
    let pod = Pod::of(&document, &Owners::default(), &mut refused).unwrap();
    assert_eq!(named(&pod), ("a\u{fffd}b\u{fffd}[31m", Evidence::PodAnnotation));
    // 31 of the 40 beside the name; the long one, the one without a key, the empty one and nine are refused.
    assert_eq!((pod.said.len(), refused), (31, 12));
    assert!(Pod::of(&PodDocument::default(), &Owners::default(), &mut refused).is_none());
}

#[test]
fn containers_and_addresses_are_read() {
    let status = json!({
        "phase": "Running", "podIP": "10.1.0.7", "podIPs": [{ "ip": "10.1.0.7" }, { "ip": "fd00::7" }],
        "containerStatuses": [
            { "name": "web", "containerID": "containerd://abc" }, { "name": "starting" },
            { "name": "odd", "containerID": "abc" },
        ],
        "initContainerStatuses": [{ "name": "migrate", "containerID": "cri-o://def" }],
    });
    let read = |spec: Value, status: &Value| {
        Pod::of(&document(&json!({}), &spec, status), &Owners::default(), &mut 0).unwrap()
    };
    let web = read(json!({ "nodeName": "n1" }), &status);
    assert_eq!(web.container("abc").map(|name| &**name), Some("web"));
    assert_eq!(web.container("def").map(|name| &**name), Some("migrate"));
    assert_eq!(web.containers.len(), 2);
    assert_eq!(attribute(&web, "k8s.node.name"), Some("n1"));
    let ips: Vec<IpAddr> = vec!["10.1.0.7".parse().unwrap(), "fd00::7".parse().unwrap()];
    assert_eq!(web.addresses, ips);
    assert_eq!(read(json!({ "hostNetwork": true }), &status).addresses, Vec::<IpAddr>::new());
    let mut ended = status.clone();
    ended["phase"] = "Succeeded".into();
    assert_eq!(read(json!({}), &ended).addresses, Vec::<IpAddr>::new());
    let bad = json!({ "podIP": "127.0.0.1", "podIPs": [{ "ip": "x" }, { "ip": "169.254.1.1" }, { "ip": "fe80::1" }] });
    assert_eq!(read(json!({}), &bad).addresses, Vec::<IpAddr>::new());
}

#[test]
fn a_static_pod_is_placed_by_its_files_hash() {
    let hash = "5f2c8a1e9b7d4036a1c2e3f405162738";
    let pod = pod(&json!({ "annotations": { "kubernetes.io/config.mirror": hash } }));
    assert_eq!((&*pod.place, attribute(&pod, "k8s.pod.uid")), (hash, Some("0f4d9a54-1d0c-4a0e-9a53-6b2f1b7c8d9e")));
}

fn service(name: &str) -> Arc<Service> {
    Arc::new(Service { name: name.into(), ..Service::unknown() })
}

fn end(text: &str) -> End {
    match text.parse::<SocketAddr>() {
        Ok(address) => End { ip: address.ip(), port: Some(address.port()) },
        Err(_) => End { ip: text.parse().unwrap(), port: None },
    }
}

#[test]
fn an_end_that_two_claim_names_nobody() {
    let mut table = Addresses::default();
    let source = |text: &str| Source::Slice(text.into());
    let claim = |table: &mut Addresses, by: &str, ends: &[&str], name: &str| {
        let ends = ends.iter().map(|text| end(text)).collect();
        table.claim(&source(by), ends, &service(name), &mut 0)
    };
    let name = |table: &Addresses, at: &str| table.at(end(at)).map(|service| service.name.to_string());
    assert_eq!(claim(&mut table, "a", &["10.0.0.1:80", "10.0.0.2:80", "10.0.0.1:80"], "shop").len(), 2);
    assert_eq!(name(&table, "10.0.0.1:80").as_deref(), Some("shop"));
    assert_eq!(name(&table, "10.0.0.1:81"), None);
    claim(&mut table, "b", &["10.0.0.1:80"], "shop");
    assert_eq!(name(&table, "10.0.0.1:80").as_deref(), Some("shop"));
    claim(&mut table, "b", &["10.0.0.1:80"], "canary");
    assert_eq!(name(&table, "10.0.0.1:80"), None);
    // What it claimed before, and no longer does, is told as well.
    assert_eq!(claim(&mut table, "b", &["10.0.0.9:80"], "canary"), [end("10.0.0.1:80"), end("10.0.0.9:80")]);
    assert_eq!(name(&table, "10.0.0.1:80").as_deref(), Some("shop"));
    table.claim(&Source::Pod("p".into()), vec![end("10.0.0.1:80")], &service("web"), &mut 0);
    assert_eq!(name(&table, "10.0.0.1:80").as_deref(), Some("web"));
    claim(&mut table, "a", &[], "");
    assert_eq!((name(&table, "10.0.0.2:80"), name(&table, "10.0.0.1:80").as_deref()), (None, Some("web")));
}

#[test]
fn the_table_of_addresses_is_bounded() {
    let mut table = Addresses::default();
    let mut full = 0;
    for slice in 0..20_u32 {
        let ends = (0..5000_u32)
            .map(|n| End { ip: IpAddr::from((0x0a00_0000 + slice * 5000 + n).to_be_bytes()), port: Some(80) });
        table.claim(&Source::Slice(slice.to_string().into()), ends.collect(), &service("s"), &mut full);
    }
    assert_eq!(full, 20 * 5000 - 64 * 1024);
    let touched = table.claim(&Source::Slice("0".into()), Vec::new(), &service("s"), &mut full);
    assert_eq!(touched.len(), 4096);
}

#[test]
fn services_and_slices_tell_where_they_are_reached() {
    let document: ServiceDocument = serde_json::from_value(json!({
        "metadata": { "namespace": "shop", "name": "web" },
        "spec": {
            "clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "externalIPs": ["203.0.113.5"],
            "ports": [{ "port": 80 }, { "port": 53, "protocol": "UDP" }, { "port": 443, "protocol": "TCP" }],
        },
        "status": { "loadBalancer": { "ingress": [{ "ip": "203.0.113.6" }, { "hostname": "x.example" }] } },
    }))
    .unwrap();
    let (source, mut ends, service) = addresses::service(&document).unwrap();
    ends.sort_unstable();
    ends.dedup();
    let expected = ["10.96.0.10", "203.0.113.5:80", "203.0.113.5:443", "203.0.113.6:80", "203.0.113.6:443"].map(end);
    assert_eq!((source, ends), (Source::Service("shop/web".into()), expected.to_vec()));
    assert_eq!((&*service.name, service.namespace.as_deref()), ("web", Some("shop")));
    assert_eq!(service.evidence, Evidence::KubernetesService);
    let headless: ServiceDocument = serde_json::from_value(
        json!({ "metadata": { "namespace": "shop", "name": "db" }, "spec": { "clusterIP": "None", "clusterIPs": ["None"] } }),
    )
    .unwrap();
    assert_eq!(addresses::service(&headless).unwrap().1, []);
    let mut slice = json!({
        "metadata": { "namespace": "shop", "name": "web-abc", "labels": { "kubernetes.io/service-name": "web" } },
        "addressType": "IPv4", "endpoints": [{ "addresses": ["10.1.0.7"] }, { "addresses": ["10.1.0.8"] }],
        "ports": [{ "port": 8080, "protocol": "TCP" }, { "port": 9000, "protocol": "UDP" }],
    });
    let read = |slice: &Value| addresses::slice(&serde_json::from_value::<SliceDocument>(slice.clone()).unwrap());
    let (_, ends, service) = read(&slice).unwrap();
    assert_eq!((ends, &*service.name), (["10.1.0.7:8080", "10.1.0.8:8080"].map(end).to_vec(), "web"));
    slice["endpoints"] = Value::Null;
    slice["ports"] = Value::Null;
    assert_eq!(read(&slice).unwrap().1, []);
    slice["metadata"]["labels"] = Value::Null;
    assert!(read(&slice).is_none());
}

#[test]
fn addresses_that_are_met_anywhere_are_refused() {
    for text in ["127.0.0.1", "::1", "0.0.0.0", "::", "169.254.0.1", "fe80::1", "224.0.0.1", "ff02::1", "None", "", "a"]
    {
        assert_eq!(address(text), None, "{text}");
    }
    assert_eq!(address("::ffff:10.1.0.7"), Some("10.1.0.7".parse().unwrap()));
}

#[test]
fn the_book_takes_what_has_come_and_forgets_the_gone_late() {
    const MINUTE: u64 = 60_000_000_000;
    let (to, news) = channel(64);
    let mut book = Book::of(news);
    assert_eq!(book.hear(1), Vec::<Arc<str>>::new());
    let web = Arc::new(pod(&json!({})));
    to.try_send(Change::Pod(web.clone())).unwrap();
    to.try_send(Change::End(end("10.1.0.7"), Some(service("web")))).unwrap();
    to.try_send(Change::End(end("10.96.0.10:80"), Some(service("svc")))).unwrap();
    assert_eq!(book.hear(2), std::slice::from_ref(&web.place));
    assert_eq!(book.pod(&web.place), Some(&web));
    let at = |book: &Book, text: &str, answers| {
        book.at(text.parse().unwrap(), answers).map(|service| service.name.to_string())
    };
    assert_eq!(at(&book, "10.1.0.7:40000", false).as_deref(), Some("web"));
    assert_eq!(at(&book, "[::ffff:10.1.0.7]:80", true).as_deref(), Some("web"));
    assert_eq!(at(&book, "10.96.0.10:80", true).as_deref(), Some("svc"));
    // A client's own port is no service's.
    assert_eq!(at(&book, "10.96.0.10:80", false), None);
    to.try_send(Change::Gone(web.clone())).unwrap();
    to.try_send(Change::End(end("10.1.0.7"), None)).unwrap();
    book.hear(MINUTE);
    assert_eq!((at(&book, "10.1.0.7:40000", false), book.pod(&web.place)), (None, Some(&web)));
    book.hear(2 * MINUTE + 1);
    assert_eq!(book.pod(&web.place), None);
    drop(to);
    assert_eq!(book.hear(3 * MINUTE), Vec::<Arc<str>>::new());
}
