//! What runs in a pod is named after what its user wrote: annotation, label, workload, pod.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use weir_tests::cluster::Cluster;
use weir_tests::wait;

use crate::stage::{ARRIVE, NODE, Resident, agent, id, ignored, is, row, stands};

fn owner(version: &str, kind: &str, name: &str, uid: &str) -> Value {
    json!([{ "apiVersion": version, "kind": kind, "name": name, "uid": uid, "controller": true }])
}

const OWNER: &str = "7f6f3c1e-2222-4333-8444-555566667777";

/// A pod on this node with one process; what it must be.
struct Case {
    meta: Value,
    variables: &'static [(&'static str, &'static str)],
    name: &'static str,
    by: &'static str,
    more: Vec<(&'static str, String)>,
}

fn cases(job: &str) -> Vec<Case> {
    let said = |pairs: &[(&'static str, &str)]| pairs.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
    let set = [("k8s.replicaset.name", "web-5d9f"), ("k8s.replicaset.uid", OWNER), ("k8s.deployment.name", "web")];
    let replica_set = owner("apps/v1", "ReplicaSet", "web-5d9f", OWNER);
    let hash = json!({ "pod-template-hash": "5d9f" });
    let case = |meta: Value, name, by, more: &[(&'static str, &str)]| Case {
        meta,
        variables: &[],
        name,
        by,
        more: said(more),
    };
    let by_owner = |kind: &str, name: &str| json!({ "name": format!("{name}-0"), "ownerReferences": owner("apps/v1", kind, name, OWNER) });
    vec![
        case(json!({ "name": "web-5d9f-a", "labels": hash, "ownerReferences": replica_set }), "web", "workload", &set),
        case(
            by_owner("StatefulSet", "db"),
            "db",
            "workload",
            &[("k8s.statefulset.name", "db"), ("k8s.statefulset.uid", OWNER)],
        ),
        case(
            by_owner("DaemonSet", "logs"),
            "logs",
            "workload",
            &[("k8s.daemonset.name", "logs"), ("k8s.daemonset.uid", OWNER)],
        ),
        case(
            json!({ "name": "nightly-29351220-x", "ownerReferences": owner("batch/v1", "Job", "nightly-29351220", job) }),
            "nightly",
            "workload",
            &[
                ("k8s.job.name", "nightly-29351220"),
                ("k8s.job.uid", job),
                ("k8s.cronjob.name", "nightly"),
                ("k8s.cronjob.uid", OWNER),
            ],
        ),
        case(json!({ "name": "bare" }), "bare", "workload", &[]),
        case(
            json!({ "name": "named", "labels": { "app.kubernetes.io/name": "mail", "app.kubernetes.io/version": "1.2" } }),
            "mail",
            "pod label",
            &[("service.version", "1.2")],
        ),
        case(
            json!({ "name": "instance", "labels": { "app.kubernetes.io/name": "mail", "app.kubernetes.io/instance": "mail-eu" } }),
            "mail-eu",
            "pod label",
            &[],
        ),
        case(
            json!({ "name": "annotated", "labels": { "app.kubernetes.io/name": "mail" }, "annotations": {
                "resource.opentelemetry.io/service.name": "post", "resource.opentelemetry.io/service.version": "3",
                "resource.opentelemetry.io/team": "blue",
            } }),
            "post",
            "pod annotation",
            &[("service.version", "3"), ("team", "blue")],
        ),
        Case {
            variables: &[("OTEL_SERVICE_NAME", "own"), ("OTEL_RESOURCE_ATTRIBUTES", "k8s.pod.name=liar,team=red")],
            ..case(
                json!({ "name": "says-so-itself", "annotations": { "resource.opentelemetry.io/team": "blue" } }),
                "own",
                "OTEL_SERVICE_NAME",
                &[("team", "red")],
            )
        },
    ]
}

/// Every way to a name, with all `k8s.*` attributes and no others; half of the pods are told after their processes
/// were named without.
#[test]
fn pods_are_named_to_the_letter() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    let template = json!({ "spec": { "restartPolicy": "Never", "containers": [{ "name": "c", "image": "x" }] } });
    let job = cluster.make(
        "/apis/batch/v1/namespaces/shop/jobs",
        &json!({ "apiVersion": "batch/v1", "kind": "Job", "spec": { "template": template }, "metadata": {
            "name": "nightly-29351220", "ownerReferences": owner("batch/v1", "CronJob", "nightly", OWNER),
        } }),
    )?;
    let job = job["metadata"]["uid"].as_str().context("no uid")?;
    let agent = agent(&cluster, &[])?;
    stands(&agent, "ok")?;
    for (case, digit) in cases(job).iter().zip('1'..='9') {
        let container = id(digit);
        let ip = format!("10.78.0.1{digit}");
        let uid = cluster.pod("shop", &case.meta, &json!({ "nodeName": NODE }), &ip, ("app", &container))?;
        let resident = Resident::start_with(&uid, &container, case.variables)?;
        let pod = case.meta["name"].as_str().context("no name")?;
        let mut attributes = vec![
            ("service.namespace", "shop"),
            ("container.id", &container),
            ("k8s.container.name", "app"),
            ("k8s.namespace.name", "shop"),
            ("k8s.node.name", NODE),
            ("k8s.pod.name", pod),
            ("k8s.pod.uid", &uid),
        ];
        attributes.extend(case.more.iter().map(|(key, value)| (*key, value.as_str())));
        is(&agent, &resident, case.name, case.by, &attributes).with_context(|| pod.to_owned())?;
    }
    agent.finish()
}

/// A process is named after its script until the API server tells its pod, and anew when the pod is changed; each time
/// it is listed once.
#[test]
fn what_is_told_late_or_changed_is_taken() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    let pods = "/api/v1/namespaces/shop/pods";
    let uid = cluster.pod(
        "shop",
        &json!({ "name": "elsewhere" }),
        &json!({ "nodeName": "node-b" }),
        "10.78.1.1",
        ("app", &id('a')),
    )?;
    let agent = agent(&cluster, &[])?;
    stands(&agent, "ok")?;
    // A pod of another node is not watched: its uid alone is known here.
    let stranger = Resident::start(&uid, &id('a'))?;
    is(&agent, &stranger, "resident", "script", &[("container.id", &id('a')), ("k8s.pod.uid", &uid)])?;
    let uid = cluster.pod(
        "shop",
        &json!({ "name": "late" }),
        &json!({ "nodeName": NODE }),
        "10.78.0.9",
        ("app", &id('b')),
    )?;
    let late = Resident::start(&uid, &id('b'))?;
    let container = id('b');
    let mut attributes = vec![
        ("service.namespace", "shop"),
        ("container.id", &container),
        ("k8s.container.name", "app"),
        ("k8s.namespace.name", "shop"),
        ("k8s.node.name", NODE),
        ("k8s.pod.name", "late"),
        ("k8s.pod.uid", &uid),
    ];
    is(&agent, &late, "late", "workload", &attributes)?;
    cluster
        .patch(&format!("{pods}/late"), &json!({ "metadata": { "labels": { "app.kubernetes.io/name": "second" } } }))?;
    is(&agent, &late, "second", "pod label", &attributes)?;
    // A container that is started anew in the same pod.
    let status = json!({ "status": { "containerStatuses": [{
        "name": "other", "image": "x", "imageID": "", "ready": true, "restartCount": 1,
        "containerID": format!("containerd://{container}"),
    }] } });
    cluster.patch(&format!("{pods}/late/status"), &status)?;
    attributes[2].1 = "other";
    is(&agent, &late, "second", "pod label", &attributes)?;
    // A pod that is gone keeps the name that its last records need.
    cluster.delete(&format!("{pods}/late"))?;
    wait::until(ARRIVE, "the pod to go", || {
        Ok(crate::stage::doctor(&agent, "pods")?.1.starts_with("0 known").then_some(()))
    })?;
    is(&agent, &late, "second", "pod label", &attributes)?;
    agent.finish()
}

/// What users write may be long, and hold what would change a terminal.
#[test]
fn hostile_annotations_are_harmless() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    let mut annotations = json!({
        "resource.opentelemetry.io/service.name": "evil\n\u{1b}[2J\u{202e}",
        "resource.opentelemetry.io/long": "x".repeat(300),
        "example.org/blob": "x".repeat(200_000),
    });
    for n in 0..40 {
        annotations[format!("resource.opentelemetry.io/z{n:02}")] = "v".into();
    }
    let meta = json!({ "name": "hostile", "annotations": annotations });
    let uid = cluster.pod("shop", &meta, &json!({ "nodeName": NODE }), "10.78.0.9", ("app", &id('c')))?;
    let agent = agent(&cluster, &[])?;
    stands(&agent, "ok")?;
    let resident = Resident::start(&uid, &id('c'))?;
    resident.ask(2)?;
    let found = wait::until(ARRIVE, "the row", || row(&agent, resident.process.pid()))?;
    ensure!(found["service"]["service.name"] == "evil\u{fffd}\u{fffd}[2J\u{202e}", "{found}");
    let said = found["service"].as_object().context("no service")?.keys().filter(|key| key.starts_with('z')).count();
    ensure!(said == 31, "{said} attributes");
    let refused = ignored(&agent, "unusable_annotation")?;
    // The long one and nine that are too many, each time that the pod's document comes: at least once.
    ensure!(refused >= 10 && refused.is_multiple_of(10), "{refused} were refused");
    let shown = agent.say(&["services"])?;
    ensure!(!shown.out.contains('\u{1b}'), "{}", shown.out);
    agent.finish()
}
