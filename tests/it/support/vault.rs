//! A real Vault.

use std::{
    collections::BTreeSet,
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
};

use reqwest::{Client, Method};
use serde_json::{Value, json};

/// Unsealed, in memory. Dropping it ends it.
pub struct Vault {
    process: Child,
    pub address: String,
    pub root: String,
    unseal: String,
    http: Client,
}

impl Vault {
    pub async fn start() -> Self {
        Self::listening(&[free()]).await
    }

    /// Two of one cluster: the active one, and the address of the standby.
    pub async fn with_standby() -> (Self, String) {
        let standby = free();
        (Self::listening(&[free(), standby.clone()]).await, format!("http://{standby}"))
    }

    async fn listening(addresses: &[String]) -> Self {
        seaworthy::install_crypto_provider();
        let program = std::env::var("SEAWORTHY_TEST_VAULT").expect("there is no Vault to test against; run `make test`");
        let listen = &addresses[0];
        let mut process = Command::new(program).args(addresses).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let output = process.stdout.take().unwrap();
        let said = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(output).read_line(&mut line).unwrap();
            serde_json::from_str::<Value>(&line).unwrap()
        });
        let said = said.await.unwrap();
        let text = |key: &str| said[key].as_str().unwrap().to_owned();
        let vault = Self {
            process,
            address: format!("http://{listen}"),
            root: text("root_token"),
            unseal: text("unseal_key"),
            http: Client::new(),
        };
        vault.call("POST", "sys/mounts/secret", json!({"type": "kv", "options": {"version": "2"}})).await;
        vault.call("POST", "sys/mounts/old", json!({"type": "kv", "options": {"version": "1"}})).await;
        vault
    }

    /// Does something as root, and returns the answer.
    pub async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_call(method, path, body).await;
        assert!(status < 300, "{method} {path}: {status} {answer}");
        answer
    }

    pub async fn try_call(&self, method: &str, path: &str, body: Value) -> (u16, Value) {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.http.request(method, format!("{}/v1/{path}", self.address)).header("X-Vault-Token", &self.root).json(&body);
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    /// Writes a value of version 2.
    pub async fn put(&self, key: &str, value: Value) {
        self.call("POST", &format!("secret/data/{key}"), json!({"data": value})).await;
    }

    /// What is there in version 2, and which version that is.
    pub async fn get(&self, key: &str) -> (Value, i64) {
        let answer = self.call("GET", &format!("secret/data/{key}"), Value::Null).await;
        (answer["data"]["data"].clone(), answer["data"]["metadata"]["version"].as_i64().unwrap())
    }

    /// An AppRole that may do what `policy` says; its role id and secret id.
    pub async fn role(&self, name: &str, policy: &str) -> (String, String) {
        let (_, methods) = self.try_call("GET", "sys/auth", Value::Null).await;
        if methods["data"]["approle/"].is_null() {
            self.call("POST", "sys/auth/approle", json!({"type": "approle"})).await;
        }
        self.call("POST", &format!("sys/policies/acl/{name}"), json!({"policy": policy})).await;
        let role = json!({"token_policies": [name], "token_ttl": "20m", "token_max_ttl": "1h"});
        self.call("POST", &format!("auth/approle/role/{name}"), role).await;
        let id = self.call("GET", &format!("auth/approle/role/{name}/role-id"), Value::Null).await;
        let secret = self.call("POST", &format!("auth/approle/role/{name}/secret-id"), json!({})).await;
        (id["data"]["role_id"].as_str().unwrap().into(), secret["data"]["secret_id"].as_str().unwrap().into())
    }

    /// As a store, with a token from the Secret `vault`.
    pub fn by_token(&self) -> Value {
        json!({"vault": {"server": self.address, "auth": {"token": {"secretRef": {"name": "vault", "key": "token"}}}}})
    }

    /// How many tokens there are.
    pub async fn tokens(&self) -> usize {
        self.accessors().await.len()
    }

    /// What Vault calls them.
    pub async fn accessors(&self) -> BTreeSet<String> {
        let answer = self.call("LIST", "auth/token/accessors", Value::Null).await;
        answer["data"]["keys"].as_array().unwrap().iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    }

    pub async fn seal(&self) {
        self.call("POST", "sys/seal", json!({})).await;
    }

    pub async fn unseal(&self) {
        self.call("POST", "sys/unseal", json!({"key": self.unseal})).await;
    }
}

/// An address that nobody listens at.
fn free() -> String {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

impl Drop for Vault {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
