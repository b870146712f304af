//! An emulator of AWS.

use std::process::{Child, Command, Stdio};

use reqwest::Client;
use serde_json::{Value, json};

use super::eventually;

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/moto.sh");

/// Dropping it ends it.
pub struct Moto {
    process: Child,
    pub address: String,
    http: Client,
}

impl Moto {
    pub async fn start() -> Self {
        seaworthy::install_crypto_provider();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let process = Command::new(SCRIPT).arg(port.to_string()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let moto = Self { process, address: format!("http://127.0.0.1:{port}"), http: Client::new() };
        eventually("moto answers", || async {
            let answer = moto.http.get(format!("{}/moto-api/data.json", moto.address)).send().await;
            answer.map(|_| ()).map_err(|error| error.to_string())
        })
        .await;
        moto
    }

    /// Does something in Secrets Manager, and returns the answer. moto takes any signature.
    pub async fn call(&self, action: &str, body: Value) -> Value {
        let scope = "AWS4-HMAC-SHA256 Credential=id/20261121/us-east-1/secretsmanager/aws4_request, SignedHeaders=host, Signature=x";
        // Its threads trip over each other when one looks for a secret while another one makes one.
        eventually(action, || async {
            let request = self.http.post(&self.address).header("X-Amz-Target", format!("secretsmanager.{action}"));
            let request = request.header("Authorization", scope).header("Content-Type", "application/x-amz-json-1.1");
            let response = request.body(body.to_string()).send().await.unwrap();
            let (status, text) = (response.status(), response.text().await.unwrap());
            assert!(status.is_success() || status.is_server_error(), "{action}: {text}");
            if status.is_success() { Ok(serde_json::from_str(&text).unwrap()) } else { Err(text) }
        })
        .await
    }

    /// How many versions there are.
    pub async fn versions(&self, key: &str) -> i64 {
        let listed = self.call("ListSecretVersionIds", json!({"SecretId": key, "IncludeDeprecated": true})).await;
        i64::try_from(listed["Versions"].as_array().unwrap().len()).unwrap()
    }

    /// What is current.
    pub async fn get(&self, key: &str) -> Value {
        let answer = self.call("GetSecretValue", json!({"SecretId": key, "VersionStage": "AWSCURRENT"})).await;
        serde_json::from_str(answer["SecretString"].as_str().unwrap()).unwrap()
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
