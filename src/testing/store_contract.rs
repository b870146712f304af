//! What every store must keep, wherever its values live.
#![expect(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a contract suite fails by panicking")]

use std::collections::BTreeMap;

use crate::secrets::{
    contents::property,
    store::{Content, Find, OpenStore, Place, StoreError, Write},
};

fn place(key: &str) -> Place {
    Place { key: key.into(), version: None }
}

/// No value is text with these in it.
const NO_TEXT: &[u8] = b"\xff\x00\xfe";

/// What all must keep that can be read: `there` stands under keys that begin with `prefix`, and nothing else does.
///
/// # Panics
/// At the first thing that is not kept.
pub async fn reads(store: &dyn OpenStore, prefix: &str, there: &BTreeMap<String, Content>) {
    store.check().await.expect("it lets us in");
    for (key, content) in there {
        assert!(store.read(&place(key)).await.expect("what is there can be read").content == *content, "{key}");
    }
    let missing = format!("{prefix}missing");
    assert!(matches!(store.read(&place(&missing)).await, Err(StoreError::NotFound(_))), "what is not there is not there");
    let (first, _) = there.first_key_value().unwrap();
    let version = Place { version: Some("4711".into()), ..place(first) };
    let said = store.read(&version).await;
    assert!(!matches!(said, Ok(_) | Err(StoreError::Throttled { .. } | StoreError::Unavailable(_))), "there is no such version: {said:?}");
    let find = |name: &str| serde_json::from_value::<Find>(serde_json::json!({"name": {"regexp": format!("^{name}$")}})).unwrap();
    let mut found = store.find(&find(&format!("{}.*", regex::escape(prefix)))).await.expect("values can be found by their names");
    found.sort();
    assert_eq!(found, there.keys().cloned().collect::<Vec<_>>());
    assert_eq!(store.find(&find(&regex::escape(&missing))).await.expect("that nothing is found is no error"), [""; 0]);
}

/// What those must keep that cannot be written to, where `there` is.
///
/// # Panics
/// At the first thing that is not kept.
pub async fn reads_only(store: &dyn OpenStore, prefix: &str, there: &BTreeMap<String, Content>) {
    reads(store, prefix, there).await;
    let (content, key) = (store.blank(), format!("{prefix}missing"));
    for (key, expected) in [(&key, None), (&key, Some("1"))].into_iter().chain(there.keys().map(|key| (key, None))) {
        let said = store.write(Write { key, content: &content, expected, token: "t" }).await;
        assert!(matches!(said, Err(StoreError::Invalid(_))), "{key}: nothing can be written: {said:?}");
    }
    reads(store, prefix, there).await;
}

/// What all must keep that can be written to; done with keys that begin with `prefix`, below which nothing may be yet.
///
/// # Panics
/// At the first thing that is not kept.
pub async fn run(store: &dyn OpenStore, prefix: &str) {
    store.check().await.expect("it lets us in");
    let suite = Suite { store, prefix };
    // Each promise has keys of its own, because some emulators lose count of versions.
    let mut written = Vec::new();
    written.extend(suite.what_is_there_is_told_from_what_is_not().await);
    written.extend(suite.who_is_late_is_refused().await);
    written.extend(suite.every_text_comes_back().await);
    written.extend(suite.bytes_come_back_or_are_refused().await);
    written.extend(suite.a_write_that_is_repeated_is_one().await);
    written.extend(suite.the_version_before_may_be_read_and_may_go().await);
    written.extend(suite.the_version_before_may_come_back().await);
    written.extend(suite.many_are_read_at_a_time().await);
    let mut all = BTreeMap::new();
    for key in written {
        let content = store.read(&place(&key)).await.unwrap().content;
        all.insert(key, content);
    }
    reads(store, prefix, &all).await;
}

/// Returns of each promise: the keys that it has written.
struct Suite<'a> {
    store: &'a dyn OpenStore,
    prefix: &'a str,
}

