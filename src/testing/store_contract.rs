//! What every store must keep, wherever its values live.

use crate::secrets::{
    property,
    store::{Content, Find, OpenStore, Place, StoreError, Write},
};

fn place(key: &str) -> Place {
    Place { key: key.into(), version: None }
}

/// Runs the suite on keys that begin with `prefix`, below which nothing may be yet.
///
/// # Panics
/// At the first thing that is not kept.
#[expect(clippy::expect_used, clippy::unwrap_used, reason = "a contract suite fails by panicking")]
pub async fn run(store: &dyn OpenStore, prefix: &str) {
    store.check().await.expect("it lets us in");
    let with = |value: &str| property::set(&store.blank(), Some("part"), value.as_bytes()).unwrap();
    let key = |name: &str| format!("{prefix}{name}");
    let write = |key: &str, value: &str, expected: Option<String>| {
        let (key, content, token) = (key.to_owned(), with(value), format!("6a7e5c5e-0000-4000-8000-{:012}", value.len()));
        async move { store.write(Write { key: &key, content: &content, expected: expected.as_deref(), token: &token }).await }
    };
    let there = async |key: &str| {
        let stored = store.read(&place(key)).await.expect("what was written is there");
        (property::get(&stored.content, Some("part")).unwrap().to_vec(), stored.version)
    };

    // Each promise has a key of its own, because some emulators lose count of versions.
    let one = key("one");
    assert!(matches!(store.read(&place(&one)).await, Err(StoreError::NotFound(_))), "what was never written is not there");
    write(&one, "first", None).await.expect("what is not there can be written");
    let (value, version) = there(&one).await;
    assert_eq!(value, b"first");
    assert!(version.is_some(), "a value has a version");
    assert!(matches!(write(&one, "second", None).await, Err(StoreError::Conflict(_))), "who takes it for missing is refused");
    assert_eq!(there(&one).await, (b"first".to_vec(), version), "and changes nothing");

    let two = key("two");
    write(&two, "first", None).await.unwrap();
    let (_, version) = there(&two).await;
    write(&two, "second", version.clone()).await.expect("who knows what is there may replace it");
    let (value, newer) = there(&two).await;
    assert_eq!(value, b"second");
    assert_ne!(newer, version, "another value is another version");
    assert!(matches!(write(&two, "the third", version).await, Err(StoreError::Conflict(_))), "who knows an old version is refused");
    assert_eq!(there(&two).await.0, b"second");

    // Every byte of a text, and a size that people do use.
    for (number, text) in ["", "\"\\\n\u{e4}\u{1f512}", "1e400", &"x".repeat(30_000)].into_iter().enumerate() {
        let key = key(&format!("text-{number}"));
        write(&key, "before", None).await.unwrap();
        let (_, version) = there(&key).await;
        write(&key, text, version).await.unwrap();
        assert_eq!(there(&key).await.0, text.as_bytes());
    }

    let find: Find =
        serde_json::from_value(serde_json::json!({"name": {"regexp": format!("^{}(one|two|three)$", regex::escape(prefix))}})).unwrap();
    let mut found = store.find(&find).await.expect("values can be found by their names");
    found.sort();
    assert_eq!(found, [one.clone(), two.clone()]);
    if store.batch() > 1 {
        let keys = [two, key("none"), one];
        let many = store.read_many(&keys).await.expect("many can be read at a time");
        let values: Vec<_> = many.into_iter().map(|one| one.map(|stored| stored.content)).collect();
        assert!(matches!(&values[..], [Ok(Content::Bytes(_)), Err(StoreError::NotFound(_)), Ok(Content::Bytes(_))]), "{values:?}");
    }
}
