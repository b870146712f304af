//! Files of the operator: a mounted folder, also of a CSI driver, as far as its own settings allow. In a SecretStore only; nothing is written.

use std::{
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use crate::secrets::store::{Content, Find, MAX_VALUE, Matcher, OpenStore, Opening, Place, Store, StoreError, Stored, Write};

/// Which folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Spec {
    /// A folder below one that `--store-folders` allows. A key is the path of a file in it.
    #[schemars(length(min = 2, max = 1024), regex(pattern = "^/[^/]"))]
    pub path: String,
}

/// `find` looks into no more files, and no deeper.
const MAX_FILES: usize = 10_000;
const MAX_DEPTH: usize = 5;

#[derive(Clone)]
struct Open {
    folder: PathBuf,
    /// Where links may lead.
    allowed: Vec<PathBuf>,
    /// One look at a time, so that a mount that hangs takes one thread and not all of them.
    turn: Arc<Semaphore>,
}

impl Store for Spec {
    fn validate(&self, shared: bool) -> Result<(), StoreError> {
        if shared {
            Ok(())
        } else {
            Err(StoreError::Denied("the store file can be used through a SecretStore only (spec.storeRef)".into()))
        }
    }

    fn can_write(&self) -> bool {
        false
    }

    fn location(&self) -> String {
        self.path.clone()
    }

    fn open<'a>(&'a self, opening: Opening<'a>) -> BoxFuture<'a, Result<Box<dyn OpenStore>, StoreError>> {
        let open = Open {
            folder: self.path.clone().into(),
            allowed: opening.allowed.folders.clone(),
            turn: opening.allowed.turn(Path::new(&self.path)),
        };
        async move { Ok(Box::new(open) as Box<dyn OpenStore>) }.boxed()
    }
}

/// Most are about the one file: the others, which say nothing about it, are of the file system as a whole.
fn unreadable(shown: &dyn std::fmt::Display, error: &io::Error) -> StoreError {
    let why = format!("{shown} cannot be read: {error}");
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => StoreError::NotFound(format!("{shown} is not there")),
        io::ErrorKind::PermissionDenied => StoreError::Denied(why),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidFilename => StoreError::Invalid(why),
        _ => StoreError::Unavailable(why),
    }
}

impl Open {
    /// Where `path` really is, if that is allowed. Links of mounted Secrets and of CSI drivers stay within their folder.
    fn real(&self, path: &Path) -> Result<PathBuf, StoreError> {
        let shown = path.display();
        let real = path.canonicalize().map_err(|error| unreadable(&shown, &error))?;
        let within = |allowed: &PathBuf| allowed.canonicalize().is_ok_and(|allowed| real.starts_with(allowed));
        if self.allowed.iter().any(within) {
            return Ok(real);
        }
        Err(StoreError::Denied(format!("{shown} is not in a folder that the operator gives out (--store-folders)")))
    }

    /// A folder that is not there is not mounted: that says nothing about what is in it.
    fn folder(&self) -> Result<PathBuf, StoreError> {
        self.real(&self.folder).map_err(|error| match error {
            StoreError::NotFound(why) => StoreError::Unavailable(why),
            error => error,
        })
    }

    fn file(&self, key: &str) -> Result<Content, StoreError> {
        let relative = Path::new(key);
        if relative.components().any(|part| !matches!(part, Component::Normal(_))) {
            return Err(StoreError::Denied(format!("{key:?} is no path of a file in the folder")));
        }
        // Who may not have the folder is not told what is in it.
        self.folder()?;
        let path = self.real(&self.folder.join(relative))?;
        // It was there just now: what is mounted is being swapped, which says nothing about what is in it.
        let unreadable = |error: io::Error| match unreadable(&key, &error) {
            StoreError::NotFound(why) => StoreError::Unavailable(why),
            error => error,
        };
        let mut bytes = Zeroizing::new(Vec::new());
        let file = std::fs::File::open(&path).map_err(unreadable)?;
        if !file.metadata().map_err(unreadable)?.is_file() {
            return Err(StoreError::Invalid(format!("{key} is no file")));
        }
        let most = u64::try_from(MAX_VALUE).unwrap_or(u64::MAX);
        file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() > MAX_VALUE {
            return Err(StoreError::Invalid(format!("{key} is longer than {MAX_VALUE} bytes")));
        }
        Ok(Content::Bytes(bytes))
    }

