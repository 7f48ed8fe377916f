//! The messages that are checked in are what the generator makes of the schemas that are checked in.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

#[test]
fn checked_in_messages_are_what_the_generator_makes() {
    let wire = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire");
    let files = baton_wire_gen::generate(&wire.join("schemas")).unwrap();
    let messages = wire.join("src/messages");
    for (name, text) in &files {
        let present = fs::read_to_string(messages.join(name)).unwrap_or_default();
        assert!(
            present == *text,
            "{name} differs from its schema: run `cargo run -p baton-wire-gen` and commit the result"
        );
    }
    let present: BTreeSet<String> = fs::read_dir(&messages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(present, files.into_keys().collect(), "every file in {} is generated", messages.display());
}
