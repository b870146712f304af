//! The clusters that tests share, and a namespace for each test.

use k8s_openapi::{
    api::{
        authentication::v1::{TokenRequest, TokenRequestSpec},
        core::v1::{Namespace as NamespaceObject, Secret, ServiceAccount},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use seaworthy::api::{CertificateRotation, SecretStore};
use serde_json::{Value, json};

use super::{Between, Operator, Vault, eventually};

/// One that `tests/with-cluster.sh` started.
pub struct Cluster {
    /// The path of its administrator's kubeconfig.
    pub kubeconfig: String,
    /// As its administrator.
    pub client: Client,
    /// As the chart's ServiceAccount: with exactly the rights that users give the operator.
    pub operator: Client,
    /// The same, to connect in another way.
    pub operator_config: Config,
    /// Its token.
    pub token: String,
}

impl Cluster {
    /// The shared one.
    pub async fn shared() -> Self {
        Self::of("SEAWORTHY_TEST_KUBECONFIG").await
    }

    /// The shared one without a node, where the test says what runs.
    pub async fn without_node() -> Self {
        Self::of("SEAWORTHY_TEST_CONTROL_PLANE").await
    }

    async fn of(variable: &str) -> Self {
        let path = std::env::var(variable)
            .expect("there is no cluster to test against; run `make test`, or `tests/with-cluster.sh cargo test --test it NAME`");
        Self::at(&path).await
    }

    /// The one of a kubeconfig, with the chart installed.
    pub async fn at(kubeconfig: &str) -> Self {
        seaworthy::install_crypto_provider();
        super::log::keep();
        let config =
            Config::from_custom_kubeconfig(Kubeconfig::read_from(kubeconfig).unwrap(), &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config.clone()).unwrap();
        let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "seaworthy");
        let spec = TokenRequestSpec { expiration_seconds: Some(7200), ..TokenRequestSpec::default() };
        let request = TokenRequest { spec: Some(spec), ..TokenRequest::default() };
        let token: String =
            accounts.create_token_request("seaworthy", &PostParams::default(), &request).await.unwrap().status.unwrap().token.unwrap();
        let mut as_operator = config;
        as_operator.auth_info = kube::config::AuthInfo { token: Some(token.clone().into()), ..kube::config::AuthInfo::default() };
        let operator = Client::try_from(as_operator.clone()).unwrap();
        super::between::is_never_sent(&token);
        Self { kubeconfig: kubeconfig.into(), client, operator, operator_config: as_operator, token }
    }

    /// Creates a SecretStore.
    pub async fn secret_store(&self, name: &str, spec: Value) -> Api<SecretStore> {
        let stores: Api<SecretStore> = Api::all(self.client.clone());
        let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": name}, "spec": spec});
        stores.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
        stores
    }

    /// Creates a Secret in the operator's namespace.
    pub async fn operators_secret(&self, name: &str, data: Value) -> Api<Secret> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), "seaworthy");
        let object = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data})).unwrap();
        secrets.create(&PostParams::default(), &object).await.unwrap();
        secrets
    }

    /// A kubeconfig of the ServiceAccount for another process, with the API server at `address`.
    pub fn operator_kubeconfig(&self, address: &str) -> String {
        let certificates = self.operator_config.root_cert.clone().unwrap_or_default();
        let pem: String =
            certificates.iter().map(|der| seaworthy::certificates::x509::Certificate::from_der(der).unwrap().to_pem()).collect();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{"name": "c", "cluster": {"server": format!("https://{address}"), "certificate-authority-data": k8s_openapi::ByteString(pem.into_bytes())}}],
            "users": [{"name": "u", "user": {"token": self.token}}],
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        })
        .to_string()
    }

    /// The operator's own namespace.
    pub fn home(&self) -> Namespace {
        Namespace { kubeconfig: self.kubeconfig.clone(), client: self.client.clone(), name: "seaworthy".into() }
    }

    /// A new namespace for one test.
    pub async fn namespace(&self, test: &str) -> Namespace {
        let object = NamespaceObject {
            metadata: ObjectMeta {
                generate_name: Some(format!("{test}-")),
                labels: Some([("test".to_owned(), test.to_owned())].into()),
                ..ObjectMeta::default()
            },
            ..NamespaceObject::default()
        };
        let created = Api::<NamespaceObject>::all(self.client.clone()).create(&PostParams::default(), &object).await.unwrap();
        Namespace { kubeconfig: self.kubeconfig.clone(), client: self.client.clone(), name: created.name_any() }
    }

    /// An operator that looks after `namespace` alone, in this process.
    pub fn operator(&self, namespace: &Namespace) -> Operator {
        Operator::start(self.operator.clone(), vec![namespace.name.clone()], &namespace.name)
    }

    /// The same with a clock that has been moved already.
    pub fn operator_with(&self, namespace: &Namespace, clock: seaworthy::clock::Clock) -> Operator {
        Operator::start_with(self.operator.clone(), vec![namespace.name.clone()], &namespace.name, clock)
    }
}

/// A namespace. When a test fails, what is in it is printed.
pub struct Namespace {
    kubeconfig: String,
    pub client: Client,
    pub name: String,
}

impl Namespace {
    pub fn rotations(&self) -> Api<CertificateRotation> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Creates a CertificateRotation; `spec` over the least that is needed.
    pub async fn create(&self, name: &str, spec: Value) -> CertificateRotation {
        self.try_create(name, spec).await.unwrap_or_else(|error| panic!("{name} was refused: {error}"))
    }

