//! Settings from a TOML file and from `--set`. What is wrong is told with its line.

use std::path::Path;

use baton_broker::Settings;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::Failure;

/// Reads the file, if there is one, and then the overrides `NAME=VALUE`, which count before it.
pub(crate) fn load(file: Option<&Path>, overrides: &[String]) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    if let Some(path) = file {
        let shown = path.display();
        let text = std::fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("the configuration file {shown} cannot be read: {error}")))?;
        from_toml(&mut settings, &text).map_err(|faults| {
            let lines = faults.into_iter().map(|Fault { line, reason }| format!("{shown}:{line}: {reason}"));
            Failure::Usage(lines.collect::<Vec<_>>().join("\nbaton: "))
        })?;
    }
    for given in overrides {
        let wrong = |reason: String| Failure::Usage(format!("--set {given}: {reason}"));
        let (name, value) = given.split_once('=').ok_or_else(|| wrong("it takes KEY=VALUE".to_owned()))?;
        settings.set(name.trim(), value).map_err(|error| wrong(error.to_string()))?;
    }
    Ok(settings)
}

/// Something wrong in the file.
#[derive(Debug, PartialEq, Eq)]
struct Fault {
    line: usize,
    reason: String,
}

/// Sets what the text says; all faults are told at once, in the order of their lines.
fn from_toml(settings: &mut Settings, text: &str) -> Result<(), Vec<Fault>> {
    let line = |at: usize| text.bytes().take(at).filter(|byte| *byte == b'\n').count() + 1;
    let table = DeTable::parse(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start);
        vec![Fault { line: line(at), reason: error.message().to_owned() }]
    })?;
    let mut found = Vec::new();
    flatten("", table.get_ref(), &mut found);
    let mut faults = Vec::new();
    for (name, at, value) in found {
        if let Err(error) = settings.set(&name, &value) {
            faults.push(Fault { line: line(at), reason: error.to_string() });
        }
    }
    faults.sort_by_key(|fault| fault.line);
    if faults.is_empty() { Ok(()) } else { Err(faults) }
}

/// `num.partitions = 1` is a table in a table to TOML: names are put together again, with the place of each and its value as text.
fn flatten(prefix: &str, table: &DeTable<'_>, found: &mut Vec<(String, usize, String)>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.get_ref());
        match value.get_ref() {
            DeValue::Table(inner) if !inner.is_empty() => flatten(&format!("{name}."), inner, found),
            _ => found.push((name, key.span().start, written(value))),
        }
    }
}

/// The value as `--set` would have it. What no setting takes (a table, a float) becomes text that none takes either.
fn written(value: &Spanned<DeValue<'_>>) -> String {
    match value.get_ref() {
        DeValue::String(text) => text.to_string(),
        DeValue::Boolean(value) => value.to_string(),
        DeValue::Integer(number) => match i128::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => number.to_string(),
            Err(_) => number.as_str().to_owned(),
        },
        DeValue::Float(number) => number.as_str().to_owned(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(values) => values.iter().map(written).collect::<Vec<_>>().join(","),
        DeValue::Table(_) => "{}".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(text: &str) -> Vec<(usize, String)> {
        let faults = from_toml(&mut Settings::default(), text).expect_err("something is wrong");
        faults.into_iter().map(|fault| (fault.line, fault.reason)).collect()
    }

    #[test]
    fn names_are_taken_with_dots_in_quotes_and_in_tables() {
        let text =
            "num.partitions = 6\n\"topics.max\" = 0x10\n[group]\nmax.size = 1_000\nmin.session.timeout.ms = \"7\"\n";
        let mut settings = Settings::default();
        from_toml(&mut settings, text).expect("all is right");
        let values = settings.values();
        assert_eq!((values.partitions_default, values.topics_max), (6, 16));
        assert_eq!((values.group_members_max, values.session_timeout_min_ms), (1000, 7));
        assert_eq!(settings.given().len(), 4);
    }

    #[test]
    fn every_fault_is_told_with_its_line() {
        let text = "# mine\nnum.partitions = 0\n\n[auto]\ncreate.topics.enabled = true\ncreate.topics.enable = 1.5\n";
        let faults = faults(text);
        assert_eq!(faults.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [2, 5, 6]);
        assert!(faults[0].1.contains("a whole number from 1 to 10000"), "{faults:?}");
        assert!(faults[1].1.contains("did you mean auto.create.topics.enable?"), "{faults:?}");
        assert!(faults[2].1.contains("true or false"), "{faults:?}");
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_line() {
        assert_eq!(faults("topics.max = 1\ntopics.max = 2\n")[0].0, 2);
        assert_eq!(faults("topics.max = 1\n\nwhat is this\n")[0].0, 3);
    }

    #[test]
    fn overrides_count_before_the_file_and_are_checked_alike() {
        let given = |text: &str| load(None, &[text.to_owned()]);
        assert_eq!(given("num.partitions=3").expect("taken").values().partitions_default, 3);
        for wrong in ["num.partitions", "num.partitions=", "nothing=1", "log.dirs=/tmp"] {
            let error = given(wrong).expect_err(wrong).to_string();
            assert!(error.starts_with(&format!("--set {wrong}: ")), "{error}");
        }
    }
}
