use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::{assert_none, files, read, root, run};

fn documents() -> Vec<PathBuf> {
    // The changelog speaks of the past, schemas and raw figures are not ours.
    let mut documents = files(&[".md"]);
    documents.retain(|path| !path.ends_with("CHANGELOG.md") && !path.starts_with("docs/bench"));
    documents
}

/// Everything between single backticks, outside of code blocks.
fn code_spans(text: &str) -> Vec<(usize, String)> {
    let mut spans = Vec::new();
    let mut in_block = false;
    for (at, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        } else if !in_block {
            spans.extend(line.split('`').skip(1).step_by(2).map(|span| (at + 1, span.to_owned())));
        }
    }
    spans
}

#[test]
fn documents_name_only_files_that_exist() {
    let all: BTreeSet<String> = files(&[""]).iter().map(|path| path.to_string_lossy().into_owned()).collect();
    let exists = |named: &str, beside: &Path| {
        let named = named.trim_end_matches('/');
        let in_tree = |path: &str| all.contains(path) || root().join(path).is_dir();
        in_tree(named)
            || in_tree(&format!("crates/{named}"))
            || beside.parent().is_some_and(|directory| in_tree(&directory.join(named).to_string_lossy()))
            || all.iter().any(|path| path.ends_with(&format!("/{named}")))
    };
    let is_file = |span: &str| {
        let endings = [".rs", ".md", ".sh", ".toml", ".py", ".java"];
        let plain = span.chars().all(|c| c.is_ascii_alphanumeric() || "._-/".contains(c));
        // What a build makes is not in the checkout.
        plain
            && !span.starts_with("target/")
            && (endings.iter().any(|ending| span.ends_with(ending))
                || span.starts_with("scripts/")
                || span.starts_with("crates/"))
    };
    let mut dead = Vec::new();
    for document in documents() {
        for (line, span) in code_spans(&read(&document)) {
            if is_file(&span) && !exists(&span, &document) {
                dead.push(format!("{}:{line}: `{span}`", document.display()));
            }
        }
    }
    assert_none("no such file", dead);
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut dead = Vec::new();
    for document in documents() {
        let text = read(&document);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") {
                continue;
            }
            let beside = document.parent().unwrap_or(Path::new("")).join(path);
            if !root().join(&beside).exists() {
                dead.push(format!("{}: {target}", document.display()));
            }
        }
    }
    assert_none("dead link", dead);
}

/// What `baton` and its commands say of themselves.
fn help() -> String {
    let baton = |arguments: &[&str]| {
        let all = [&["run", "--quiet", "-p", "baton-cli", "--"], arguments].concat();
        run("cargo", &all)
    };
    let top = baton(&["--help"]);
    let commands: Vec<&str> = top
        .lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .take_while(|line| !line.trim().is_empty())
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let mut help = top.clone();
    for command in commands.iter().filter(|command| **command != "help") {
        help.push_str(&format!("\nbaton {command} "));
        help.push_str(&baton(&[command, "--help"]));
    }
    help
}

/// Words of a document that follow the name of our binary on a line of their own or in backticks.
fn invocations(text: &str) -> Vec<(usize, String)> {
    let mut in_block = false;
    let from_blocks = text.lines().enumerate().filter_map(move |(at, line)| {
        in_block ^= line.trim_start().starts_with("```");
        if !in_block {
            return None;
        }
        let line = line.trim().trim_start_matches("$ ").trim_start_matches("./").trim_start_matches("target/release/");
        line.starts_with("baton ").then(|| (at + 1, line.to_owned()))
    });
    let from_spans = code_spans(text).into_iter().filter(|(_, span)| span.starts_with("baton "));
    from_blocks.chain(from_spans).collect()
}