    fn list(&self, find: &Find) -> Result<Vec<String>, StoreError> {
        let (matcher, mut folders, mut found) = (Matcher::of(find)?, vec![(String::new(), 0)], Vec::new());
        self.folder()?;
        while let Some((below, depth)) = folders.pop() {
            let entries = match std::fs::read_dir(self.folder.join(&below)) {
                // One of many, which is not for us, like `lost+found`, says nothing about the others.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !below.is_empty() => continue,
                entries => entries,
            };
            let entries =
                entries.map_err(|error| StoreError::Unavailable(format!("{} cannot be listed: {error}", self.folder.display())))?;
            for entry in entries.flatten() {
                // `..data` and the like are how Kubernetes and CSI drivers swap contents.
                let Some(name) = entry.file_name().into_string().ok().filter(|name| !name.starts_with("..")) else { continue };
                let key = if below.is_empty() { name } else { format!("{below}/{name}") };
                let path = self.folder.join(&key);
                if self.real(&path).is_err() {
                    continue; // a link that leads out
                }
                match std::fs::metadata(path) {
                    Ok(of) if of.is_dir() && depth < MAX_DEPTH => folders.push((key, depth + 1)),
                    Ok(of) if of.is_file() && matcher.matches(&key) => found.push(key),
                    _ => {}
                }
                if found.len() > MAX_FILES || folders.len() > MAX_FILES {
                    return Err(StoreError::Invalid(format!("find looks through more than {MAX_FILES} files; narrow the folder")));
                }
            }
        }
        Ok(found)
    }

    /// A file system may take its time.
    async fn apart<T: Send + 'static>(&self, work: impl FnOnce(&Self) -> Result<T, StoreError> + Send + 'static) -> Result<T, StoreError> {
        let open = self.clone();
        let stopped = || StoreError::Unavailable("the folder could not be read".into());
        let turn = self.turn.clone().acquire_owned().await.map_err(|_| stopped())?;
        // The turn ends with the work, not with who waits for it.
        let work = move || {
            let _turn = turn;
            work(&open)
        };
        tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(stopped()))
    }
}

impl OpenStore for Open {
    fn read<'a>(&'a self, place: &'a Place) -> BoxFuture<'a, Result<Stored, StoreError>> {
        async move {
            if place.version.is_some() {
                return Err(StoreError::Invalid(format!("remoteRef.version of {}: the store file has no versions", place.key)));
            }
            let key = place.key.clone();
            let content = self.apart(move |open| open.file(&key)).await?;
            Ok(Stored { content, version: None })
        }
        .boxed()
    }

    fn find<'a>(&'a self, find: &'a Find) -> BoxFuture<'a, Result<Vec<String>, StoreError>> {
        async move {
            if !find.tags.is_empty() {
                return Err(StoreError::Invalid("find.tags: the store file has no tags".into()));
            }
            let find = find.clone();
            self.apart(move |open| open.list(&find)).await
        }
        .boxed()
    }

    fn write<'a>(&'a self, write: Write<'a>) -> BoxFuture<'a, Result<Option<String>, StoreError>> {
        async move { Err(StoreError::Invalid(format!("{}: the store file cannot be written to", write.key))) }.boxed()
    }

    fn check(&self) -> BoxFuture<'_, Result<(), StoreError>> {
        self.apart(|open| open.folder().map(|_| ())).boxed()
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use super::*;
    use crate::{secrets::store::Allowed, testing::secrets::Secrets};

