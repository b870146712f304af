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
    let (key, other) = (format!("{prefix}one"), format!("{prefix}two"));
    let with = |value: &str| property::set(&store.blank(), Some("part"), value.as_bytes()).unwrap();
    let write = |content, expected| Write { key: &key, content, expected, token: "6a7e5c5e-0000-4000-8000-000000000001" };
    let there = async || {
        let stored = store.read(&place(&key)).await.expect("what was written is there");
        (property::get(&stored.content, Some("part")).unwrap().to_vec(), stored.version)
    };

    assert!(matches!(store.read(&place(&key)).await, Err(StoreError::NotFound(_))), "what was never written is not there");
    let first = with("first");
    store.write(write(&first, None)).await.expect("what is not there can be written");
    let (value, version) = there().await;
    assert_eq!(value, b"first");
    let version = version.expect("a value has a version");

    let second = with("second");
    assert!(matches!(store.write(write(&second, None)).await, Err(StoreError::Conflict(_))), "who takes it for missing is refused");
    assert_eq!(there().await, (b"first".to_vec(), Some(version.clone())), "and changes nothing");
    store.write(write(&second, Some(&version))).await.expect("who knows what is there may replace it");
    let (value, newer) = there().await;
    assert_eq!(value, b"second");
    assert_ne!(newer.as_ref(), Some(&version), "another value is another version");
    let third = with("third");
    assert!(
        matches!(store.write(write(&third, Some(&version))).await, Err(StoreError::Conflict(_))),
        "who knows an old version is refused"
    );
    assert_eq!(there().await.0, b"second");

    // Every byte of a text, and a size that people do use.
    for text in ["", "\"\\\n\u{e4}\u{1f512}", "1e400", &"x".repeat(30_000)] {
        let (_, version) = there().await;
        let content = with(text);
        let token = format!("6a7e5c5e-0000-4000-8000-{:012}", text.len());
        store.write(Write { key: &key, content: &content, expected: version.as_deref(), token: &token }).await.unwrap();
        assert_eq!(there().await.0, text.as_bytes());
    }

    store.write(Write { key: &other, ..write(&first, None) }).await.unwrap();
    let find: Find =
        serde_json::from_value(serde_json::json!({"name": {"regexp": format!("^{}(one|two|three)$", regex::escape(prefix))}})).unwrap();
    let mut found = store.find(&find).await.expect("values can be found by their names");
    found.sort();
    assert_eq!(found, [key.clone(), other.clone()]);
    if store.batch() > 1 {
        let keys = [other, format!("{prefix}none"), key];
        let many = store.read_many(&keys).await.expect("many can be read at a time");
        let values: Vec<_> = many.into_iter().map(|one| one.map(|stored| stored.content)).collect();
        assert!(matches!(&values[..], [Ok(Content::Bytes(_)), Err(StoreError::NotFound(_)), Ok(Content::Bytes(_))]), "{values:?}");
    }
}
