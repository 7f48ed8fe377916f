//! `baton dead show`.

use std::fmt::Write;
use std::io::Write as _;

use baton::Baton;
use serde_json::{Value, json};

use super::ShowArguments;
use super::letter::{Letter, plain, shown};
use super::marks::Marks;
use super::read::Letters;
use super::time::written;
use crate::{Failure, say};

pub(super) async fn run(baton: &Baton, arguments: &ShowArguments) -> Result<(), Failure> {
    let mut letters = Letters::open(baton, &arguments.from).await?;
    let mut found = None;
    while let Some(letter) = letters.next().await? {
        if letter.is_called(&arguments.letter) {
            found = Some(letter);
        }
    }
    letters.close().await?;
    let Some(letter) = found else {
        let (topic, wanted) = (&arguments.from.topic, &arguments.letter);
        return Err(Failure::Failed(format!("{topic} holds no letter {wanted}: see baton dead list")));
    };
    if arguments.raw {
        let payload = letter.delivery.payload.unwrap_or_default();
        let mut stdout = std::io::stdout().lock();
        return stdout
            .write_all(&payload)
            .and_then(|()| stdout.flush())
            .map_err(|error| Failure::failed("stdout", &error));
    }
    let replayed = Marks::read(baton, &arguments.from.topic).await?.has(&letter, &letter.origin.topic);
    say(&if arguments.json { json_text(&letter, replayed) } else { text(&letter, replayed) });
    Ok(())
}

fn json_text(letter: &Letter, replayed: bool) -> String {
    let mut all = letter.json(replayed);
    let headers = letter.delivery.headers.iter();
    let pairs = headers.map(|header| json!([&*header.name, header.value.as_ref().map(shown)]));
    all["headers"] = Value::Array(pairs.collect());
    all["payload"] = json!(letter.delivery.payload.as_ref().map(shown));
    format!("{all:#}\n")
}

fn text(letter: &Letter, replayed: bool) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{name:<12}{}", plain(value));
    };
    let delivery = &letter.delivery;
    let time =
        |time_ms: Option<i64>| time_ms.map_or_else(|| "unknown".to_owned(), |time| format!("{} UTC", written(time)));
    line("id", letter.id.as_deref().unwrap_or("none"));
    line("came from", &letter.origin_name());
    line("lies in", &format!("{}-{}", delivery.from, delivery.offset));
    line("key", &delivery.key.as_ref().map_or_else(|| "none".to_owned(), shown));
    line("group", &letter.group);
    line("class", &letter.class);
    line("tried", &letter.attempts.map_or_else(|| "unknown".to_owned(), |attempts| format!("{attempts} times")));
    line("failed", &letter.source);
    line("reason", &letter.reason);
    line("sent", &time(letter.timestamp_ms));
    line("came", &time(letter.first_ms));
    line("given up", &time(letter.last_ms));
    line("replayed", if replayed { "yes" } else { "no" });
    for header in delivery.headers.iter() {
        line(
            "header",
            &format!("{} = {}", header.name, header.value.as_ref().map_or_else(|| "none".to_owned(), shown)),
        );
    }
    match &delivery.payload {
        None => text.push_str("\nno payload\n"),
        Some(payload) => {
            let lines = shown(payload);
            let lines: Vec<_> = lines.lines().map(plain).collect();
            let _ = writeln!(text, "\npayload, {} bytes:\n{}", payload.len(), lines.join("\n"));
        }
    }
    text
}
