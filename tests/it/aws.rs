//! AWS Secrets Manager, by an emulator.

use seaworthy::{
    secrets::{
        store::{Allowed, Content, OpenStore, Opening, Place, Store, StoreError, Write},
        stores::StoreSpec,
    },
    testing::secrets::Secrets,
};
use serde_json::{Value, json};

use crate::{
    cli::seaworthy_in,
    support::{self, Between, Cluster, Fault, Moto, Rotations, Workload, eventually, said},
};

fn spec(moto: &Moto) -> Value {
    let auth = json!({"secretRef": {"accessKeyID": {"name": "aws", "key": "id"}, "secretAccessKey": {"name": "aws", "key": "secret"}}});
    json!({"aws": {"region": "us-east-1", "endpoint": moto.address, "auth": auth}})
}

async fn open(spec: Value) -> Box<dyn OpenStore> {
    support::open(&spec, "aws", &[("id", "AKIAEXAMPLE"), ("secret", "s"), ("token", "t")]).await.unwrap()
}

fn place(key: &str, version: Option<&str>) -> Place {
    Place { key: key.into(), version: version.map(ToOwned::to_owned) }
}

fn bytes(text: &[u8]) -> Content {
    Content::Bytes(text.to_vec().into())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn versions_stages_bytes_and_conflicts() {
    let moto = Moto::start().await;
    let store = open(spec(&moto)).await;
    store.check().await.unwrap();
    // The emulator loses count of stages after the second move, so each promise has a value of its own.
    assert!(matches!(store.read(&place("none", None)).await, Err(StoreError::NotFound(_))));
    let write = |key: &'static str, content, expected| Write { key, content, expected, token: "rotation-1" };
    let first = bytes(br#"{"a": "1"}"#);
    let version = store.write(write("new", &first, None)).await.unwrap().unwrap();
    assert_eq!(store.write(write("new", &first, None)).await.unwrap().as_ref(), Some(&version), "asked again, it is the same version");
    let stored = store.read(&place("new", None)).await.unwrap();
    assert_eq!((&stored.content, stored.version.as_ref()), (&first, Some(&version)));
    let other = bytes(b"other");
    assert!(matches!(store.write(Write { token: "rotation-2", ..write("new", &other, None) }).await, Err(StoreError::Conflict(_))));

    let second = bytes(br#"{"a": "2"}"#);
    let newer = store.write(write("new", &second, Some(&version))).await.unwrap().unwrap();
    assert_ne!(newer, version);
    assert_eq!(store.read(&place("new", None)).await.unwrap().content, second);
    assert_eq!(store.read(&place("new", Some("AWSPREVIOUS"))).await.unwrap().content, first);
    assert_eq!(store.read(&place("new", Some(&version))).await.unwrap().content, first);
    assert!(store.retire("new", &version).await.unwrap());
    assert!(store.read(&place("new", Some("AWSPREVIOUS"))).await.is_err(), "without a stage it goes in time");
    assert!(store.retire("new", &version).await.unwrap(), "done already");
    let stale = Write { token: "rotation-3", ..write("new", &other, Some(&version)) };
    assert!(matches!(store.write(stale).await, Err(StoreError::Conflict(_))), "who rests on an old version is refused");
    assert_eq!(store.read(&place("new", None)).await.unwrap().content, second, "and changes nothing");

    // A secret that was made for somebody else to fill; and one that somebody else has filled.
    moto.call("CreateSecret", json!({"Name": "empty"})).await;
    assert!(matches!(store.read(&place("empty", None)).await, Err(StoreError::NotFound(_))));
    let filled = store.write(write("empty", &first, None)).await.unwrap();
    let stored = store.read(&place("empty", None)).await.unwrap();
    assert_eq!((&stored.content, &stored.version), (&first, &filled));
    assert!(matches!(store.write(Write { token: "rotation-4", ..write("empty", &other, None) }).await, Err(StoreError::Conflict(_))));

    let binary = bytes(&[0, 255, 128]);
    store.write(write("binary", &binary, None)).await.unwrap();
    assert_eq!(store.read(&place("binary", None)).await.unwrap().content, binary);

    moto.call(
        "CreateSecret",
        json!({"Name": "app/tagged", "SecretString": "t", "Tags": [{"Key": "team", "Value": "a"}, {"Key": "env", "Value": "b"}]}),
    )
    .await;
    moto.call(
        "CreateSecret",
        json!({"Name": "app/other", "SecretString": "o", "Tags": [{"Key": "team", "Value": "b"}, {"Key": "env", "Value": "a"}]}),
    )
    .await;
    let found = async |find: Value| {
        let mut found = store.find(&serde_json::from_value(find).unwrap()).await.unwrap();
        found.sort();
        found
    };
    assert_eq!(found(json!({"path": "app/"})).await, ["app/other", "app/tagged"]);
    assert_eq!(found(json!({"tags": {"team": "a"}})).await, ["app/tagged"], "key and value belong together");
    assert_eq!(found(json!({"name": {"regexp": "^(new|binary)$"}})).await, ["binary", "new"]);

    // As a role, which the emulator's STS gives at the same address.
    let mut as_role = spec(&moto);
    (as_role["aws"]["role"], as_role["aws"]["externalID"]) = (json!("arn:aws:iam::123456789012:role/reader"), json!("tmi"));
    let role = open(as_role).await;
    role.check().await.unwrap();

    // Temporary keys come with a token, which goes with each request.
    let (between, mut temporary) = (Between::to(&moto.address).await, spec(&moto));
    temporary["aws"]["endpoint"] = between.address.clone().into();
    temporary["aws"]["auth"]["secretRef"]["sessionToken"] = json!({"name": "aws", "key": "token"});
    open(temporary).await.read(&place("new", None)).await.unwrap();
    let asked = between.take_asked();
    assert!(!asked.is_empty() && asked.iter().all(|asked| asked.ends_with(" AKIAEXAMPLE t")), "{asked:?}");

    assert!(store.batch() > 1);
    let many = store.read_many(&["app/other".into(), "none".into(), "app/tagged".into()]).await.unwrap();
    assert_eq!(many[0].as_ref().unwrap().content, bytes(b"o"));
    assert!(matches!(many[1], Err(StoreError::NotFound(_))));
    assert_eq!(many[2].as_ref().unwrap().content, bytes(b"t"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_standard_application() {
    let (cluster, moto) = (Cluster::without_node().await, Moto::start().await);
    let namespace = cluster.namespace("aws").await;
    let rotations = Rotations(&namespace);
    let operator = cluster.operator(&namespace);
    namespace.secret("aws", "Opaque", &[("id", "AKIAEXAMPLE"), ("secret", "s\n")]).await;
    let value = json!({"jwt_secret": "first", "database_password": "d/1", "redis_password": "r", "settings_encryption_key": "k", "oauth_client_id": "x", "oauth_client_secret": "y"});
    moto.call("CreateSecret", json!({"Name": "tmi/production", "SecretString": value.to_string()})).await;
    // As it stands in the docs, but for where AWS is.
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/secret-rotation.md")).unwrap();
    let (_, section) = page.split_once("## The usual application\n").unwrap();
    let manifest = section.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let mut object: Value = serde_saphyr::from_str(manifest).unwrap();
    object["spec"]["store"]["aws"]["endpoint"] = moto.address.clone().into();
    rotations.create("tmi", object["spec"].take()).await;
    rotations.ready("tmi", 1).await;
    let data = rotations.data("tmi-secrets").await;
    assert_eq!((data["jwt-secret"].as_str(), data["database-url"].as_str()), ("first", "postgres://tmi:d%2F1@db:5432/tmi?sslmode=require"));
    assert_eq!((data["redis-password"].as_str(), data["oauth-client-secret"].as_str()), ("r", "y"));
    let workload = Workload::start(&namespace, "tmi", "tmi-secrets").await;

    // Somebody changes a value in AWS: who uses the Secret is restarted.
    let mut value = moto.get("tmi/production").await;
    value["redis_password"] = "r2".into();
    moto.call("PutSecretValue", json!({"SecretId": "tmi/production", "SecretString": value.to_string()})).await;
    rotations.ask("tmi", "refresh", "0").await;
    rotations.ready("tmi", 2).await;
    assert_eq!(rotations.data("tmi-secrets").await["redis-password"], "r2");
    workload.restarted(1).await;

    // A quarter later there is another JWT secret, in the Secret and in AWS; the one before stays for a day.
    operator.clock.advance(jiff::SignedDuration::from_hours(24 * 100));
    rotations.ask("tmi", "look", "1").await;
    rotations.ready("tmi", 3).await;
    let (data, there) = (rotations.data("tmi-secrets").await, moto.get("tmi/production").await);
    assert_eq!(there["jwt_secret"], data["jwt-secret"]);
    assert_ne!(data["jwt-secret"], "first");
    assert_eq!((data["jwt-secret-previous"].as_str(), &there["settings_encryption_key"]), ("first", &json!("k")));
    workload.restarted(2).await;
    // With that, AWS gives the version before up: without a stage it is deleted in time.
    let stages = async || moto.call("DescribeSecret", json!({"SecretId": "tmi/production"})).await["VersionIdsToStages"].to_string();
    assert!(stages().await.contains("AWSPREVIOUS"));
    operator.clock.advance(jiff::SignedDuration::from_hours(24 * 8));
    rotations.ask("tmi", "look", "2").await;
    eventually("no version has a stage of before", || async {
        let stages = stages().await;
        if stages.contains("AWSPREVIOUS") { Err(stages) } else { Ok(()) }
    })
    .await;

    // The credentials go: that is said, and nothing else happens. Back, it goes on by itself.
    namespace.delete_secret("aws").await;
    rotations.ask("tmi", "refresh", "1").await;
    let message = rotations.says("tmi", "Stalled", "True", "StoreInvalid").await;
    assert!(message.contains("/aws is not there"), "{message}");
    namespace.secret("aws", "Opaque", &[("id", "AKIAEXAMPLE"), ("secret", "s")]).await;
    rotations.until("tmi", "it goes on", |object| said(object, "Ready").is_some_and(|(status, ..)| status == "True")).await;
    // An address of ours, written by a tenant: refused unless it is allowed; the operator's own identity as well.
    rotations.change("tmi", json!({"store": {"aws": {"endpoint": "http://169.254.169.254"}}})).await;
    let message = rotations.says("tmi", "Stalled", "True", "StoreInvalid").await;
    assert!(message.contains("link-local"), "{message}");
    let ambient = json!({"target": {"name": "x"}, "store": {"aws": {"region": "us-east-1", "auth": {"ambient": {}}}}, "data": [{"secretKey": "a", "remoteRef": {"key": "b"}}]});
    let refused = rotations.try_create("ambient", ambient).await.unwrap_err().to_string();
    assert!(refused.contains("that needs a SecretStore"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_us_is_refused_once_it_is_resolved() {
    seaworthy::install_crypto_provider();
    let (store, data) = (
        json!({"aws": {"region": "us-east-1", "endpoint": "http://localhost:1", "auth": {"secretRef": {
        "accessKeyID": {"name": "aws", "key": "id"}, "secretAccessKey": {"name": "aws", "key": "id"}}}}}),
        [("id".to_owned(), b"x".to_vec().into())],
    );
    let (secrets, allowed) = (Secrets::default().with("aws", data.into()), Allowed::default());
    let opening = Opening { secrets: &secrets, namespace: "n", cluster: None, writer: None, allowed: &allowed };
    let store = serde_json::from_value::<StoreSpec>(store).unwrap().open(opening).await.unwrap();
    let error = store.read(&place("db", None)).await.unwrap_err().to_string();
    assert!(error.contains("is refused"), "{error}");
}

/// What gives the operator's Pod its identity: the agent of EKS Pod Identity, and the metadata service of a machine. Each hands out its own key.
async fn givers() -> String {
    let keys = |id: &str| {
        json!({"Code": "Success", "Type": "AWS-HMAC", "AccessKeyId": id, "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}).to_string()
    };
    let answer = move |method: axum::http::Method, uri: axum::http::Uri, headers: axum::http::HeaderMap| async move {
        let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
        let text = match (method.as_str(), uri.path()) {
            ("GET", "/agent") if header("authorization") == "the token of the pod" => keys("AKIAAGENT"),
            ("PUT", "/latest/api/token") => return ([("x-aws-ec2-metadata-token-ttl-seconds", "600")], "session".to_owned()),
            ("GET", "/latest/meta-data/iam/security-credentials/") if header("x-aws-ec2-metadata-token") == "session" => "node".into(),
            ("GET", "/latest/meta-data/iam/security-credentials/node") if header("x-aws-ec2-metadata-token") == "session" => {
                keys("AKIANODE")
            }
            other => panic!("{other:?} {headers:?}"),
        };
        ([("x-aws-ec2-metadata-token-ttl-seconds", "600")], text)
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_identity_of_the_operators_pod() {
    let (moto, givers) = (Moto::start().await, givers().await);
    let between = Between::to(&moto.address).await;
    moto.call("CreateSecret", json!({"Name": "db", "SecretString": "v"})).await;
    let folder = std::env::temp_dir().join(format!("seaworthy-identity-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let (store, token) = (folder.join("store.yaml"), folder.join("token"));
    let spec = json!({"aws": {"region": "us-east-1", "endpoint": between.address, "auth": {"ambient": {}}}});
    let object = json!({"apiVersion": "seaworthy.dev/v1alpha1", "kind": "SecretStore", "metadata": {"name": "pod"}, "spec": spec});
    std::fs::write(&store, object.to_string()).unwrap();
    std::fs::write(&token, "the token of the pod").unwrap();
    let (kubeconfig, token) = (std::env::var("SEAWORTHY_TEST_KUBECONFIG").unwrap(), token.to_str().unwrap());
    let agent = format!("{givers}/agent");
    let arguments = ["store", "get", "-f", store.to_str().unwrap(), "db", "--reveal"];
    let irsa = [
        ("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/operator"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
        ("AWS_ENDPOINT_URL_STS", &between.address),
    ];
    let pod_identity = [("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.as_str()), ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", token)];
    let machine = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", givers.as_str())];
    // Who it was: the emulator's STS gives keys that begin so.
    for (environment, whose) in [(irsa.as_slice(), "ASIA"), (&pod_identity, "AKIAAGENT"), (&machine, "AKIANODE")] {
        let found = seaworthy_in(environment, &kubeconfig, &arguments);
        assert_eq!(found, (0, "v\n".into()), "{environment:?}");
        let asked = between.take_asked().into_iter().filter(|asked| asked.contains("GetSecretValue")).collect::<Vec<_>>();
        assert!(asked.len() == 1 && asked[0].contains(&format!(" {whose}")), "{environment:?}: {asked:?}");
    }
    // A role that the machine assumes: AWS gives temporary keys for it, and who asks for them is the machine.
    let mut assumed = object.clone();
    (assumed["spec"]["aws"]["role"], assumed["spec"]["aws"]["externalID"]) = (json!("arn:aws:iam::123456789012:role/reader"), json!("tmi"));
    std::fs::write(&store, assumed.to_string()).unwrap();
    let environment = [machine.as_slice(), &[("AWS_ENDPOINT_URL_STS", between.address.as_str())]].concat();
    assert_eq!(seaworthy_in(&environment, &kubeconfig, &arguments), (0, "v\n".into()));
    let asked = between.take_asked();
    assert!(
        asked.len() == 2
            && asked[0].contains("ExternalId=tmi")
            && asked[0].ends_with(" AKIANODE t")
            && asked[1].contains("GetSecretValue ASIA"),
        "{asked:?}"
    );
    std::fs::remove_dir_all(folder).unwrap();
}

/// A write that got only half way is no reason that another content cannot be written: AWS knows a write by its token.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_content_is_another_write() {
    let (cluster, moto) = (Cluster::shared().await, Moto::start().await);
    let (namespace, between) = (cluster.namespace("half-way").await, Between::to(&moto.address).await);
    let (rotations, operator) = (Rotations(&namespace), cluster.operator(&namespace));
    moto.call("CreateSecret", json!({"Name": "app", "SecretString": r#"{"other": "o"}"#})).await;
    let to = |key: &str| json!({"secretKey": key, "remoteRef": {"key": "app", "property": key}});
    let hex = |key: &str| json!({"secretKey": key, "hex": {}});
    // The version is there, and does not become the current one.
    between.arm(|asked| asked.contains("UpdateSecretVersionStage"), 0, Fault::Answer(500));
    let (store, rotation) = (namespace.store_in_aws(&between.address).await, json!({"generate": [hex("a")], "push": [to("a")]}));
    rotations.create("app", json!({"target": {"name": "app"}, "store": store, "rotation": rotation})).await;
    rotations.says("app", "Ready", "False", "StoreUnavailable").await;
    assert!(between.struck() && moto.get("app").await == json!({"other": "o"}));
    rotations.change("app", json!({"rotation": {"generate": [hex("a"), hex("b")], "push": [to("a"), to("b")]}})).await;
    operator.clock.advance(jiff::SignedDuration::from_mins(6));
    rotations.ask("app", "look", "1").await;
    rotations.ready("app", 1).await;
    let data = rotations.data("app").await;
    assert_eq!(moto.get("app").await, json!({"other": "o", "a": data["a"], "b": data["b"]}));
}
