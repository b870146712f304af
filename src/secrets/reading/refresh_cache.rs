//! What Secrets were made of, as keyed hashes in memory. When the time of a remote key has come, that key alone is read; if it is as it was when the Secret
//! was made, nothing else has to be, and if not, the rest is read as well. A new process reads everything of a resource once.

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use aws_lc_rs::hmac;
use jiff::Timestamp;

use super::{
    read::{Reading, Source},
    refresh_times::due,
};
use crate::{
    api::{SecretRotation, secret_rotation::SecretRotationSpec},
    cluster::noticed,
    ids,
    secrets::{
        contents::compose::Remote,
        context::{Context, Facts},
        index::{Key, find_key, refresh_keys},
        memory::Memory,
        status::Problem,
        store::{Answer, Content, Find, Place, StoreError},
    },
};

/// A keyed hash of what was read.
type Tag = [u8; 16];

/// What a Secret was made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// From which spec, and which store with which credentials.
    of: String,
    /// In the order of places.
    values: Vec<(Place, Tag)>,
    found: Vec<(Find, Tag)>,
    /// Until when all of it was so.
    last: Timestamp,
    /// The Secret that was made of it, as its hashes are written down with it.
    secret: String,
}

/// What the Secrets were made of, by resource.
pub struct RefreshCache {
    key: hmac::Key,
    of: Mutex<Resources>,
}

#[derive(Default)]
struct Resources {
    made: HashMap<Key, Arc<Snapshot>>,
    /// When what they push was compared.
    compared: HashMap<Key, Timestamp>,
    /// When so many are there, those of resources that are gone are looked for.
    room: usize,
}

impl Resources {
    fn make_room(&mut self, is_there: impl Fn(&Key) -> bool) {
        if self.made.len().max(self.compared.len()) < self.room {
            return;
        }
        self.made.retain(|key, _| is_there(key));
        self.compared.retain(|key, _| is_there(key));
        self.room = (self.made.len().max(self.compared.len()) * 2).max(1000);
    }
}

impl Default for RefreshCache {
    fn default() -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, ids::random::<32>().as_bytes());
        Self { key, of: Mutex::default() }
    }
}

impl RefreshCache {
    /// What is made of `remote`. None: it can only be made anew as a whole.
    pub fn snapshot(
        &self,
        spec: &SecretRotationSpec,
        source: &Source,
        (request, remote): (&str, &Remote),
        now: Timestamp,
    ) -> Option<Snapshot> {
        let values: Option<Vec<_>> = remote.values.iter().map(|(place, answer)| Some((place.clone(), self.value(answer)?))).collect();
        let found: Vec<_> = remote.found.iter().map(|(find, names)| (find.clone(), self.names(names))).collect();
        let mut values = values.filter(|values| values.len() + found.len() + spec.push.len() > 1)?; // of one key there is no rest
        values.sort();
        Some(Snapshot { of: identity(source, request), values, found, last: now, secret: String::new() })
    }

    /// What the Secret was made of is not so any more.
    pub fn forget(&self, who: &Key) {
        self.all().made.remove(who);
    }

    /// The Secret that `memory` stands with is now made of this.
    pub fn record(&self, who: Key, made: Snapshot, memory: &Memory, is_there: impl Fn(&Key) -> bool) {
        let made = Snapshot { secret: secret(memory), ..made };
        let mut all = self.all();
        all.make_room(is_there);
        all.made.insert(who, Arc::new(made));
    }

    /// All that `spec.push` names was compared with the store, as far as it was due.
    pub fn mark_compared(&self, who: Key, now: Timestamp, is_there: impl Fn(&Key) -> bool) {
        let mut all = self.all();
        all.make_room(is_there);
        all.compared.insert(who, now);
    }

    /// All that is pushed is to be compared, or, if not `owed`, what has been due since `last`; until [`RefreshCache::mark_compared`].
    pub fn require_comparison(&self, who: Key, owed: bool, last: Option<Timestamp>, is_there: impl Fn(&Key) -> bool) {
        let mut all = self.all();
        all.make_room(is_there);
        match (all.compared.entry(who), last) {
            (entry, _) if owed => drop(entry.insert_entry(Timestamp::UNIX_EPOCH)),
            (Entry::Vacant(vacant), Some(last)) => drop(vacant.insert_entry(last)),
            _ => {}
        }
    }

    /// When it was compared last; [`Timestamp::UNIX_EPOCH`]: all of it is owed. A time that is yet to come tells nothing.
    pub fn last_compared(&self, who: &Key, now: Timestamp) -> Option<Timestamp> {
        self.all().compared.get(who).copied().filter(|compared| *compared <= now)
    }

