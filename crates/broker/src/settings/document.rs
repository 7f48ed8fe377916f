//! The documentation of all settings, made from their definitions.

use std::fmt::Write;

use super::unserved::UNSERVED;
use super::{BROKER_SETTINGS, Definition, TOPIC_SETTINGS, Update};

const INTRODUCTION: &str = "# Settings

<!-- Made by `baton settings --markdown`; a test compares. Do not edit. -->

Set them with `baton serve --set NAME=VALUE`, or in a TOML file given with `--config`:

```toml
num.partitions = 6
message.max.bytes = 2000000
```

What Apache Kafka has too keeps Kafka's name, meaning and (unless the text says otherwise) default. A wrong name or value is
refused at the start, with its line; so is a setting of Kafka's that would have no effect. *Changes* says whether `AlterConfigs` and
`IncrementalAlterConfigs` can change the value while the broker runs; such a change is durable and counts before what is given at the
start. As there is one broker, changes for broker `0` and for all brokers (the empty name) are the same changes.

## Broker
";

const TOPICS: &str = "
## Topics

Given when a topic is created, or changed later by `IncrementalAlterConfigs`. What is not set for a topic is taken from the broker's
setting named in the last column.
";

const REFUSED: &str = "
## Settings of Apache Kafka that are refused

A setting that has no effect is a promise that is not kept. These are known, and refused with their reason; any other unknown name is
refused too.
";

/// `docs/SETTINGS.md`, as it must be.
pub fn document() -> String {
    let mut text = INTRODUCTION.to_owned();
    text.push_str("\n| name | default | unit | takes | changes | meaning |\n|---|---|---|---|---|---|\n");
    for definition in BROKER_SETTINGS {
        let changes = match definition.update {
            Update::Restart => "restart",
            Update::Running => "running",
        };
        row(&mut text, definition, changes);
    }
    text.push_str(TOPICS);
    text.push_str("\n| name | default | unit | takes | from | meaning |\n|---|---|---|---|---|---|\n");
    for definition in TOPIC_SETTINGS {
        row(&mut text, definition, &definition.synonym.map(|name| format!("`{name}`")).unwrap_or_default());
    }
    text.push_str(REFUSED);
    text.push_str("\n| name | why it is refused |\n|---|---|\n");
    for (name, reason) in UNSERVED {
        let rest = if name.ends_with('.') { "*" } else { "" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name}{rest} | {reason} |");
    }
    text
}

fn row(text: &mut String, definition: &Definition, column: &str) {
    let Definition { name, default, unit, kind, .. } = definition;
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "| `{name}` | {default} | {unit} | {} | {column} | {} |",
        kind.describe(),
        definition.document.trim().replace("  ", " ")
    );
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_document_is_what_the_definitions_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/SETTINGS.md");
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == super::document(),
            "docs/SETTINGS.md is stale: run `cargo run -p baton-cli -- settings --markdown > docs/SETTINGS.md`"
        );
    }
}