#[test]
fn documents_name_only_commands_and_flags_that_exist() {
    let help = help();
    let mut dead = Vec::new();
    for document in documents() {
        for (line, invocation) in invocations(&read(&document)) {
            let mut words = invocation.split_whitespace().skip(1).peekable();
            if let Some(command) =
                words.next_if(|word| word.chars().all(|c| c.is_ascii_lowercase() || c == '-') && !word.starts_with('-'))
                && !help.contains(&format!("\nbaton {command} "))
            {
                dead.push(format!("{}:{line}: command `{command}`", document.display()));
            }
            let flags = words
                .map(|word| word.trim_matches(|c: char| "[]().,;`|".contains(c)))
                .filter(|word| word.starts_with("--"));
            for flag in flags.map(|flag| flag.split('=').next().unwrap_or(flag)) {
                if !help.contains(flag) {
                    dead.push(format!("{}:{line}: flag `{flag}`", document.display()));
                }
            }
        }
    }
    assert_none("not in `baton --help`", dead);
}

/// Settings look like `group.max.size`: lower case, at least one dot, no file.
#[test]
fn documents_name_only_settings_that_exist() {
    let known = read(Path::new("docs/SETTINGS.md"));
    let allowed = ["baton.evidence", "baton.meta", "bench.jsonl", "cluster.id"];
    let looks_like_setting = |span: &str| {
        span.contains('.')
            && !span.starts_with('.')
            && !span.ends_with('.')
            && span.chars().all(|c| c.is_ascii_lowercase() || c == '.')
            && !["rs", "md", "sh", "toml", "py", "java", "log", "index", "checkpoint", "meta", "json", "jar"]
                .contains(&span.rsplit('.').next().unwrap_or_default())
    };
    let mut dead = Vec::new();
    for document in
        documents().iter().filter(|document| document.starts_with("docs") || document.parent() == Some(Path::new("")))
    {
        for (line, span) in code_spans(&read(document)) {
            let name = span.split('=').next().unwrap_or_default();
            if looks_like_setting(name) && !known.contains(&format!("`{name}`")) && !allowed.contains(&name) {
                dead.push(format!("{}:{line}: `{name}`", document.display()));
            }
        }
    }
    assert_none("not in docs/SETTINGS.md", dead);
}

/// Things that happened to others, of which the table says what holds here.
const OTHERS: usize = 25;

/// The names that stand behind the word `fn` of tests in a source file: with an attribute that makes them tests, or among the cases of a
/// suite.
fn tests_of(path: &str) -> BTreeSet<String> {
    let text = read(Path::new(path));
    let is_suite = path.contains("/src/conformance/");
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let is_test = |at: usize| {
        let above = lines[..at].iter().rev().take_while(|line| line.starts_with("#[") || line.starts_with("///"));
        is_suite || above.into_iter().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    };
    let function = |line: &str| {
        let (_, rest) = line.split_once("fn ")?;
        rest.split(['(', '<']).next().map(str::to_owned)
    };
    let tests = lines.iter().enumerate().filter(|(at, _)| is_test(*at));
    let tests = tests.filter_map(|(_, line)| function(line));
    // Rules that a macro makes a test of for each database.
    let rules = text.split("on_each_database!(").skip(1).filter_map(|rest| rest.split_once(");"));
    let rules = rules.flat_map(|(names, _)| names.split(',')).map(|name| name.trim().to_owned());
    tests.chain(rules).collect()
}

#[test]
fn what_happened_to_others_is_held_by_tests_that_exist() {
    let text = read(Path::new("docs/TESTING.md"));
    let (_, section) = text.split_once("\n## What happened to others\n").expect("the section is there");
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let mut wrong = Vec::new();
    for (at, row) in rows.iter().enumerate() {
        let number = at + 1;
        if !row.starts_with(&format!("| {number} |")) {
            wrong.push(format!("row {number} has another number: {row}"));
        }
        let (mut file, mut named) = (None, 0);
        for span in row.split('`').skip(1).step_by(2) {
            if span.ends_with(".rs") {
                file = Some((span, tests_of(span)));
                continue;
            }
            match &file {
                Some((_, tests)) if tests.contains(span) => named += 1,
                Some((path, _)) => wrong.push(format!("{number}: {path} has no test {span}")),
                None => wrong.push(format!("{number}: {span} stands behind no file")),
            }
        }
        if named == 0 && !row.contains("| not yet: ") {
            wrong.push(format!("{number} names no test and does not say why"));
        }
    }
    assert_none("see docs/TESTING.md", wrong);
    assert_eq!(rows.len(), OTHERS, "rows");
}
