//! Everything that is generated is committed; this compares it. `UPDATE=1 cargo test --test generated` (`make generate`) writes it anew.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, fs, path::Path};

use seaworthy::{
    api,
    app::Area,
    cluster::permissions::{Permission, Scope},
};

const HEADER: &str = "# Generated; `make generate` writes it anew.\n";

fn compare(path: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE").is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
    }
    let committed = fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == text, "{path} is not what the code says; run: make generate");
}

#[test]
fn crds() {
    for crd in api::crds() {
        let text = format!("{HEADER}{}", api::to_yaml(&crd).unwrap());
        let name = crd.spec.names.plural.clone();
        compare(&format!("crds/{name}.yaml"), &text);
        compare(&format!("charts/seaworthy/files/crds/{name}.yaml"), &text);
    }
}

#[test]
fn rbac() {
    let of = |permissions: &[&'static [Permission]]| -> BTreeMap<&str, Vec<&Permission>> {
        let permissions: Vec<&Permission> = permissions.iter().copied().flatten().collect();
        [("namespaces", Scope::Namespaces), ("cluster", Scope::Cluster), ("operator", Scope::Operator)]
            .into_iter()
            .map(|(name, scope)| (name, permissions.iter().copied().filter(|permission| permission.scope == scope).collect()))
            .collect()
    };
    let mut rules = BTreeMap::from([("shared".to_owned(), of(&Area::shared_permissions()))]);
    for area in Area::ALL {
        rules.insert(format!("{area:?}").to_lowercase(), of(&[area.permissions()]));
    }
    compare("charts/seaworthy/files/rbac.yaml", &format!("{HEADER}{}", serde_saphyr::to_string(&rules).unwrap()));
}

#[test]
fn no_rule_has_a_wildcard() {
    let all = Area::ALL.iter().flat_map(|area| area.permissions()).chain(Area::shared_permissions().into_iter().flatten());
    for permission in all {
        let words = [permission.api_groups, permission.resources, permission.verbs].concat();
        assert!(!words.iter().any(|word| word.contains('*')), "{permission:?}");
    }
}

#[test]
fn nothing_else_lies_among_what_is_generated() {
    for folder in ["crds", "charts/seaworthy/files/crds"] {
        let mut names: Vec<String> = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(folder))
            .unwrap()
            .map(|file| file.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let mut expected: Vec<String> = api::crds().iter().map(|crd| format!("{}.yaml", crd.spec.names.plural)).collect();
        expected.sort();
        assert_eq!(names, expected, "{folder}");
    }
}
