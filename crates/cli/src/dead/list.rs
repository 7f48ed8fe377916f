//! `baton dead list`.

use std::fmt::Write;

use baton::Baton;

use super::ListArguments;
use super::letter::{Letter, plain, shown};
use super::marks::Marks;
use super::queue::BROWSED_MAX;
use super::read::Letters;
use super::time::written;
use crate::{Failure, say};

/// Characters of a key and of a reason in a line; `show` and `--json` have all of them.
const KEY_CHARACTERS_MAX: usize = 20;
const REASON_CHARACTERS_MAX: usize = 60;

pub(super) async fn run(baton: &Baton, arguments: &ListArguments) -> Result<(), Failure> {
    let marks = Marks::read(baton, &arguments.from.topic).await?;
    let mut letters = Letters::open(baton, &arguments.from).await?;
    let limit = arguments.which.limit.map_or(usize::MAX, usize::from);
    let mut found = 0;
    while found < limit
        && let Some(letter) = letters.next().await?
    {
        if !arguments.which.is_meant(&letter) {
            continue;
        }
        let replayed = marks.has(&letter, &letter.origin.topic);
        if arguments.json {
            say(&format!("{}\n", letter.json(replayed)));
        } else {
            if found == 0 {
                say(&columns(["given up at (UTC)", "came from", "key", "group", "class", "tries", "", "reason"]));
            }
            say(&line(&letter, replayed));
        }
        found += 1;
    }
    if !arguments.json {
        say(&end(found, &letters));
    }
    letters.close().await
}

fn end(found: usize, letters: &Letters) -> String {
    let others = letters.others;
    let mut text = match found {
        0 => "No dead letters.\n".to_owned(),
        1 => "\n1 dead letter.\n".to_owned(),
        _ => format!("\n{found} dead letters.\n"),
    };
    if found == 0 && letters.are_queued() {
        text.push_str("While somebody else consumes from their queue, none are seen here.\n");
    }
    if letters.may_be_more() {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "Only {BROWSED_MAX} are looked at in one go: there may be more.");
    }
    if others > 0 {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{others} messages in this topic are no dead letters of Baton's.");
    }
    text
}

fn line(letter: &Letter, replayed: bool) -> String {
    let key = letter.delivery.key.as_ref().map(shown).unwrap_or_default();
    columns([
        &letter.last_ms.map(written).unwrap_or_default(),
        &plain(&letter.origin_name()),
        &shortened(&plain(&key), KEY_CHARACTERS_MAX),
        &plain(&letter.group),
        &plain(&letter.class),
        &letter.attempts.map(|attempts| attempts.to_string()).unwrap_or_default(),
        if replayed { "replayed" } else { "" },
        &shortened(&plain(&letter.reason), REASON_CHARACTERS_MAX),
    ])
}

fn columns([time, from, key, group, class, attempts, replayed, reason]: [&str; 8]) -> String {
    let text =
        format!("{time:<19}  {from:<22}  {key:<20}  {group:<16}  {class:<11}  {attempts:>5}  {replayed:<8}  {reason}");
    format!("{}\n", text.trim_end())
}

fn shortened(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max - 1) {
        Some((at, last)) if at + last.len_utf8() < text.len() => format!("{}…", &text[..at]),
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters_and_say_so() {
        assert_eq!(shortened("äbc", 3), "äbc");
        assert_eq!(shortened("äbcd", 3), "äb…");
        assert_eq!(shortened("", 3), "");
    }
}
