use crate::run;

#[test]
fn everything_is_formatted() {
    run("cargo", &["fmt", "--all", "--check"]);
}

#[test]
fn the_linter_finds_nothing() {
    run("cargo", &["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]);
}

#[test]
fn the_documentation_of_the_code_builds_without_broken_links() {
    let status = std::process::Command::new("cargo")
        .args([
            "doc",
            "--quiet",
            "--no-deps",
            "--document-private-items",
            "-p",
            "baton-wire",
            "-p",
            "baton-log",
            "-p",
            "baton-broker",
        ])
        .env("RUSTDOCFLAGS", "-D warnings")
        .current_dir(crate::root())
        .status();
    assert!(status.expect("cargo runs").success(), "cargo doc has something to say");
}
