//! Environment variables of the operator, as far as its own settings allow. In a SecretStore only; nothing is written.

use std::ffi::OsString;

use futures::{FutureExt, future::BoxFuture};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secrets::store::{Content, Find, Matcher, OpenStore, Opening, Place, Store, StoreError, Stored, Write};

/// Has no fields: which variables may be given out is said by `--store-env`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Spec {}

struct Open {
    allowed: Vec<String>,
}

impl Store for Spec {
    fn validate(&self, shared: bool) -> Result<(), StoreError> {
        if shared { Ok(()) } else { Err(StoreError::Denied("the store env can be used through a SecretStore only (spec.storeRef)".into())) }
    }

    fn can_write(&self) -> bool {
        false
    }

    fn location(&self) -> String {
        String::new()
    }

    fn open<'a>(&'a self, opening: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>> {
        let allowed = opening.allowed.env.clone();
        async { Ok(Box::new(Open { allowed }) as Box<dyn OpenStore>) }.boxed()
    }
}

impl Open {
    fn allows(&self, name: &str) -> bool {
        let fits = |allowed: &String| allowed.strip_suffix('*').map_or_else(|| allowed == name, |beginning| name.starts_with(beginning));
        self.allowed.iter().any(fits)
    }
}

impl OpenStore for Open {
    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>> {
        async move {
            let name = &place.key;
            if place.version.is_some() {
                return Err(StoreError::Invalid(format!("remoteRef.version of {name}: the store env has no versions")));
            }
            // Whether it is there is not told to who may not have it.
            if !self.allows(name) {
                return Err(StoreError::Denied(format!(
                    "the variable {name} is not among those that the operator gives out (--store-env)"
                )));
            }
            let bytes = std::env::var_os(name).map(OsString::into_encoded_bytes);
            let bytes = bytes.ok_or_else(|| StoreError::NotFound(format!("the operator has no variable {name}")))?;
            Ok(Stored { content: Content::Bytes(Zeroizing::new(bytes)), version: None })
        }
        .boxed()
    }

    fn find<'a>(&'a self, find: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            if !find.tags.is_empty() {
                return Err(StoreError::Invalid("find.tags: the store env has no tags".into()));
            }
            let names = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()).filter(|name| self.allows(name));
            let matcher = Matcher::of(find)?;
            Ok(names.filter(|name| matcher.matches(name)).collect())
        }
        .boxed()
    }

    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move { Err(StoreError::Invalid(format!("{}: the store env cannot be written to", write.key))) }.boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        let none = self.allowed.is_empty();
        async move {
            let why = "the operator gives out no variable; say which with --store-env (in the chart: stores.env)";
            if none { Err(StoreError::Denied(why.into())) } else { Ok(()) }
        }
        .boxed()
    }
}