    #[tokio::test]
    async fn only_files_below_the_folder_are_given_out() {
        let root = std::env::temp_dir().join(format!("seaworthy-file-store-{}", std::process::id()));
        let (mounted, other) = (root.join("mounted"), root.join("other"));
        // As the kubelet mounts a Secret.
        std::fs::create_dir_all(mounted.join("..2026/deep")).unwrap();
        std::fs::create_dir_all(&other).unwrap();
        std::fs::write(mounted.join("..2026/password"), "p").unwrap();
        std::fs::write(other.join("hidden"), "h").unwrap();
        symlink("..2026", mounted.join("..data")).unwrap();
        symlink("..data/password", mounted.join("password")).unwrap();
        symlink(other.join("hidden"), mounted.join("leak")).unwrap();
        symlink(&root, mounted.join("up")).unwrap();
        std::fs::write(mounted.join("large"), vec![b'x'; MAX_VALUE + 1]).unwrap();
        let open = |folder: &Path, allowed: &[&Path]| Open {
            folder: folder.into(),
            allowed: allowed.iter().map(|path| path.to_path_buf()).collect(),
            turn: Arc::new(Semaphore::new(1)),
        };
        let good = open(&mounted, &[&mounted]);
        assert_eq!(good.file("password").unwrap(), Content::Bytes(b"p".to_vec().into()));
        for (key, wanted) in [
            ("none", "is not there"),
            ("leak", "not in a folder"),
            ("up/other/hidden", "not in a folder"),
            ("../other/hidden", "is no path"),
            ("/etc/passwd", "is no path"),
            ("large", "is longer"),
            ("..data", "is no file"),
            ("password/below", "is not there"),
            (&"x".repeat(300), "cannot be read"),
            ("a\0b", "cannot be read"),
        ] {
            let error = good.file(key).unwrap_err();
            assert!(error.to_string().contains(wanted), "{key}: {error}");
            assert!(!error.is_store_wide(), "{key}: one of many says nothing about the folder: {error:?}");
        }
        // A folder that is not mounted is a store that is away, for who reads and for who checks.
        let away = open(&root.join("none"), &[&root]);
        assert!(matches!(away.file("password"), Err(StoreError::Unavailable(_))));
        assert!(matches!(away.check().await, Err(StoreError::Unavailable(_))));
        let find: Find = serde_json::from_value(serde_json::json!({"name": {"regexp": "^pass"}})).unwrap();
        assert_eq!(good.list(&find).unwrap(), ["password"]);
        let all = Find { path: None, name: None, tags: std::collections::BTreeMap::new() };
        let mut found = good.list(&all).unwrap();
        found.sort();
        assert_eq!(found, ["large", "password"], "no link is followed out of the folder");
        for refused in [open(&other, &[&mounted]), open(&mounted, &[])] {
            assert!(matches!(refused.file("hidden"), Err(StoreError::Denied(_))));
            assert!(matches!(refused.list(&find), Err(StoreError::Denied(_))));
        }
        std::fs::remove_dir_all(root).unwrap();
    }

    /// Who waits for it goes on when it is dropped.
    struct Pipe(PathBuf);

    impl Drop for Pipe {
        fn drop(&mut self) {
            drop(std::fs::File::options().read(true).write(true).open(&self.0));
        }
    }

    #[tokio::test]
    async fn a_mount_that_hangs_takes_one_thread() {
        let root = std::env::temp_dir().join(format!("seaworthy-file-store-hangs-{}", std::process::id()));
        let (hanging, other) = (root.join("hanging"), root.join("other"));
        for folder in [&hanging, &other] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::write(folder.join("password"), "p").unwrap();
        }
        // Opening it waits for who writes.
        let pipe = Pipe(hanging.join("pipe"));
        assert!(std::process::Command::new("mkfifo").arg(&pipe.0).status().unwrap().success());
        let (allowed, secrets) = (Allowed { folders: vec![root.clone()], ..Allowed::default() }, Secrets::default());
        let store = async |folder: &Path| {
            let opening = Opening { secrets: &secrets, namespace: "n", cluster: None, writer: None, allowed: &allowed };
            Spec { path: folder.to_str().unwrap().into() }.open(opening).await.unwrap()
        };
        let read = async |folder: &Path, key: &str, millis: u64| {
            let (store, place) = (store(folder).await, Place { key: key.into(), version: None });
            tokio::time::timeout(Duration::from_millis(millis), store.read(&place)).await
        };
        for key in ["pipe", "password", "password"] {
            assert!(read(&hanging, key, 100).await.is_err(), "{key}: whoever opened the store waits for the first");
        }
        assert!(read(&other, "password", 30_000).await.unwrap().is_ok(), "who looks elsewhere does not");
        drop(pipe);
        assert!(read(&hanging, "password", 30_000).await.unwrap().is_ok());
        std::fs::remove_dir_all(root).unwrap();
    }
}
