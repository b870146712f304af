//! The chart on a node, by the real helm: installed for one namespace, upgraded, removed; the operator as Pods of its image.

use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};
use kube::{Api, api::ListParams};
use serde_json::json;

use crate::support::{Cluster, command, eventually};

const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/charts/seaworthy");

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installed_upgraded_and_removed() {
    let cluster = Cluster::shared().await;
    let image = std::env::var("SEAWORTHY_TEST_IMAGE").unwrap_or_default();
    if image.is_empty() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "there is no node or no image; run as root, through `make test`");
        eprintln!("not tested: the chart on a node needs root");
        return;
    }
    let (home, served) = (cluster.namespace("chart-home").await, cluster.namespace("chart-served").await);
    let kubeconfig = std::env::var("SEAWORTHY_TEST_KUBECONFIG").unwrap();
    let (repository, tag) = image.rsplit_once(':').unwrap();
    let helm = |verb: &str, more: &[&str]| {
        let namespaces = format!("namespaces={{{}}}", served.name);
        let (repository, tag) = (format!("image.repository={repository}"), format!("image.tag={tag}"));
        let common = [
            verb,
            "sw",
            CHART,
            "--kubeconfig",
            &kubeconfig,
            "-n",
            &home.name,
            "--wait",
            "--timeout",
            "2m",
            "--set",
            &namespaces,
            "--set",
            "crds.install=false",
            "--set",
            &repository,
            "--set",
            &tag,
            "--set",
            "rbac.aggregate=false",
        ];
        command("helm", &[&common[..], more].concat(), b"")
    };
    helm("install", &[]);
    served.create("web", json!({})).await;
    served.ready("web", 1).await;

    // What runs is as hard as it is said to be.
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), &home.name);
    for pod in pods.list(&ListParams::default()).await.unwrap() {
        let spec = pod.spec.unwrap();
        let container = spec.containers[0].security_context.clone().unwrap();
        assert_eq!((container.read_only_root_filesystem, container.allow_privilege_escalation), (Some(true), Some(false)));
        assert_eq!(spec.security_context.unwrap().run_as_non_root, Some(true));
    }

    helm("upgrade", &["--set", "log.level=debug", "--set", "replicas=1"]);
    served.annotate("web", "seaworthy.dev/rotate", "after the upgrade").await;
    served.ready("web", 2).await;

    command("helm", &["uninstall", "sw", "--kubeconfig", &kubeconfig, "-n", &home.name, "--wait"], b"");
    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), &home.name);
    eventually("the Deployment is gone", || async {
        let left = deployments.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items.len();
        if left == 0 { Ok(()) } else { Err(format!("{left}")) }
    })
    .await;
    // What users have stays: their resource and its Secret.
    served.rotations().get("web").await.unwrap();
    served.secrets().get("web-tls").await.unwrap();
}
