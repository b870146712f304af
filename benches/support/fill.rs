//! A cluster that is filled.

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{Api, Client, api::PostParams};
use serde_json::json;

use crate::support::PARALLEL;

/// Creates one.
pub async fn namespace(client: &Client, name: &str) {
    let object: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    Api::all(client.clone()).create(&PostParams::default(), &object).await.unwrap();
}

/// Creates Secrets in a namespace of their own.
pub async fn fill(client: &Client, name: &str, count: usize, bytes: usize) {
    namespace(client, name).await;
    let api: Api<Secret> = Api::namespaced(client.clone(), name);
    stream::iter(0..count)
        .for_each_concurrent(PARALLEL, async |number| {
            let value = k8s_openapi::ByteString(vec![b'x'; bytes]);
            let secret: Secret = serde_json::from_value(json!({"metadata": {"name": format!("s{number}")}, "data": {"a": value}})).unwrap();
            api.create(&PostParams::default(), &secret).await.unwrap();
        })
        .await;
}
