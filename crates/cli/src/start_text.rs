//! What is said when the broker is ready: where it is, what it found, and what to type next.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use baton_broker::Broker;

/// Damaged ranges that are named; the log lines name all.
const DAMAGE_SHOWN_MAX: usize = 3;

/// The text, in one block.
pub(crate) fn text(broker: &Broker, data: &Path, bootstrap: &str, took: Duration) -> String {
    let data = data.canonicalize().unwrap_or_else(|_| data.to_owned());
    let (topics, partitions) = broker.catalog_size();
    let mut text = format!("baton {} is ready after {} ms.\n\n", env!("CARGO_PKG_VERSION"), took.as_millis());
    let mut line = |name: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("clients", bootstrap.to_owned());
    line("data", data.display().to_string());
    if let Some(address) = broker.metrics_address() {
        line("metrics", format!("http://{address}/metrics"));
    }
    line("holds", format!("{} in {}", counted(partitions, "partition"), counted(topics, "topic")));
    found(broker).into_iter().for_each(|found| line("found", found));
    let _ = write!(
        text,
        "\nNext, in another terminal:\n\n  \
         echo 'hello' | kcat -b {bootstrap} -t first -P -X acks=all\n  \
         kcat -b {bootstrap} -t first -C -o beginning -e\n\n\
         Ctrl-C stops it.\n"
    );
    text
}

/// What opening the log found and did.
fn found(broker: &Broker) -> Vec<String> {
    let report = broker.recovery();
    if report.segments == 0 {
        return vec!["nothing yet: a new log".to_owned()];
    }
    let (segments, checked) = (counted(report.segments as usize, "segment"), bytes(report.checked_bytes));
    let mut found = vec![format!("{segments} of log, {checked} of it checked again")];
    if report.indexes_rebuilt > 0 {
        found.push(format!("{} made again", counted(report.indexes_rebuilt as usize, "index file")));
    }
    if let Some(cut) = &report.cut {
        let (size, file, position) = (bytes(cut.bytes), &cut.file, cut.position);
        found.push(format!("{size} after the last whole commit cut from {file} at {position}: never acknowledged"));
    }
    for damage in report.damage.iter().take(DAMAGE_SHOWN_MAX) {
        let partition = damage.partition.as_ref().map_or(String::new(), |(topic, index)| format!("{topic}-{index} "));
        let offsets = damage.offsets.map_or(String::new(), |(first, last)| format!("offsets {first} to {last} "));
        found.push(format!("DAMAGE: {partition}{offsets}{}", damage.detail));
    }
    if report.damage.len() > DAMAGE_SHOWN_MAX {
        found.push(format!("and {} more damaged ranges: see the log lines", report.damage.len() - DAMAGE_SHOWN_MAX));
    }
    found
}

fn counted(count: usize, what: &str) -> String {
    let plural = match what {
        _ if count == 1 => "",
        word if word.ends_with('x') => "es",
        _ => "s",
    };
    format!("{count} {what}{plural}")
}

fn bytes(count: u64) -> String {
    const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match UNITS.iter().find(|(size, _)| count >= *size) {
        // One digit behind the point says enough; the exact number is in the log lines.
        Some((size, unit)) => format!("{}.{} {unit}", count / size, count % size * 10 / size),
        None => format!("{count} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_and_sizes_are_written_for_people() {
        assert_eq!(counted(1, "topic"), "1 topic");
        assert_eq!(counted(0, "topic"), "0 topics");
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes((1 << 30) - 1), "1023.9 MiB");
        assert_eq!(bytes(u64::MAX), "17179869183.9 GiB");
    }
}