    /// When the store was read last: later than what stands in status, which is not written each time. A time that is yet to come tells nothing: the clock
    /// has been set back.
    pub fn last_read(&self, rotation: &SecretRotation, status: Option<Timestamp>, now: Timestamp) -> Option<Timestamp> {
        let (who, all) = (noticed::key(rotation), self.all());
        let made = || all.made.get(&who).map(|made| made.last);
        let looked = if rotation.spec.is_push_only() { all.compared.get(&who).copied() } else { made() };
        let looked = looked.filter(|looked| *looked <= now);
        status.filter(|status| *status <= now).map(|status| looked.map_or(status, |looked| looked.max(status)))
    }

    /// What the times of its reads are spread by: what its spec names, and what was found for it.
    pub fn refresh_keys(&self, rotation: &SecretRotation) -> BTreeSet<String> {
        let mut words = refresh_keys(&rotation.spec);
        if rotation.spec.data_from.iter().any(|from| from.find.is_some())
            && let Some(made) = self.of(&noticed::key(rotation))
        {
            words.extend(made.values.iter().map(|(place, _)| place.key.clone()));
        }
        words
    }

    fn of(&self, who: &Key) -> Option<Arc<Snapshot>> {
        self.all().made.get(who).cloned()
    }

    fn all(&self) -> MutexGuard<'_, Resources> {
        self.of.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// None: of this error nothing is known for later.
    fn value(&self, answer: &Answer) -> Option<Tag> {
        match answer.as_ref() {
            Ok(stored) => Some(match &stored.content {
                Content::Bytes(bytes) => self.tag([b"bytes".as_slice(), bytes].into_iter()),
                Content::Map(map) => self.tag(map.iter().flat_map(|(key, value)| [key.as_bytes(), value])),
            }),
            Err(StoreError::NotFound(_)) => Some(self.tag([b"gone".as_slice()].into_iter())),
            Err(_) => None,
        }
    }

    fn names(&self, names: &[String]) -> Tag {
        let names: BTreeSet<&String> = names.iter().collect();
        self.tag(names.into_iter().map(String::as_bytes))
    }

    fn tag<'a>(&self, parts: impl Iterator<Item = &'a [u8]>) -> Tag {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
            context.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            context.update(part);
        }
        let mut tag = Tag::default();
        tag.iter_mut().zip(context.sign().as_ref()).for_each(|(tag, byte)| *tag = *byte);
        tag
    }
}

fn secret(memory: &Memory) -> String {
    ids::short(serde_json::to_string(&memory.values).unwrap_or_default().as_bytes())
}

fn identity(source: &Source, request: &str) -> String {
    ids::short(format!("{request} {}", source.connection.id()).as_bytes())
}

/// What a look at what is due has found.
pub enum Found {
    /// All is as it was.
    Same,
    /// It is not, or it is not known how it was; this was read.
    Other(Remote),
}

/// Reads what is due, and nothing else.
pub(in crate::secrets) async fn look(
    context: &Context,
    rotation: &SecretRotation,
    source: &Source,
    (facts, memory): (&Facts, &Memory),
) -> Result<Found, Problem> {
    let who = noticed::key(rotation);
    let made = context.refresh_cache.of(&who).filter(|made| made.of == identity(source, &facts.request) && made.secret == secret(memory));
    let Some((made, last)) = made.zip(facts.last_sync) else { return Ok(Found::Other(Remote::default())) };
    let is_due = |word: &str| due(&rotation.spec, word, Some(last), facts.now).is_some();
    let finds: Vec<&Find> = made.found.iter().map(|(find, _)| find).filter(|find| is_due(&find_key(find))).collect();
    let places = made.values.iter().map(|(place, _)| place).filter(|place| is_due(&place.key)).cloned().collect();
    let read = context.steps.run("read", Reading::of(context, rotation, source, &facts.plan).some(finds, places)).await?;
    let known = &context.refresh_cache;
    let value = |place: &Place| made.values.binary_search_by(|(known, _)| known.cmp(place)).ok().and_then(|at| made.values.get(at));
    let found = |find: &Find| made.found.iter().find(|(known, _)| known == find).map(|(_, tag)| *tag);
    let same = read.found.iter().all(|(find, names)| found(find) == Some(known.names(names)))
        && read
            .values
            .iter()
            .all(|(place, answer)| known.value(answer).is_some_and(|tag| value(place).is_some_and(|(_, before)| *before == tag)));
    if !same {
        return Ok(Found::Other(read));
    }
    known.record(who, Snapshot { last: facts.now, ..Snapshot::clone(&made) }, memory, |key| context.index.read(|index| index.has(key)));
    Ok(Found::Same)
}
