//! The two services of OCI Vault: what is read from the one for retrieval, and listed and written with the one for management.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Answer, Oci, Request};
use crate::clients::error::ClientError;

/// More secrets than are listed.
const MAX_LISTED: usize = 10_000;
/// Of a list.
const PAGE_SIZE: &str = "100";
/// How often, and how far apart, a secret is looked at while a change of it is under way.
const POLLS: usize = 20;
const POLL_INTERVAL: Duration = Duration::from_millis(250);

/// The secrets of one vault.
pub struct VaultClient {
    /// Who asks.
    pub oci: Oci,
    /// The address of the service for retrieval.
    pub retrieval: Url,
    /// The address of the service for management.
    pub management: Url,
    /// The OCID of the vault.
    pub vault: String,
}

/// What is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bundle {
    /// The OCID of the secret.
    pub secret_id: String,
    /// From 1 on.
    pub version_number: u64,
    /// Its value.
    pub secret_bundle_content: BundleContent,
    /// `CURRENT`, `PENDING`, `LATEST`, `PREVIOUS`, `DEPRECATED`.
    #[serde(default)]
    pub stages: Vec<String>,
}

/// The value of a [`Bundle`].
#[derive(Deserialize)]
pub struct BundleContent {
    /// Base64.
    pub content: Zeroizing<String>,
}

/// A secret without its value.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Described {
    /// Unique in the vault.
    #[serde(default)]
    pub secret_name: String,
    /// `ACTIVE`, `UPDATING`, …
    #[serde(default)]
    pub lifecycle_state: String,
    /// What somebody noted about it.
    #[serde(default)]
    pub freeform_tags: Option<BTreeMap<String, String>>,
    /// From 1 on; not in lists.
    #[serde(default)]
    pub current_version_number: Option<u64>,
}

impl Described {
    /// Whether it is there, also while it is being changed; not if it was deleted, or is going to be.
    pub fn is_there(&self) -> bool {
        !matches!(self.lifecycle_state.as_str(), "DELETED" | "DELETING" | "PENDING_DELETION" | "SCHEDULING_DELETION" | "FAILED")
    }
}

/// What `what` is about cannot be read.
fn unreadable(what: &str) -> ClientError {
    ClientError::Invalid(format!("what Oracle Cloud says of {what} cannot be read"))
}

fn url(base: &Url, path: &[&str], query: &[(&str, &str)]) -> Result<Url, ClientError> {
    let mut url = base.clone();
    let no_server = |()| ClientError::Invalid("an endpoint is no address of a server".into());
    url.path_segments_mut().map_err(no_server)?.pop_if_empty().extend(path);
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    Ok(url)
}

impl Bundle {
    /// The value.
    pub fn value(&self) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let content = STANDARD.decode(self.secret_bundle_content.content.as_bytes());
        content.map(Zeroizing::new).map_err(|_| unreadable("a secret's value"))
    }
}

impl VaultClient {
    /// The value of the secret `name`; `selector`: of which version, as the service's parameter and what it is.
    pub async fn bundle(&self, name: &str, selector: Option<(&str, &str)>) -> Result<Bundle, ClientError> {
        let query: Vec<(&str, &str)> = [("secretName", name), ("vaultId", &self.vault)].into_iter().chain(selector).collect();
        let url = url(&self.retrieval, &["20190301", "secretbundles", "actions", "getByName"], &query)?;
        let answer = self.oci.request(Method::POST, url, Request { body: Some(Vec::new()), headers: &[] }).await?;
        serde_json::from_slice(&answer.body).map_err(|_| unreadable(name))
    }

    /// The secrets of a compartment, all or that of a `name`.
    pub async fn list(&self, compartment: &str, name: Option<&str>) -> Result<Vec<Described>, ClientError> {
        let (mut all, mut page) = (Vec::new(), None::<String>);
        loop {
            let query = [("limit", Some(PAGE_SIZE)), ("name", name), ("page", page.as_deref())];
            let query: Vec<(&str, &str)> = query.into_iter().filter_map(|(key, value)| Some((key, value?))).collect();
            let answer = self.page(compartment, &query).await?;
            // An entry that says what it is has more bytes than this.
            if answer.body.split(|byte| *byte == b'{').count() > 1 + answer.body.len() / 16 {
                return Err(unreadable("the list of secrets"));
            }
            let listed = serde_json::from_slice::<Vec<Described>>(&answer.body).map_err(|_| unreadable("the list of secrets"))?;
            if listed.is_empty() {
                return Ok(all);
            }
            all.extend(listed);
            if all.len() > MAX_LISTED {
                return Err(ClientError::Invalid(format!("the vault holds more than {MAX_LISTED} secrets, more than are looked through")));
            }
            let Some(next) = answer.next else { return Ok(all) };
            page = Some(next);
        }
    }

    /// One page of that list.
    pub async fn page(&self, compartment: &str, query: &[(&str, &str)]) -> Result<Answer, ClientError> {
        let query: Vec<_> = [("compartmentId", compartment), ("vaultId", &self.vault)].into_iter().chain(query.iter().copied()).collect();
        self.oci.request(Method::GET, url(&self.management, &["20180608", "secrets"], &query)?, Request::default()).await
    }