impl Suite<'_> {
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn write(&self, key: &str, value: &str, expected: Option<&str>) -> Result<Option<String>, StoreError> {
        let content = property::set(&self.store.blank(), Some("part"), value.as_bytes()).unwrap();
        let token = format!("6a7e5c5e-0000-4000-8000-{:012}", value.len());
        self.store.write(Write { key, content: &content, expected, token: &token }).await
    }

    /// The value, and its version.
    async fn there(&self, key: &str) -> (Vec<u8>, String) {
        let stored = self.store.read(&place(key)).await.expect("what was written is there");
        (property::get(&stored.content, Some("part")).unwrap().to_vec(), stored.version.expect("a value has a version"))
    }

    /// Writes two values. Returns the versions.
    async fn twice(&self, key: &str) -> (String, String) {
        self.write(key, "first", None).await.expect("what is not there can be written");
        let (_, first) = self.there(key).await;
        self.write(key, "second", Some(&first)).await.expect("who knows what is there may replace it");
        let (value, second) = self.there(key).await;
        assert_eq!(value, b"second");
        assert_ne!(first, second, "another value is another version");
        (first, second)
    }

    async fn what_is_there_is_told_from_what_is_not(&self) -> Option<String> {
        let key = self.key("one");
        assert!(matches!(self.store.read(&place(&key)).await, Err(StoreError::NotFound(_))), "what was never written is not there");
        self.write(&key, "first", None).await.expect("what is not there can be written");
        let there = self.there(&key).await;
        assert_eq!(there.0, b"first");
        assert!(matches!(self.write(&key, "second", None).await, Err(StoreError::Conflict(_))), "who takes it for missing is refused");
        assert_eq!(self.there(&key).await, there, "and changes nothing");
        Some(key)
    }

    async fn who_is_late_is_refused(&self) -> Option<String> {
        let key = self.key("two");
        let (first, second) = self.twice(&key).await;
        assert!(matches!(self.write(&key, "the third", Some(&first)).await, Err(StoreError::Conflict(_))), "who knows an old version");
        assert_eq!(self.there(&key).await, (b"second".to_vec(), second));
        Some(key)
    }

    /// Every byte of a text, and a size that people do use.
    async fn every_text_comes_back(&self) -> Vec<String> {
        let mut keys = Vec::new();
        for (number, text) in ["", "\"\\\n\u{e4}\u{1f512}", "1e400", &"x".repeat(30_000)].into_iter().enumerate() {
            let key = self.key(&format!("text-{number}"));
            self.write(&key, "before", None).await.unwrap();
            let (_, version) = self.there(&key).await;
            self.write(&key, text, Some(&version)).await.unwrap();
            assert_eq!(self.there(&key).await.0, text.as_bytes());
            keys.push(key);
        }
        keys
    }

    /// What is no text comes back as it was, or is refused as a whole.
    async fn bytes_come_back_or_are_refused(&self) -> Option<String> {
        let (store, key) = (self.store, self.key("raw"));
        self.write(&key, "before", None).await.unwrap();
        let before = store.read(&place(&key)).await.unwrap();
        let content = match store.blank() {
            Content::Map(_) => property::set(&store.blank(), Some("part"), NO_TEXT).unwrap(),
            Content::Bytes(_) => Content::Bytes(NO_TEXT.to_vec().into()),
        };
        match store.write(Write { key: &key, content: &content, expected: before.version.as_deref(), token: "raw" }).await {
            Ok(_) => assert!(store.read(&place(&key)).await.unwrap().content == content, "bytes come back as they were"),
            Err(StoreError::Invalid(_)) => assert!(store.read(&place(&key)).await.unwrap() == before, "what is refused changes nothing"),
            Err(error) => panic!("bytes that are no text: {error}"),
        }
        Some(key)
    }

    /// Its answer was lost.
    async fn a_write_that_is_repeated_is_one(&self) -> Option<String> {
        let key = self.key("again");
        let (first, second) = self.twice(&key).await;
        match self.write(&key, "second", Some(&first)).await {
            Ok(_) | Err(StoreError::Conflict(_)) => {}
            Err(error) => panic!("the same write once more: {error}"),
        }
        assert_eq!(self.there(&key).await, (b"second".to_vec(), second), "it was written once");
        Some(key)
    }

    /// What the store calls it is what it is asked for by, where it keeps any; the current one may not go.
    async fn the_version_before_may_be_read_and_may_go(&self) -> Option<String> {
        let key = self.key("kept");
        let (first, second) = self.twice(&key).await;
        match self.store.read(&Place { version: Some(first.clone()), ..place(&key) }).await {
            Ok(stored) => assert_eq!(*property::get(&stored.content, Some("part")).unwrap(), b"first"),
            Err(StoreError::Invalid(_) | StoreError::NotFound(_)) => {} // it keeps one
            Err(error) => panic!("the version before: {error}"),
        }
        for version in [&first, &first, &second] {
            self.store.retire(&key, version).await.expect("a version may go, and may have gone");
            assert_eq!(self.there(&key).await, (b"second".to_vec(), second.clone()), "what is current stays");
        }
        Some(key)
    }

    /// Or what it holds has to be written.
    async fn the_version_before_may_come_back(&self) -> Option<String> {
        let key = self.key("back");
        let (first, second) = self.twice(&key).await;
        let stale = self.store.promote(&key, &first, &first).await;
        assert_eq!(self.there(&key).await, (b"second".to_vec(), second.clone()), "who knows an old version changes nothing");
        if self.store.can_promote() {
            assert!(matches!(stale, Err(StoreError::Conflict(_))), "and is refused: {stale:?}");
            self.store.promote(&key, &first, &second).await.expect("a version that is there can be the current one again");
            assert_eq!(self.there(&key).await, (b"first".to_vec(), first));
        } else {
            assert!(matches!(stale, Err(StoreError::Invalid(_))), "it cannot: {stale:?}");
        }
        Some(key)
    }

    /// Each was written once, because some emulators give the first version of all.
    async fn many_are_read_at_a_time(&self) -> Vec<String> {
        if self.store.batch() == 1 {
            return Vec::new();
        }
        let keys = ["batch-b", "batch-a", "batch-none", "batch-c"].map(|name| self.key(name));
        for number in [0, 1, 3] {
            self.write(&keys[number], &format!("value {number}"), None).await.unwrap();
        }
        let many = self.store.read_many(&keys).await.expect("many can be read at a time");
        assert_eq!(many.len(), keys.len(), "as many answers as questions, in their order");
        for (number, answer) in many.into_iter().enumerate() {
            match answer {
                Ok(stored) => assert_eq!(*property::get(&stored.content, Some("part")).unwrap(), format!("value {number}").as_bytes()),
                Err(error) => assert!(number == 2 && matches!(error, StoreError::NotFound(_)), "{number}: {error}"),
            }
        }
        let [b, a, _, c] = keys;
        vec![a, b, c]
    }
}
