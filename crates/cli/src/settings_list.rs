//! `baton settings`: what can be set.

use std::fmt::Write;

use baton_broker::settings::{BROKER_SETTINGS, Definition, TOPIC_SETTINGS, Update, document};
use serde_json::{Value, json};

use crate::SettingsArguments;

/// All settings, in the form that is asked for.
pub(crate) fn text(arguments: &SettingsArguments) -> String {
    if arguments.markdown {
        document()
    } else if arguments.json {
        format!("{:#}\n", json())
    } else {
        for_people()
    }
}

fn json() -> Value {
    let one = |scope: &'static str| {
        move |definition: &Definition| {
            json!({
                "name": definition.name,
                "scope": scope,
                "default": definition.default,
                "unit": definition.unit,
                "takes": definition.kind.describe(),
                "changes": changes(definition),
                "default_from": definition.synonym,
                "meaning": definition.document.trim(),
            })
        }
    };
    let broker = BROKER_SETTINGS.iter().map(one("broker"));
    Value::Array(broker.chain(TOPIC_SETTINGS.iter().map(one("topic"))).collect())
}

fn changes(definition: &Definition) -> &'static str {
    match definition.update {
        Update::Restart => "restart",
        Update::Running => "running",
    }
}

fn for_people() -> String {
    let mut text =
        String::from("Settings of the broker: baton serve --set NAME=VALUE, or a TOML file with --config.\n");
    BROKER_SETTINGS.iter().for_each(|definition| paragraph(&mut text, definition));
    text.push_str("\nSettings of a topic: given when it is created, or changed later. By default the broker's.\n");
    TOPIC_SETTINGS.iter().for_each(|definition| paragraph(&mut text, definition));
    text
}

fn paragraph(text: &mut String, definition: &Definition) {
    let Definition { name, default, unit, .. } = definition;
    let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
    let takes = definition.kind.describe();
    // Writing to a string cannot fail.
    let _ = writeln!(text, "\n{name} = {default}{unit}\n    Takes {takes}. Changes: {}.", changes(definition));
    let _ = writeln!(text, "    {}", definition.document.trim());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_in_every_form() {
        for form in [(false, false), (true, false), (false, true)] {
            let text = text(&SettingsArguments { json: form.0, markdown: form.1 });
            for definition in BROKER_SETTINGS.iter().chain(TOPIC_SETTINGS) {
                assert!(text.contains(definition.name), "{}", definition.name);
            }
        }
    }
}
