//! Everything in examples/ and every manifest in the pages of the kinds works when it is applied.

use std::{fs, path::Path};

use kube::{Api, api::ListParams};
use seaworthy::{
    api::{CertificateIssuer, CertificateRotation, SecretRotation},
    secrets::stores::StoreSpec,
};

use crate::support::{ControlPlane, Operator, command, condition, eventually, said};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_become_ready() {
    let (own, cluster) = ControlPlane::start().await;
    let _operator = Operator::start(cluster.operator.clone(), Vec::new(), "seaworthy");
    let apply =
        |input: &[u8], file: &str| command("kubectl", &["--kubeconfig", &own.kubeconfig, "apply", "--validate=strict", "-f", file], input);
    apply(b"", concat!(env!("CARGO_MANIFEST_DIR"), "/examples"));
    let rotations: Api<CertificateRotation> = Api::all(cluster.client.clone());
    eventually("all are Ready", || async {
        let all = rotations.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let waiting: Vec<_> = all
            .items
            .iter()
            // Without a node nobody serves anything, and who asks for that is told so.
            .filter(|object| {
                let wanted = if object.spec.verify.is_some() { "False NotServed" } else { "True Current" };
                condition(object, "Ready").is_none_or(|(status, reason, _)| format!("{status} {reason}") != wanted)
            })
            .map(|object| &object.metadata.name)
            .collect();
        if waiting.is_empty() && all.items.len() >= 7 { Ok(()) } else { Err(format!("{waiting:?}")) }
    })
    .await;
    let values: Api<SecretRotation> = Api::all(cluster.client.clone());
    eventually("the values are there", || async {
        let all = values.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let waiting: Vec<_> = all
            .items
            .iter()
            .filter(|object| {
                // There is no Vault, AWS and Oracle Cloud here, and no credential for one.
                let away = object.metadata.name.as_deref().is_some_and(|name| ["tmi", "from-aws", "from-oracle"].contains(&name));
                let wanted = if away { "False StoreInvalid" } else { "True Current" };
                said(object, "Ready").is_none_or(|(status, reason, _)| format!("{status} {reason}") != wanted)
            })
            .map(|object| (&object.metadata.name, said(object, "Ready")))
            .collect();
        if waiting.is_empty() && all.items.len() >= 7 { Ok(()) } else { Err(format!("{waiting:?}")) }
    })
    .await;
    // What a person sees: the words of the first line, and those about one of them; what is not there is left empty.
    let columns = |what: &[&str]| {
        let arguments = [&["--kubeconfig", &own.kubeconfig, "-n", "default", "get", "-o", "wide"], what].concat();
        let text = command("kubectl", &arguments, b"");
        let words: Vec<Vec<String>> = text.lines().map(|line| line.split_whitespace().map(ToOwned::to_owned).collect()).collect();
        (words[0].join(" "), words[1].clone())
    };
    let (head, generated) = columns(&["secretrotation", "api-key"]);
    assert_eq!(head, "NAME READY TARGET SOURCE REVISION LAST ROTATION NEXT ROTATION LAST SYNC CONSUMERS REASON AGE");
    assert!(generated[..5] == ["api-key", "True", "api-key", "generated", "1"] && generated.len() == 10, "{generated:?}");
    assert!(generated[5] < generated[6] && generated[7..9] == ["0/0", "Current"], "{generated:?}");
    let (_, synced) = columns(&["secretrotation", "from-shared"]);
    assert!(synced[3] == "SecretStore/shared" && synced[5].ends_with('Z') && synced[6] == "0/0", "{synced:?}");
    let store = eventually("the store counts who uses it", || async {
        let (head, store) = columns(&["secretstore", "shared"]);
        assert_eq!(head, "NAME READY KIND RESOURCES LAST CHECK AGE");
        if store[..4] == ["shared", "True", "kubernetes", "1"] && store.len() == 6 { Ok(store) } else { Err(format!("{store:?}")) }
    })
    .await;
    assert!(store[4].ends_with('Z'), "{store:?}");
    let issuers: Api<CertificateIssuer> = Api::all(cluster.client.clone());
    let issuer = eventually("the issuer is Ready", || async {
        let issuer = issuers.get("internal-ca").await.map_err(|error| error.to_string())?;
        if issuer.status.as_ref().is_some_and(|status| status.not_after.is_some()) {
            Ok(issuer)
        } else {
            Err(format!("{:?}", issuer.status))
        }
    })
    .await;
    assert_eq!(issuer.status.unwrap().kind.as_deref(), Some("ca"));

    // One of each backend.
    let examples = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/examples")).unwrap();
    let examples: String = examples.map(|file| fs::read_to_string(file.unwrap().path()).unwrap()).collect();
    for kind in StoreSpec::KINDS {
        assert!(examples.contains(&format!("{kind}:")), "no example has a store {kind}");
    }

    // The manifests of the pages.
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    for page in
        ["certificate-rotation.md", "certificate-issuer.md", "secret-rotation.md", "secret-store.md", "migrating-from-external-secrets.md"]
    {
        let text = fs::read_to_string(docs.join(page)).unwrap();
        let manifests: Vec<&str> = text.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
        let manifests: Vec<&str> = manifests.into_iter().filter(|manifest| manifest.starts_with("apiVersion:")).collect();
        assert!(!manifests.is_empty(), "{page}");
        for manifest in manifests {
            apply(manifest.as_bytes(), "-");
        }
    }
}
