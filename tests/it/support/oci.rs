//! The two services of OCI Vault, the federation service and what gives tokens for workload identity, written from Oracle's API reference: no
//! emulator of them is to be had. It believes no request whose signature does not fit.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
};

use aws_lc_rs::{
    encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der},
    rsa::KeySize,
    signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey},
};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

pub const VAULT: &str = "ocid1.vault.oc1..vault";
pub const COMPARTMENT: &str = "ocid1.compartment.oc1..compartment";
pub const KEY_ID: &str = "ocid1.tenancy.oc1..t/ocid1.user.oc1..u/20:3b:97:13:55:1c:5b:0d:d3:37:d8:50:4e:c5:3a:34";
/// What the proxy for workload identity is asked with.
pub const POD_TOKEN: &str = "the-token-of-a-pod";

/// Versions are counted from 1.
#[derive(Default)]
struct Kept {
    versions: Vec<String>,
    current: usize,
    previous: usize,
    pending: usize,
    /// A change is under way, which whoever looks next sees, and nobody after.
    updating: bool,
    tags: Value,
    etag: u64,
    retired: HashSet<usize>,
}

impl Kept {
    fn add(&mut self, content: String) {
        self.versions.push(content);
        self.promote(self.versions.len());
    }

    /// There is one pending version at most.
    fn stage(&mut self, content: String) {
        self.versions.push(content);
        (self.pending, self.updating) = (self.versions.len(), true);
        self.etag += 1;
    }

    fn promote(&mut self, number: usize) {
        (self.previous, self.current) = (self.current, number);
        if self.pending == number {
            self.pending = 0;
        }
        self.etag += 1;
    }

    fn stages(&self, number: usize) -> Vec<&'static str> {
        let all = [("CURRENT", self.current), ("PENDING", self.pending), ("PREVIOUS", self.previous), ("LATEST", self.versions.len())];
        let stages: Vec<_> = all.into_iter().filter(|(_, at)| *at == number).map(|(stage, _)| stage).collect();
        if stages.is_empty() { vec!["DEPRECATED"] } else { stages }
    }
}

#[derive(Default)]
struct World {
    secrets: BTreeMap<String, Kept>,
    /// By key id.
    keys: BTreeMap<String, Vec<u8>>,
    /// May not be read.
    hidden: HashSet<String>,
    /// May not be listed.
    blind: bool,
    /// Is being changed by somebody, and cannot be written to.
    busy: HashSet<String>,
    /// Every answer is this.
    broken: Option<u16>,
    /// The next change is made, and nobody hears of it.
    lost: bool,
    /// Whose ServiceAccount tokens are changed into one of ours: `system:serviceaccount:NAMESPACE:NAME`.
    accounts: HashSet<String>,
    /// How often a token was given.
    sessions: usize,
    /// Versions by their names.
    names: BTreeMap<(String, String), usize>,
}

/// Both services at one address. Dropping it ends it.
pub struct Oci {
    pub address: String,
    pub private: String,
    world: Arc<Mutex<World>>,
    server: tokio::task::JoinHandle<()>,
}

impl Oci {
    pub async fn start() -> Self {
        seaworthy::install_crypto_provider();
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let (public, private): (PublicKeyX509Der<'_>, Pkcs8V1Der<'_>) = (key.public_key().as_der().unwrap(), key.as_der().unwrap());
        let world = Arc::new(Mutex::new(World::default()));
        world.lock().unwrap().keys.insert(KEY_ID.into(), public.as_ref().to_vec());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let service = Router::new().fallback(answer).with_state(world.clone());
        let server = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { address, private: seaworthy::keys::pem::pem("PRIVATE KEY", private.as_ref()), world, server }
    }

    pub fn put(&self, name: &str, content: &str) {
        let mut world = self.world.lock().unwrap();
        world.secrets.entry(name.into()).or_default().add(STANDARD.encode(content));
    }

    pub fn tag(&self, name: &str, tags: Value) {
        self.world.lock().unwrap().secrets.get_mut(name).unwrap().tags = tags;
    }

    pub fn get(&self, name: &str) -> String {
        let world = self.world.lock().unwrap();
        let kept = &world.secrets[name];
        String::from_utf8(STANDARD.decode(&kept.versions[kept.current - 1]).unwrap()).unwrap()
    }

