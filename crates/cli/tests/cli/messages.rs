//! What is typed wrong is refused with what to do about it; help says what there is.

use crate::binary::{baton, ran};

const USAGE: Option<i32> = Some(2);

#[test]
fn help_names_commands_flags_and_exit_codes() {
    let (code, help, _) = ran(&["--help"]);
    assert_eq!(code, Some(0));
    for word in ["serve", "settings", "demo", "dead", "Exit codes:"] {
        assert!(help.contains(word), "{word} in {help}");
    }
    let (_, help, _) = ran(&["serve", "--help"]);
    for flag in ["--data", "--listen", "--advertised-listener", "--metrics", "--config", "--set", "--log-format"] {
        assert!(help.contains(flag), "{flag} in {help}");
    }
    let (_, help, _) = ran(&["dead", "--help"]);
    for word in ["list", "show", "replay", "--engine", "--since", "--raw", "--dry-run", "--rate", "--again"] {
        assert!(help.contains(word), "{word} in {help}");
    }
}

#[test]
fn an_unknown_flag_or_command_is_a_usage_error() {
    for arguments in [&["serve", "--prot", "1"][..], &["server"], &[]] {
        assert_eq!(ran(arguments).0, USAGE, "{arguments:?}");
    }
}

#[test]
fn a_wrong_key_in_the_file_is_refused_with_its_line_and_the_right_name() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("baton.toml");
    std::fs::write(&file, "# ours\nnum.partition = 3\n").unwrap();
    let data = directory.path().join("data");
    let (code, stdout, stderr) = ran(&[
        "serve",
        "--data",
        data.to_str().unwrap(),
        "--config",
        file.to_str().unwrap(),
        "--listen",
        "127.0.0.1:0",
    ]);
    assert_eq!((code, stdout.as_str()), (USAGE, ""));
    assert!(
        stderr.contains("baton.toml:2: unknown setting \"num.partition\" (did you mean num.partitions?)"),
        "{stderr}"
    );
    assert!(!data.exists(), "nothing was made");
}

#[test]
fn a_wrong_value_is_refused_with_its_line_and_the_values_it_takes() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("baton.toml");
    std::fs::write(&file, "[num]\npartitions = 0\n[log]\nretention.ms = 5\n").unwrap();
    let (code, _, stderr) = ran(&["serve", "--config", file.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert_eq!(code, USAGE);
    assert!(stderr.contains("baton.toml:2: Invalid value 0 for configuration num.partitions"), "{stderr}");
    assert!(stderr.contains("a whole number from 1 to 10000"), "{stderr}");
    assert!(stderr.contains("baton.toml:4: Invalid value 5 for configuration log.retention.ms"), "{stderr}");
    assert!(stderr.contains("records are kept until somebody deletes them"), "{stderr}");
}

#[test]
fn a_wrong_override_is_refused_with_what_was_typed() {
    let wrong = [
        ("num.partitions=many", "a whole number from 1 to 10000"),
        ("num.partitions", "it takes KEY=VALUE"),
        ("log.dirs=/data", "use baton serve --data"),
    ];
    for (given, reason) in wrong {
        let (code, _, stderr) = ran(&["serve", "--listen", "127.0.0.1:0", "--set", given]);
        assert_eq!(code, USAGE, "{stderr}");
        assert!(stderr.contains(&format!("--set {given}: ")) && stderr.contains(reason), "{stderr}");
    }
}

#[test]
fn a_file_that_is_missing_and_a_wrong_log_filter_are_usage_errors() {
    let (code, _, stderr) = ran(&["serve", "--config", "/nowhere/baton.toml"]);
    assert_eq!(code, USAGE);
    assert!(stderr.contains("/nowhere/baton.toml cannot be read"), "{stderr}");
    let output = baton(&["serve"]).env("BATON_LOG", "info=loud=very").output().unwrap();
    assert_eq!(output.status.code(), USAGE);
    assert!(String::from_utf8_lossy(&output.stderr).contains("BATON_LOG"));
}

#[test]
fn settings_are_listed_for_people_machines_and_the_documentation() {
    let (code, people, _) = ran(&["settings"]);
    assert_eq!(code, Some(0));
    assert!(people.contains("num.partitions = 1 partitions"), "{people}");
    let (_, machines, _) = ran(&["settings", "--json"]);
    assert!(machines.contains("\"name\": \"num.partitions\""));
    let written = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SETTINGS.md")).unwrap();
    assert_eq!(ran(&["settings", "--markdown"]).1, written, "docs/SETTINGS.md is stale");
}
