//! An AppRole's own secret ids: made, looked up by their accessors (which are no secrets), destroyed.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::Vault;
use crate::clients::error::ClientError;

/// So many are looked through.
const MAX_SECRET_IDS: usize = 100;

/// The member of a secret id's metadata that says who made it.
const MARK: &str = "seaworthy";

/// An AppRole.
#[derive(Clone, Copy, Debug)]
pub struct Role<'a> {
    /// Where the method is mounted.
    pub mount: &'a str,
    /// Its name, which is not its role id.
    pub name: &'a str,
}

#[derive(Deserialize)]
struct Made {
    secret_id: Zeroizing<String>,
}

#[derive(Default, Deserialize)]
struct Described {
    #[serde(default)]
    secret_id_accessor: String,
    #[serde(default)]
    metadata: Option<Value>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    meta: Option<Value>,
}

#[derive(Deserialize)]
struct Listed {
    keys: Vec<String>,
}

impl Vault {
    /// The name of the AppRole that we are logged in as.
    pub async fn role_name(&self) -> Result<String, ClientError> {
        let answer = self.request(&Method::GET, &["auth", "token", "lookup-self"], &[], None).await?;
        let token: Token = read(&answer, "lookup-self")?;
        let name = token.meta.as_ref().and_then(|meta| meta["role_name"].as_str());
        name.map(ToOwned::to_owned).ok_or_else(|| ClientError::Invalid("the token that Vault gave us is not of an AppRole".into()))
    }

    /// Makes another secret id, marked with `mark`.
    pub async fn new_secret_id(&self, role: Role<'_>, mark: &str) -> Result<Zeroizing<String>, ClientError> {
        let metadata = json!({MARK: mark}).to_string();
        let made = self.at(role, &["secret-id"], &[], Some(&json!({"metadata": metadata}))).await?;
        Ok(read::<Made>(&made, "secret-id")?.secret_id)
    }

    /// The accessor of a secret id.
    pub async fn accessor_of(&self, role: Role<'_>, secret_id: &str) -> Result<String, ClientError> {
        let found = self.at(role, &["secret-id", "lookup"], &[], Some(&json!({"secret_id": secret_id}))).await;
        let found = found.map_err(|error| match error {
            ClientError::Denied(why) => {
                ClientError::Denied(format!("{why}; rotateSecretId takes rights of its own, which `seaworthy vault-policy` prints"))
            }
            error => error,
        })?;
        let found: Described = if found.is_empty() { Described::default() } else { read(&found, "secret-id/lookup")? };
        if found.secret_id_accessor.is_empty() {
            return Err(ClientError::Denied("Vault does not know the secret id".into()));
        }
        Ok(found.secret_id_accessor)
    }

    /// Destroys the secret id of an accessor; one that is gone already is no error.
    pub async fn destroy_secret_id(&self, role: Role<'_>, accessor: &str) -> Result<(), ClientError> {
        let sent = json!({"secret_id_accessor": accessor});
        match self.at(role, &["secret-id-accessor", "destroy"], &[], Some(&sent)).await {
            Err(ClientError::NotFound(_)) => Ok(()),
            // Vault says the same with other codes: there is no such accessor, or nothing behind it.
            Err(ClientError::Invalid(why) | ClientError::Unavailable(why)) if why.contains("failed to find accessor entry") => Ok(()),
            Err(ClientError::Denied(why)) if why.contains("invalid secret id accessor") => Ok(()),
            done => done.map(|_| ()),
        }
    }

    /// Destroys the secret ids that were made with `mark`, but that of the accessor `keep`: those that nobody knows any more. Looks at a hundred at most.
    pub async fn destroy_lost_secret_ids(&self, role: Role<'_>, keep: &str, mark: &str) -> Result<(), ClientError> {
        let listed = match self.at(role, &["secret-id"], &[("list", "true")], None).await {
            Err(ClientError::NotFound(_)) => return Ok(()),
            listed => read::<Listed>(&listed?, "secret-id")?,
        };
        for accessor in listed.keys.iter().filter(|accessor| *accessor != keep).take(MAX_SECRET_IDS) {
            let sent = json!({"secret_id_accessor": accessor});
            let found = match self.at(role, &["secret-id-accessor", "lookup"], &[], Some(&sent)).await {
                Err(ClientError::NotFound(_) | ClientError::Invalid(_)) => continue, // it has expired meanwhile
                found => found?,
            };
            let found: Described = read(&found, "secret-id-accessor/lookup")?;
            if found.metadata.is_some_and(|metadata| metadata[MARK] == mark) {
                self.destroy_secret_id(role, accessor).await?;
            }
        }
        Ok(())
    }

    /// Writes what is to be `sent` below a role, or reads.
    async fn at(
        &self,
        role: Role<'_>,
        path: &[&str],
        query: &[(&str, &str)],
        sent: Option<&Value>,
    ) -> Result<Zeroizing<Vec<u8>>, ClientError> {
        let path: Vec<&str> =
            ["auth"].into_iter().chain(role.mount.split('/')).chain(["role", role.name]).chain(path.iter().copied()).collect();
        let sent = sent.map(|sent| Zeroizing::new(sent.to_string().into_bytes()));
        let method = if sent.is_some() { Method::POST } else { Method::GET };
        self.request(&method, &path, query, sent.as_ref().map(|sent| sent.as_slice())).await
    }
}

fn read<'a, T: Deserialize<'a>>(answer: &'a [u8], what: &str) -> Result<T, ClientError> {
    serde_json::from_slice(answer).map_err(|_| ClientError::Invalid(format!("the answer to {what} is not Vault's")))
}
