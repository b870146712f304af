//! The architecture's rules, read off the sources: `docs/architecture.md` says why.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// All Rust sources below `folder`, with their text up to their tests.
fn sources(folder: &str) -> Vec<(String, String)> {
    fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, files);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    walk(&root.join(folder), &mut files);
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
            (path.strip_prefix(root).unwrap().to_str().unwrap().to_owned(), code)
        })
        .collect()
}

/// Code without comments, so that a rule is not broken by being explained.
fn code(text: &str) -> String {
    text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

fn forbid(files: impl Fn(&str) -> bool, words: &[&str], rule: &str) {
    let mut seen = 0;
    for (path, text) in sources("src").into_iter().filter(|(path, _)| files(path)) {
        seen += 1;
        for word in words {
            assert!(!code(&text).contains(word), "{path} says {word:?}: {rule}");
        }
    }
    assert!(seen > 0, "the rule {rule:?} looks at no file");
}

#[test]
fn what_is_pure_does_no_io_and_has_no_clock() {
    let pure = |path: &str| {
        path.ends_with("/decide.rs")
            || path.starts_with("src/api/")
            || path.starts_with("src/keys/")
            || (path.starts_with("src/inventory/") && !["mod.rs", "facts.rs", "watch.rs"].iter().any(|name| path.ends_with(name)))
            || (path.starts_with("src/rollout/") && !["act.rs", "announce.rs", "roll.rs"].iter().any(|name| path.ends_with(name)))
            || [
                "src/schedule.rs",
                "src/cluster/conditions.rs",
                "src/cluster/lanes.rs",
                "src/cluster/owner.rs",
                "src/cluster/contest.rs",
                "src/cluster/halt.rs",
            ]
            .contains(&path)
            || ["issuer", "request", "x509", "sign", "status", "memory", "outputs", "index", "reason", "constraints"]
                .iter()
                .any(|name| path == format!("src/certificates/{name}.rs"))
            || path.starts_with("src/secrets/contents/")
            || ["store", "memory", "status", "index", "reason", "gauges", "vault_policy", "reading/refresh_times"]
                .iter()
                .any(|name| path == format!("src/secrets/{name}.rs"))
    };
    forbid(
        pure,
        &["tokio::", "std::fs", "std::net::Tcp", "Timestamp::now", "SystemTime", "Instant::now", "kube::Client", "kube::Api", "std::env"],
        "it is pure",
    );
    forbid(pure, &["context::", "controller::"], "what is pure does not know what does the work");
}

#[test]
fn the_core_does_not_know_the_areas() {
    forbid(
        |path| {
            ["clients", "cluster", "inventory", "keys", "rollout", "server", "telemetry"]
                .iter()
                .any(|core| path.starts_with(&format!("src/{core}/")))
        },
        &["crate::certificates", "crate::secrets"],
        "areas use the core, not the other way round",
    );
}

#[test]
fn no_area_knows_another() {
    forbid(|path| path.starts_with("src/certificates/"), &["crate::secrets"], "areas do not use each other");
    forbid(|path| path.starts_with("src/secrets/"), &["crate::certificates"], "areas do not use each other");
}

#[test]
fn an_adapter_imports_no_other_adapter() {
    for folder in ["certificates/issuers", "secrets/stores"] {
        let all = sources(&format!("src/{folder}"));
        let adapters: Vec<&String> = all.iter().map(|(path, _)| path).filter(|path| !path.ends_with("mod.rs")).collect();
        assert!(adapters.len() >= 2);
        for (path, text) in all.iter().filter(|(path, _)| !path.ends_with("mod.rs")) {
            for other in adapters.iter().filter(|other| **other != path) {
                let module = other.rsplit('/').next().unwrap().trim_end_matches(".rs");
                let names = [format!("{}::{module}", folder.rsplit('/').next().unwrap()), format!("super::{module}")];
                assert!(!names.iter().any(|name| code(text).contains(name)), "{path} imports {other}");
            }
        }
    }
}

#[test]
fn writes_happen_in_one_place() {
    let elsewhere = |path: &str| path.starts_with("src/") && !path.starts_with("src/testing/") && path != "src/cluster/apply.rs";
    forbid(elsewhere, &["Patch::Apply", "PatchParams::apply", "PatchParams::force"], "server-side apply is in src/cluster/apply.rs only");
}

#[test]
fn files_stay_small() {
    for (path, text) in sources("src") {
        let lines = text.lines().count();
        assert!(lines <= 500, "{path} has {lines} lines without its tests: it is two ideas");
    }
}

#[test]
fn functions_stay_short() {
    let mut seen = 0;
    for (path, text) in sources("src") {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//") && line.contains("fn ")) {
            // As it is formatted, its end stands under its beginning.
            let end = format!("{}}}", &line[..line.len() - line.trim_start().len()]);
            let length = lines[start..].iter().position(|line| *line == end).map_or(0, |length| length + 1);
            let is_one = line.trim_end().ends_with('{') || line.trim_end().ends_with('(');
            seen += usize::from(is_one && length > 0);
            assert!(!is_one || length < 60, "{path}:{}: it has {length} lines: {line}", start + 1);
        }
    }
    assert!(seen > 500, "{seen}");
}

