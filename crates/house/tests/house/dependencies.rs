use std::collections::BTreeSet;
use std::sync::OnceLock;

use serde_json::Value;

use crate::{assert_none, run};

/// Which of our crates each of our crates may use, in normal builds.
const ALLOWED: &[(&str, &[&str])] = &[
    ("baton-wire", &[]),
    ("baton-wire-gen", &[]),
    ("baton-log", &["baton-wire"]),
    ("baton-broker", &["baton-wire", "baton-log"]),
    ("baton-cli", &["baton", "baton-broker", "baton-core", "baton-engine", "baton-log"]),
    ("baton-testkit", &["baton-wire", "baton-log"]),
    ("baton-core", &[]),
    ("baton-engine", &["baton-core", "baton-broker", "baton-log"]),
    ("baton-guard", &["baton-core"]),
    ("baton-outbox", &["baton-core"]),
    ("baton", &["baton-core", "baton-engine", "baton-guard", "baton-log", "baton-outbox", "baton-wire"]),
    ("baton-bench", &[]),
    ("baton-compat", &[]),
    ("baton-crash", &["baton", "baton-core", "baton-engine", "baton-guard", "baton-testkit"]),
    ("baton-house", &[]),
];

/// What may not come near a crate, directly.
const BANNED: &[(&str, &[&str])] = &[
    ("baton-wire", &["tokio", "rustix", "tracing"]),
    ("baton-log", &["tokio", "axum", "uuid"]),
    ("baton-core", &["tokio", "uuid", "rand", "tracing", "rdkafka", "lapin"]),
    ("baton-broker", &["clap", "tracing-subscriber"]),
];

/// Licences that go with ours.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MPL-2.0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

fn metadata() -> &'static Value {
    static METADATA: OnceLock<Value> = OnceLock::new();
    METADATA.get_or_init(|| {
        let text = run("cargo", &["metadata", "--format-version", "1", "--locked"]);
        serde_json::from_str(&text).expect("cargo metadata is JSON")
    })
}

fn packages() -> impl Iterator<Item = &'static Value> {
    metadata()["packages"].as_array().expect("packages").iter()
}

fn name(value: &Value) -> &str {
    value["name"].as_str().expect("a name")
}

fn normal_dependencies(package: &'static Value) -> impl Iterator<Item = &'static str> {
    let all = package["dependencies"].as_array().expect("dependencies").iter();
    all.filter(|dependency| dependency["kind"].is_null()).map(name)
}

#[test]
fn dependencies_point_one_way() {
    let ours: BTreeSet<&str> = packages().map(name).filter(|name| name.starts_with("baton")).collect();
    let mut wrong = Vec::new();
    for package in packages().filter(|package| ours.contains(name(package))) {
        let Some((_, allowed)) = ALLOWED.iter().find(|(of, _)| *of == name(package)) else {
            wrong.push(format!("{} is not in the list of allowed dependencies", name(package)));
            continue;
        };
        let used = normal_dependencies(package).filter(|used| ours.contains(used) && !allowed.contains(used));
        wrong.extend(used.map(|used| format!("{} uses {used}", name(package))));
    }
    assert_none("see ARCHITECTURE.md", wrong);
}

#[test]
fn crates_stay_away_from_what_is_not_theirs() {
    let mut wrong = Vec::new();
    for (of, banned) in BANNED {
        let package = packages().find(|package| name(package) == *of).expect("the crate is there");
        wrong.extend(
            normal_dependencies(package).filter(|used| banned.contains(used)).map(|used| format!("{of} uses {used}")),
        );
    }
    assert_none("see ARCHITECTURE.md", wrong);
}

#[test]
fn every_licence_goes_with_ours() {
    let wrong = packages().filter_map(|package| {
        let licence = package["license"].as_str().unwrap_or("none named");
        // "A OR B" leaves the choice, "A AND B" does not; "/" is the old way to write OR.
        let fits = licence.replace('/', " OR ").split(" OR ").any(|choice| {
            choice
                .trim()
                .trim_matches(['(', ')'])
                .split(" AND ")
                .all(|part| LICENCES.contains(&part.trim().trim_matches(['(', ')'])))
        });
        (!fits).then(|| format!("{} {}: {licence}", name(package), package["version"].as_str().unwrap_or_default()))
    });
    assert_none("another crate, or another entry in the list", wrong.collect());
}

#[test]
fn everything_comes_from_the_registry_at_a_locked_version() {
    let foreign = packages().filter_map(|package| {
        let source = package["source"].as_str()?;
        (!source.starts_with("registry+")).then(|| format!("{} comes from {source}", name(package)))
    });
    assert_none("no git dependencies", foreign.collect());
}
