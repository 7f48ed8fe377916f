use std::path::{Path, PathBuf};

use crate::{assert_none, files, read};

/// Lines of code that a file may have.
const FILE_LINES_MAX: usize = 800;

fn is_generated(text: &str) -> bool {
    text.lines().take(5).any(|line| line.contains("Generated"))
}

#[test]
fn files_stay_small_enough_to_be_read() {
    let too_long = files(&[".rs", ".py", ".java"]).into_iter().filter_map(|path| {
        let text = read(&path);
        let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
        let lines = text.lines().filter(is_code).count();
        (lines > FILE_LINES_MAX && !is_generated(&text)).then(|| format!("{}: {lines} lines of code", path.display()))
    });
    assert_none("split by meaning", too_long.collect());
}

/// Functions up to 70 lines are the linter's to check: it must be told to.
#[test]
fn the_linter_looks_at_the_length_of_functions() {
    assert!(read(Path::new("clippy.toml")).contains("too-many-lines-threshold = 70"));
    assert!(read(Path::new("Cargo.toml")).contains("too_many_lines = \"warn\""));
}

/// The files that may declare `path` as a module.
fn parents(path: &Path) -> Vec<PathBuf> {
    let directory = path.parent().expect("a source file lies in a directory");
    let directory = match path.file_name() {
        Some(name) if name == "mod.rs" => directory.parent().expect("a module lies in a crate"),
        _ => directory,
    };
    let named_like_directory = directory.with_extension("rs");
    let fixed = ["mod.rs", "lib.rs", "main.rs"].map(|name| directory.join(name));
    fixed.into_iter().chain([named_like_directory]).chain(neighbours(directory)).collect()
}

/// Test targets of their own, which may share modules that lie beside them.
fn neighbours(directory: &Path) -> Vec<PathBuf> {
    let is_tests = directory.file_name().is_some_and(|name| name == "tests" || name == "bin");
    let all = files(&[".rs"]);
    all.into_iter().filter(|path| is_tests && path.parent() == Some(directory)).collect()
}

fn is_target(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default();
    let directory = path.parent().and_then(Path::file_name).unwrap_or_default();
    name == "lib.rs"
        || name == "main.rs"
        || name == "build.rs"
        || ["tests", "bin", "examples", "benches", "fuzz_targets"].iter().any(|targets| directory == *targets)
}

#[test]
fn no_source_or_test_file_is_forgotten() {
    let forgotten = files(&[".rs"]).into_iter().filter(|path| !is_target(path)).filter_map(|path| {
        let stem = if path.ends_with("mod.rs") { path.parent()?.file_name()? } else { path.file_stem()? };
        let stem = stem.to_string_lossy();
        let declares = |parent: &PathBuf| {
            let text = std::fs::read_to_string(crate::root().join(parent)).unwrap_or_default();
            text.lines().any(|line| {
                let line = line.trim();
                let declared = line.strip_suffix(';').and_then(|line| line.rsplit_once("mod "));
                declared.is_some_and(|(_, name)| name == stem) || line.contains(&format!("{stem}.rs\""))
            })
        };
        (!parents(&path).iter().any(declares)).then(|| format!("{} is no module of anything", path.display()))
    });
    assert_none("every file is compiled, and every test runs", forgotten.collect());
}

#[test]
fn nothing_is_left_unfinished_or_switched_off() {
    let words = ["todo!(", "unimplemented!(", "#[ignore", concat!("FIX", "ME"), concat!("X", "XX")];
    let found = files(&[".rs", ".py", ".sh", ".java"])
        .into_iter()
        .filter(|path| !path.starts_with("crates/house"))
        .flat_map(|path| {
            let text = read(&path);
            let hits: Vec<String> = text
                .lines()
                .enumerate()
                .filter(|(_, line)| words.iter().any(|word| line.contains(word)))
                .map(|(at, line)| format!("{}:{}: {}", path.display(), at + 1, line.trim()))
                .collect();
            hits
        });
    assert_none("finish it or take it out", found.collect());
}