    /// The same, and the API server's answer.
    pub async fn try_create(&self, name: &str, spec: Value) -> Result<CertificateRotation, kube::Error> {
        let mut whole = json!({"secretName": format!("{name}-tls"), "dnsNames": ["a.example"], "issuer": {"selfSigned": {}}});
        merge(&mut whole, spec);
        let object =
            json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "CertificateRotation", "metadata": {"name": name}, "spec": whole});
        let params = PatchParams { field_validation: Some(kube::core::params::ValidationDirective::Strict), ..PatchParams::apply("test") };
        self.rotations().patch(name, &params, &Patch::Apply(object)).await
    }

    /// Merges `change` into the spec.
    pub async fn change(&self, name: &str, change: Value) {
        self.rotations().patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": change}))).await.unwrap();
    }

    /// Sets an annotation, which also makes the operator look.
    pub async fn annotate(&self, name: &str, key: &str, value: &str) {
        self.rotations()
            .patch(name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"annotations": {key: value}}})))
            .await
            .unwrap();
    }

    /// Waits until the object's status is as `wanted`.
    pub async fn until(&self, name: &str, what: &str, wanted: impl Fn(&CertificateRotation) -> bool) -> CertificateRotation {
        let api = self.rotations();
        eventually(&format!("{}/{name}: {what}", self.name), || async {
            let object = api.get(name).await.map_err(|error| error.to_string())?;
            if wanted(&object) { Ok(object) } else { Err(serde_json::to_string(&object.status).unwrap()) }
        })
        .await
    }

    /// Waits until it is Ready in the present generation with this revision.
    pub async fn ready(&self, name: &str, revision: i64) -> CertificateRotation {
        self.until(name, &format!("Ready with revision {revision}"), |object| {
            let status = object.status.clone().unwrap_or_default();
            condition(object, "Ready").is_some_and(|(status, ..)| status == "True")
                && status.revision == Some(revision)
                && status.observed_generation == object.metadata.generation
        })
        .await
    }

    /// Waits until a condition has this status and reason; returns its message.
    pub async fn says(&self, name: &str, kind: &str, status: &str, reason: &str) -> String {
        let object = self
            .until(name, &format!("{kind}={status} {reason}"), |object| {
                condition(object, kind).is_some_and(|(now, why, _)| now == status && why == reason)
            })
            .await;
        condition(&object, kind).unwrap().2
    }

    /// The text of one key of a Secret.
    pub async fn text(&self, secret: &str, key: &str) -> String {
        let secret = self.secrets().get(secret).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    /// Creates a Secret.
    pub async fn secret(&self, name: &str, kind: &str, data: &[(&str, &str)]) {
        let data: serde_json::Map<String, Value> = data.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
        let secret: Secret = serde_json::from_value(json!({"metadata": {"name": name}, "type": kind, "stringData": data})).unwrap();
        self.secrets().create(&PostParams::default(), &secret).await.unwrap();
    }

    /// A SecretRotation's store: this Vault, with a token from a Secret `vault` that is made here.
    pub async fn store_in(&self, vault: &Vault) -> Value {
        self.secret("vault", "Opaque", &[("token", &vault.root)]).await;
        vault.by_token()
    }

    /// The same through what stands between.
    pub async fn store_through(&self, between: &Between, vault: &Vault) -> Value {
        let mut store = self.store_in(vault).await;
        store["vault"]["server"] = between.address.clone().into();
        store
    }

    /// The AWS at `address` as a store, with credentials in the Secret `aws`; the emulator takes any.
    pub async fn store_in_aws(&self, address: &str) -> Value {
        self.secret("aws", "Opaque", &[("id", "AKIAEXAMPLE"), ("secret", "s")]).await;
        let key = |key: &str| json!({"name": "aws", "key": key});
        let auth = json!({"secretRef": {"accessKeyID": key("id"), "secretAccessKey": key("secret")}});
        json!({"aws": {"region": "us-east-1", "endpoint": address, "auth": auth}})
    }

    /// Deletes a Secret.
    pub async fn delete_secret(&self, name: &str) {
        self.secrets().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until so many events gave this reason, and no more.
    pub async fn told(&self, reason: &str, times: usize) {
        eventually(&format!("{} told of {reason} {times} times", self.name), || async {
            let events = Api::<Event>::namespaced(self.client.clone(), &self.name).list(&ListParams::default()).await;
            let reasons: Vec<String> = events.unwrap().items.into_iter().map(|event| event.reason.unwrap_or_default()).collect();
            let told = reasons.iter().filter(|told| *told == reason).count();
            assert!(told <= times, "{reason}: {told} times: {reasons:?}");
            if told == times { Ok(()) } else { Err(format!("{reasons:?}")) }
        })
        .await;
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // A thread of its own, because this one is inside a runtime.
            let arguments =
                ["--kubeconfig", &self.kubeconfig, "-n", &self.name, "get", "certificaterotations,secretrotations,events", "-o", "yaml"];
            let output = std::process::Command::new("kubectl").args(arguments).output();
            let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
            eprintln!(
                "--- what is in namespace {}:\n{text}\n--- what the operator logged about it:\n{}",
                self.name,
                super::log::about(&self.name)
            );
        }
    }
}

/// Status, reason and message of a condition.
pub fn condition(object: &CertificateRotation, kind: &str) -> Option<(String, String, String)> {
    let status = object.status.as_ref()?;
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind)?;
    Some((condition.status.clone(), condition.reason.clone(), condition.message.clone()))
}

fn merge(whole: &mut Value, part: Value) {
    match (whole, part) {
        (Value::Object(whole), Value::Object(part)) => {
            for (key, value) in part {
                // An issuer is exactly one: it is replaced, not added to.
                if key == "issuer" || value.is_null() {
                    whole.remove(&key);
                }
                if !value.is_null() {
                    merge(whole.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (whole, part) => *whole = part,
    }
}