    /// How many versions there are.
    pub fn versions(&self, name: &str) -> usize {
        self.world.lock().unwrap().secrets[name].versions.len()
    }

    /// The versions whose deletion is scheduled.
    pub fn retired(&self, name: &str) -> HashSet<usize> {
        self.world.lock().unwrap().secrets[name].retired.clone()
    }

    /// Names a version.
    pub fn name(&self, name: &str, version: &str, number: usize) {
        self.world.lock().unwrap().names.insert((name.into(), version.into()), number);
    }

    pub fn hide(&self, name: &str) {
        self.world.lock().unwrap().hidden.insert(name.into());
    }

    /// Whether it is being changed by somebody.
    pub fn busy(&self, name: &str, busy: bool) {
        let names = &mut self.world.lock().unwrap().busy;
        if busy {
            names.insert(name.into())
        } else {
            names.remove(name)
        };
    }

    pub fn blind(&self, blind: bool) {
        self.world.lock().unwrap().blind = blind;
    }

    /// The next change of a secret is made, and its answer lost.
    pub fn lose(&self) {
        self.world.lock().unwrap().lost = true;
    }

    pub fn broken(&self, status: Option<u16>) {
        self.world.lock().unwrap().broken = status;
    }

    pub fn sessions(&self) -> usize {
        self.world.lock().unwrap().sessions
    }

    /// Whose requests are believed, too.
    pub fn trust(&self, key_id: &str, public: &[u8]) {
        self.world.lock().unwrap().keys.insert(key_id.into(), public.to_vec());
    }

    /// Which ServiceAccount is believed, if its token is for the audience `api`.
    pub fn believe(&self, account: &str) {
        self.world.lock().unwrap().accounts.insert(account.into());
    }

    /// As it stands in a resource; the Secret `oci` holds the key.
    pub fn store(&self) -> Value {
        Self::store_at(&self.address)
    }

    /// The same through what stands between.
    pub fn store_at(address: &str) -> Value {
        let (tenancy, rest) = KEY_ID.split_once('/').unwrap();
        let (user, fingerprint) = rest.split_once('/').unwrap();
        let auth = json!({"apiKey": {"tenancy": tenancy, "user": user, "fingerprint": fingerprint, "privateKeySecretRef": {"name": "oci", "key": "key.pem"}}});
        json!({"oci": {"region": "eu-frankfurt-1", "vault": VAULT, "compartment": COMPARTMENT, "encryptionKey": "ocid1.key.oc1..key",
            "endpoints": {"secrets": address, "vaults": address}, "auth": auth}})
    }
}

impl Drop for Oci {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn failed(status: u16, code: &str) -> Response {
    let body = json!({"code": code, "message": format!("a message about {code}")}).to_string();
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

/// Whether the signature is of this request and of a key that is known: over the headers that it names, in their order.
fn is_signed(world: &World, method: &Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> bool {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some(parameters) = header("authorization").strip_prefix("Signature ") else { return false };
    let parameter = |name: &str| parameters.split(&format!("{name}=\"")).nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
    let names: Vec<&str> = parameter("headers").split(' ').collect();
    let federation = uri.path() == "/v1/x509";
    let needed = ["date", "(request-target)"].into_iter().chain((!federation).then_some("host"));
    let with_body = ["content-length", "content-type", "x-content-sha256"].into_iter().filter(|_| method != Method::GET);
    if !needed.chain(with_body).all(|name| names.contains(&name)) || parameter("version") != "1" || parameter("algorithm") != "rsa-sha256" {
        return false;
    }
    let digest = STANDARD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, body));
    if method != Method::GET && (header("x-content-sha256") != digest || header("content-length") != body.len().to_string()) {
        return false;
    }
    let line = |name: &&str| match *name {
        "(request-target)" => format!("(request-target): {} {uri}", method.as_str().to_lowercase()),
        "host" if headers.contains_key("x-forwarded-host") => format!("host: {}", header("x-forwarded-host")),
        name => format!("{name}: {}", header(name)),
    };
    let text = names.iter().map(line).collect::<Vec<_>>().join("\n");
    let Some(key) = world.keys.get(parameter("keyId")) else { return false };
    let signature = STANDARD.decode(parameter("signature")).unwrap_or_default();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key).verify(text.as_bytes(), &signature).is_ok()
}