#[test]
fn every_step_stands_in_a_list_that_fault_tests_go_through() {
    let steps_run = |folder: &str| {
        let all = sources(folder).into_iter().map(|(_, text)| text);
        let named = |text: String| text.split(".run(\"").skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()).collect::<Vec<_>>();
        all.flat_map(named).collect::<BTreeSet<_>>()
    };
    for area in ["certificates", "secrets"] {
        let mut listed = BTreeSet::new();
        for (_, text) in sources(&format!("src/{area}")) {
            let lists = text.split("STEPS: &[&str] = &[").skip(1).map(|rest| rest.split(']').next().unwrap());
            listed.extend(lists.flat_map(|list| list.split('"').skip(1).step_by(2)).map(ToOwned::to_owned));
        }
        // Both use the restarts.
        let run: BTreeSet<_> = &steps_run(&format!("src/{area}")) | &steps_run("src/rollout");
        assert!(listed.len() > 5);
        assert_eq!(run, listed, "{area}");
    }
}

#[test]
fn no_file_is_a_drawer() {
    for (path, _) in sources("src") {
        for name in ["utils", "util", "helpers", "common", "misc"] {
            assert!(!path.split('/').any(|part| part.trim_end_matches(".rs") == name), "{path}");
        }
    }
}

/// The arguments between the parentheses after `rest` begins, but `self`.
fn arguments(rest: &str) -> Vec<String> {
    let (mut depth, mut arguments, mut before) = (1, vec![String::new()], ' ');
    for letter in rest.chars() {
        depth += match letter {
            '(' | '[' | '{' | '<' => 1,
            '>' if before == '-' || before == '=' => 0,
            ')' | ']' | '}' | '>' => -1,
            _ => 0,
        };
        before = letter;
        match letter {
            _ if depth == 0 => break,
            ',' if depth == 1 => arguments.push(String::new()),
            _ => arguments.last_mut().unwrap().push(letter),
        }
    }
    let is_self = |argument: &str| argument.trim_start_matches(['&', ' ']).trim_start_matches("mut ").split(':').next() == Some("self");
    arguments.into_iter().map(|argument| argument.trim().to_owned()).filter(|argument| !argument.is_empty() && !is_self(argument)).collect()
}

#[test]
fn functions_have_four_arguments_at_most() {
    assert_eq!(arguments("&mut self, (a, b): (A, B), f: impl Fn(A, B) -> C,\n) -> D {"), ["(a, b): (A, B)", "f: impl Fn(A, B) -> C"]);
    // What rustls asks for.
    let given = ["verify_server_cert"];
    let mut seen = 0;
    for (path, text) in sources("src") {
        for rest in code(&text).split("fn ").skip(1) {
            let name: String = rest.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
            let Some((_, rest)) = rest.split_once('(').filter(|_| !name.is_empty()) else { continue };
            seen += 1;
            let found = arguments(rest);
            assert!(found.len() <= 4 || given.contains(&name.as_str()), "{path}: {name} has {} arguments: {found:?}", found.len());
        }
    }
    assert!(seen > 500, "{seen}");
}
