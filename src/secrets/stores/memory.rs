//! Values that stand in the resource itself: for tests and examples. What is written is kept by the process that wrote it, and by nobody else.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use futures::{FutureExt, future::BoxFuture};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::secrets::store::{Content, Find, Matcher, OpenStore, Opening, Place, Store, StoreError, Stored, Write};

/// Values by key; `Debug` shows the keys alone.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Spec {
    /// Texts, which may be JSON.
    #[serde(default)]
    #[schemars(extend("maxProperties" = 100))]
    pub data: BTreeMap<String, String>,
}

impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.data.keys()).finish()
    }
}

/// By key: the version, and the value.
#[derive(Default)]
struct Open(Mutex<BTreeMap<String, (u64, Content)>>);

impl Store for Spec {
    fn validate(&self, _: bool) -> Result<(), StoreError> {
        Ok(())
    }

    fn location(&self) -> String {
        String::new()
    }

    fn open<'a>(&'a self, _: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>> {
        let text = |text: &String| Content::Bytes(Zeroizing::new(text.clone().into_bytes()));
        let values = self.data.iter().map(|(key, value)| (key.clone(), (1, text(value)))).collect();
        async { Ok(Box::new(Open(Mutex::new(values))) as Box<dyn OpenStore>) }.boxed()
    }
}

impl OpenStore for Open {
    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>> {
        let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found =
            values.get(&place.key).filter(|(version, _)| place.version.as_ref().is_none_or(|wanted| *wanted == version.to_string()));
        let found = found.map(|(version, content)| Stored { content: content.clone(), version: Some(version.to_string()) });
        async move { found.ok_or_else(|| StoreError::NotFound(format!("{} is not in spec.store.memory.data", place.key))) }.boxed()
    }

    fn find<'a>(&'a self, find: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            if !find.tags.is_empty() {
                return Err(StoreError::Invalid("find.tags: the store memory has no tags".into()));
            }
            let values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let matcher = Matcher::of(find)?;
            Ok(values.keys().filter(|key| matcher.matches(key)).cloned().collect())
        }
        .boxed()
    }

    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move {
            let mut values = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let there = values.get(write.key).map(|(version, _)| *version);
            if there.map(|version| version.to_string()).as_deref() != write.expected {
                return Err(StoreError::Conflict(format!("{} was written by somebody else since it was read", write.key)));
            }
            let version = there.unwrap_or(0) + 1;
            values.insert(write.key.into(), (version, write.content.clone()));
            Ok(Some(version.to_string()))
        }
        .boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        async { Ok(()) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_shows_no_value() {
        let spec = Spec { data: [("name".to_owned(), "canary".to_owned())].into() };
        assert_eq!(format!("{spec:?}"), r#"{"name"}"#);
    }
}