/// A token that lasts, for a key that comes with the request.
fn session(world: &mut World, public: &str) -> String {
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!({"exp": 32_491_565_012_i64}).to_string());
    world.sessions += 1;
    let token = format!("e30.{claims}.{}", world.sessions);
    world.keys.insert(format!("ST${token}"), STANDARD.decode(public).unwrap());
    token
}

/// Whether who asks is a Pod that may.
fn is_believed(world: &World, headers: &HeaderMap) -> bool {
    let token = headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")).unwrap_or_default();
    let claims = token.split('.').nth(1).map(|claims| base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(claims).unwrap());
    let claims: Value = claims.map(|claims| serde_json::from_slice(&claims).unwrap()).unwrap_or_default();
    let is_known = claims["sub"].as_str().is_some_and(|account| world.accounts.contains(account)) && claims["aud"] == json!(["api"]);
    token == POD_TOKEN || is_known
}

async fn answer(State(world): State<Arc<Mutex<World>>>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    if super::between::has_own_token(&headers, &body) {
        return (StatusCode::INTERNAL_SERVER_ERROR, "the operator's own token came by").into_response();
    }
    let mut world = world.lock().unwrap();
    let sent: Value = serde_json::from_slice(&body).unwrap_or_default();
    if let Some(status) = world.broken {
        return failed(status, "TooManyRequests");
    }
    if uri.path() == "/resourcePrincipalSessionTokens" {
        if !is_believed(&world, &headers) {
            return failed(403, "NotAuthorized");
        }
        let token = session(&mut world, sent["podKey"].as_str().unwrap());
        return json!(STANDARD.encode(json!({"token": format!("ST${token}")}).to_string())).to_string().into_response();
    }
    if !is_signed(&world, &method, &uri, &headers, &body) {
        return failed(401, "NotAuthenticated");
    }
    if uri.path() == "/v1/x509" {
        let token = session(&mut world, sent["publicKey"].as_str().unwrap());
        return json!({"token": token}).to_string().into_response();
    }
    let url: reqwest::Url = format!("http://x{uri}").parse().unwrap();
    let query: BTreeMap<String, String> = url.query_pairs().into_owned().collect();
    let path: Vec<&str> = uri.path().trim_matches('/').split('/').collect();
    let matching = headers.get("if-match").and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
    match (method.as_str(), path.as_slice()) {
        ("POST", ["20190301", "secretbundles", "actions", "getByName"]) => bundle(&world, &query),
        ("GET", ["20180608", "secrets"]) => list(&world, &query),
        ("POST", ["20180608", "secrets"]) => create(&mut world, &sent),
        ("GET", ["20180608", "secrets", id]) => match world.secrets.get_mut(name_of(id)) {
            Some(kept) => {
                let answer = described(id, kept);
                kept.etag += u64::from(std::mem::take(&mut kept.updating));
                answer
            }
            None => failed(404, "NotAuthorizedOrNotFound"),
        },
        ("PUT", ["20180608", "secrets", id]) if is_busy(&world, name_of(id)) => failed(409, "IncorrectState"),
        ("PUT", ["20180608", "secrets", id]) => match world.secrets.get_mut(name_of(id)) {
            Some(kept) if matching.as_ref().is_none_or(|etag| *etag == kept.etag.to_string()) => {
                let (content, stage) = (sent["secretContent"]["content"].as_str(), sent["secretContent"]["stage"].as_str());
                match (content, stage, sent["currentVersionNumber"].as_u64()) {
                    (Some(content), Some("PENDING"), None) => kept.stage(content.into()),
                    (None, None, Some(number)) => kept.promote(number.try_into().unwrap()),
                    _ => panic!("what else is changed? {:?}", sent.as_object().map(|sent| sent.keys().collect::<Vec<_>>())),
                }
                let answer = described(id, kept);
                if std::mem::take(&mut world.lost) { failed(500, "InternalServerError") } else { answer }
            }
            Some(_) => failed(412, "NoEtagMatch"),
            None => failed(404, "NotAuthorizedOrNotFound"),
        },
        ("POST", ["20180608", "secrets", id, "version", number, "actions", "scheduleDeletion"]) => {
            let number: usize = number.parse().unwrap();
            let kept = world.secrets.get_mut(name_of(id)).unwrap();
            if kept.stages(number) != ["DEPRECATED"] {
                return failed(409, "IncorrectState"); // only what is deprecated
            }
            kept.retired.insert(number);
            StatusCode::OK.into_response()
        }
        _ => failed(404, "NotFound"),
    }
}

