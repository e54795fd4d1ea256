//! Pods as Kubernetes' own controllers make them.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use weir_tests::cluster::Cluster;
use weir_tests::wait;

use crate::stage::{NODE, Resident, agent, doctor, id, is, stands};

/// Until a controller must have made a pod.
const MADE: Duration = Duration::from_secs(30);

/// The pod with this label, once it is there: put on this node, and running.
fn placed(cluster: &Cluster, app: &str, ip: &str, container: &str) -> Result<Value> {
    let all = "/api/v1/namespaces/shop/pods";
    let pod = wait::until(MADE, &format!("a pod of {app}"), || {
        let list = cluster.get(&format!("{all}?labelSelector=app%3D{app}"))?;
        Ok(list["items"].as_array().and_then(|items| items.first()).cloned())
    })?;
    let name = pod["metadata"]["name"].as_str().context("no name")?;
    let target = json!({ "apiVersion": "v1", "kind": "Node", "name": NODE });
    let binding = json!({ "apiVersion": "v1", "kind": "Binding", "metadata": { "name": name }, "target": target });
    cluster.make(&format!("{all}/{name}/binding"), &binding)?;
    cluster.run("shop", name, ip, ("app", container))?;
    Ok(pod)
}

/// Deployment, `StatefulSet`, and a Job made from a `CronJob`: names, uids and nothing else, and the endpoints of a Service.
#[test]
fn chains_of_real_controllers_are_followed() -> Result<()> {
    let cluster = Cluster::start()?;
    cluster.namespace("shop")?;
    cluster.make("/api/v1/nodes", &json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": NODE } }))?;
    let controllers = cluster.controllers()?;
    let template = |app: &str, restart: &str| {
        json!({ "metadata": { "labels": { "app": app } }, "spec": {
            "restartPolicy": restart, "automountServiceAccountToken": false,
            "containers": [{ "name": "app", "image": "local/test:1" }],
        } })
    };
    let set = |kind: &str, app: &str| {
        json!({ "apiVersion": "apps/v1", "kind": kind, "metadata": { "name": app }, "spec": {
            "replicas": 1, "selector": { "matchLabels": { "app": app } }, "template": template(app, "Always"),
        } })
    };
    cluster.make("/apis/apps/v1/namespaces/shop/deployments", &set("Deployment", "web"))?;
    cluster.make("/apis/apps/v1/namespaces/shop/statefulsets", &set("StatefulSet", "db"))?;
    let cron = json!({ "apiVersion": "batch/v1", "kind": "CronJob", "metadata": { "name": "nightly" }, "spec": {
        "schedule": "0 0 1 1 *", "jobTemplate": { "spec": { "template": template("nightly", "Never") } },
    } });
    cluster.make("/apis/batch/v1/namespaces/shop/cronjobs", &cron)?;
    cluster.kubectl(&["--namespace", "shop", "create", "job", "nightly-now", "--from=cronjob/nightly"])?;
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "front" }, "spec": {
        "selector": { "app": "web" }, "ports": [{ "port": 80, "targetPort": 8080 }],
    } });
    cluster.make("/api/v1/namespaces/shop/services", &service)?;
    let agent = agent(&cluster, &[])?;
    stands(&agent, "ok")?;
    for (app, digit, owners) in [
        ("web", '1', vec![("replicaset", "/apis/apps/v1/namespaces/shop/replicasets")]),
        ("db", '2', vec![("statefulset", "/apis/apps/v1/namespaces/shop/statefulsets")]),
        (
            "nightly",
            '3',
            vec![
                ("job", "/apis/batch/v1/namespaces/shop/jobs"),
                ("cronjob", "/apis/batch/v1/namespaces/shop/cronjobs"),
            ],
        ),
    ] {
        let container = id(digit);
        let pod = placed(&cluster, app, &format!("10.78.0.2{digit}"), &container)
            .with_context(|| controllers.output().unwrap_or_default())?;
        let text = |key: &str| pod["metadata"][key].as_str().unwrap_or_default().to_owned();
        let mut attributes: Vec<(String, String)> = [
            ("service.namespace", "shop"),
            ("container.id", &container),
            ("k8s.container.name", "app"),
            ("k8s.namespace.name", "shop"),
            ("k8s.node.name", NODE),
            ("k8s.pod.name", &text("name")),
            ("k8s.pod.uid", &text("uid")),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
        for (kind, path) in owners {
            let list = cluster.get(path)?;
            let object = list["items"].get(0).with_context(|| format!("no {kind}"))?;
            for key in ["name", "uid"] {
                let value = object["metadata"][key].as_str().context("no such field")?;
                attributes.push((format!("k8s.{kind}.{key}"), value.to_owned()));
            }
        }
        if app == "web" {
            attributes.push(("k8s.deployment.name".to_owned(), "web".to_owned()));
        }
        let resident = Resident::start(&text("uid"), &container)?;
        let attributes: Vec<(&str, &str)> = attributes.iter().map(|(key, value)| (&**key, &**value)).collect();
        is(&agent, &resident, app, "workload", &attributes)?;
    }
    let known = |kind: &str| -> Result<String> { Ok(doctor(&agent, kind)?.1) };
    wait::until(MADE, "the endpoints", || Ok((known("endpointslices")? == "1 known").then_some(())))
        .with_context(|| known("endpointslices").unwrap_or_default())?;
    anyhow::ensure!(known("pods")? == "3 known", "{}", known("pods")?);
    drop(controllers);
    // The controllers' and the store's own streams of megabytes are not the matter here: the ledger balances, and says
    // what of them was left out.
    agent.stop_lossy()
}