    /// Makes a secret. `retry`: the same for each attempt.
    pub async fn create(&self, secret: &Value, retry: &str) -> Result<Described, ClientError> {
        let request = Request { body: Some(body(secret)?), headers: &[("opc-retry-token", retry)] };
        let answer = self.oci.request(Method::POST, url(&self.management, &["20180608", "secrets"], &[])?, request).await?;
        serde_json::from_slice(&answer.body).map_err(|_| unreadable("a new secret"))
    }

    /// Makes `value` the current version of the secret `name`, if that is `expected` now: as a pending version first. Who finds it pending goes on with it,
    /// so that there are never two versions of one value. Returns its number.
    pub async fn replace(&self, (name, id): (&str, &str), expected: u64, value: &[u8]) -> Result<u64, ClientError> {
        let etag = self.etag(id, expected).await?;
        if let Some(number) = self.pending(name, value).await? {
            return self.make_current(id, number, &etag).await.map(|()| number);
        }
        let content = Zeroizing::new(STANDARD.encode(value));
        let change = json!({"secretContent": {"contentType": "BASE64", "content": *content, "stage": "PENDING"}});
        self.update(id, &change, &etag).await?;
        for _ in 0..POLLS {
            let etag = self.etag(id, expected).await?;
            if let Some(number) = self.pending(name, value).await? {
                return self.make_current(id, number, &etag).await.map(|()| number);
            }
            tokio::time::sleep(POLL_INTERVAL).await; // the service for retrieval does not know it yet
        }
        // It says nothing about the other secrets.
        Err(ClientError::Denied(format!("{name}: the new version is written, and cannot be read in its stage PENDING; may it be read?")))
    }

    /// The number of the pending version, if that is `value`.
    async fn pending(&self, name: &str, value: &[u8]) -> Result<Option<u64>, ClientError> {
        match self.bundle(name, Some(("stage", "PENDING"))).await {
            Err(ClientError::NotFoundOrDenied(_)) => Ok(None),
            bundle => bundle.map(|bundle| bundle.value().is_ok_and(|pending| *pending == value).then_some(bundle.version_number)),
        }
    }

    /// Makes an older version the current one again, if that is `expected` now.
    pub async fn promote(&self, id: &str, version: u64, expected: u64) -> Result<(), ClientError> {
        let etag = self.etag(id, expected).await?;
        self.make_current(id, version, &etag).await
    }

    async fn make_current(&self, id: &str, version: u64, etag: &str) -> Result<(), ClientError> {
        self.update(id, &json!({"currentVersionNumber": version}), etag).await
    }

    /// The etag of a secret of which the version number `expected` is the current one. Waits while a change of it is under way.
    async fn etag(&self, id: &str, expected: u64) -> Result<String, ClientError> {
        let url = url(&self.management, &["20180608", "secrets", id], &[])?;
        for _ in 0..POLLS {
            let answer = self.oci.request(Method::GET, url.clone(), Request::default()).await?;
            let now: Described = serde_json::from_slice(&answer.body).map_err(|_| unreadable(id))?;
            if now.lifecycle_state != "UPDATING" {
                let etag = answer.etag.filter(|_| now.current_version_number == Some(expected));
                return etag.ok_or_else(|| ClientError::Conflict(format!("{id} was written by somebody else since it was read")));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Err(ClientError::Conflict(format!("{id} is being changed by somebody else")))
    }

    /// Changes a secret that has still that `etag`.
    async fn update(&self, id: &str, change: &Value, etag: &str) -> Result<(), ClientError> {
        let request = Request { body: Some(body(change)?), headers: &[("if-match", etag)] };
        self.oci.request(Method::PUT, url(&self.management, &["20180608", "secrets", id], &[])?, request).await.map(|_| ())
    }

    /// Has a version deleted in a while.
    pub async fn schedule_deletion(&self, id: &str, version: &str) -> Result<(), ClientError> {
        let url = url(&self.management, &["20180608", "secrets", id, "version", version, "actions", "scheduleDeletion"], &[])?;
        self.oci.request(Method::POST, url, Request { body: Some(b"{}".to_vec()), headers: &[] }).await.map(|_| ())
    }
}

fn body(value: &Value) -> Result<Vec<u8>, ClientError> {
    serde_json::to_vec(value).map_err(|error| ClientError::Invalid(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_answer_makes_it_panic() {
        let bundle = br#"{"secretId": "s", "versionNumber": 3, "secretBundleContent": {"contentType": "BASE64", "content": "eA=="}}"#;
        assert!(serde_json::from_slice::<Bundle>(bundle).is_ok_and(|bundle| bundle.version_number == 3));
        bolero::check!().with_iterations(10_000).for_each(|input: &[u8]| {
            let _ = serde_json::from_slice::<Bundle>(input).map(|bundle| bundle.value());
            let _ = serde_json::from_slice::<Vec<Described>>(input);
        });
    }
}