fn is_busy(world: &World, name: &str) -> bool {
    world.busy.contains(name) || world.secrets.get(name).is_some_and(|kept| kept.updating)
}

fn name_of(id: &str) -> &str {
    id.strip_prefix("ocid1.vaultsecret.").unwrap_or_default()
}

fn described(id: &str, kept: &Kept) -> Response {
    let body = json!({"id": id, "secretName": name_of(id), "lifecycleState": if kept.updating { "UPDATING" } else { "ACTIVE" }, "compartmentId": COMPARTMENT,
        "vaultId": VAULT, "currentVersionNumber": kept.current, "timeCreated": "2026-01-01T00:00:00Z"});
    ([("etag", kept.etag.to_string())], body.to_string()).into_response()
}

fn bundle(world: &World, query: &BTreeMap<String, String>) -> Response {
    assert_eq!(query["vaultId"], VAULT);
    let name = &query["secretName"];
    let Some(kept) = world.secrets.get(name).filter(|_| !world.hidden.contains(name)) else {
        return failed(404, "NotAuthorizedOrNotFound");
    };
    let number = match (query.get("versionNumber"), query.get("stage").map(String::as_str)) {
        (Some(number), _) => number.parse().unwrap(),
        (None, Some("PREVIOUS")) => kept.previous,
        (None, Some("LATEST")) => kept.versions.len(),
        (None, Some(stage @ ("PENDING" | "DEPRECATED"))) => {
            (1..=kept.versions.len()).rev().find(|number| kept.stages(*number).contains(&stage)).unwrap_or(0)
        }
        (None, Some("CURRENT")) => kept.current,
        (None, Some(stage)) => panic!("there is no stage {stage}"),
        (None, None) => match query.get("secretVersionName") {
            Some(named) => world.names.get(&(name.clone(), named.clone())).copied().unwrap_or(0),
            None => kept.current,
        },
    };
    let Some(content) = number.checked_sub(1).and_then(|place: usize| kept.versions.get(place)) else {
        return failed(404, "NotAuthorizedOrNotFound");
    };
    let stages = kept.stages(number);
    json!({"secretId": format!("ocid1.vaultsecret.{name}"), "versionNumber": number, "timeCreated": "2026-01-01T00:00:00Z",
        "secretBundleContent": {"contentType": "BASE64", "content": content}, "stages": stages})
    .to_string()
    .into_response()
}

/// One on each page.
fn list(world: &World, query: &BTreeMap<String, String>) -> Response {
    if world.blind || query["compartmentId"] != COMPARTMENT {
        return failed(404, "NotAuthorizedOrNotFound");
    }
    let wanted = |name: &&String| query.get("name").is_none_or(|wanted| wanted == *name);
    let names: Vec<&String> = world.secrets.keys().filter(wanted).collect();
    let state = |name: &str| if is_busy(world, name) { "UPDATING" } else { "ACTIVE" };
    let page: usize = query.get("page").map_or(0, |page| page.parse().unwrap());
    let one = names.get(page).map(|name| {
        json!({"id": format!("ocid1.vaultsecret.{name}"), "secretName": name, "lifecycleState": state(name), "freeformTags": world.secrets[*name].tags,
            "compartmentId": COMPARTMENT, "vaultId": VAULT, "timeCreated": "2026-01-01T00:00:00Z"})
    });
    let next = if page + 1 < names.len() { (page + 1).to_string() } else { String::new() };
    ([("opc-next-page", next)], json!(one.into_iter().collect::<Vec<_>>()).to_string()).into_response()
}

fn create(world: &mut World, sent: &Value) -> Response {
    for field in ["compartmentId", "keyId", "secretName", "vaultId"] {
        assert!(sent[field].is_string(), "{field}");
    }
    let name = sent["secretName"].as_str().unwrap();
    if world.secrets.contains_key(name) {
        return failed(409, "NotAuthorizedOrResourceAlreadyExists");
    }
    let content = sent["secretContent"]["content"].as_str().unwrap().to_owned();
    let mut kept = Kept::default();
    kept.add(content);
    let answer = described(&format!("ocid1.vaultsecret.{name}"), &kept);
    world.secrets.insert(name.into(), kept);
    answer
}
