//! Clients in other languages: they warm up, say so, wait for the word to go, and answer with one JSON line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde::Deserialize;

use crate::Fallible;
use crate::figures::Outcome;

/// A started client that has warmed up.
pub struct External {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
}

#[derive(Deserialize)]
struct Answer {
    records: u64,
    seconds: f64,
    p50_us: f64,
    p99_us: f64,
}

impl External {
    /// Starts `command` and returns when it has connected and warmed up.
    pub fn start(command: &mut Command) -> Fallible<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(|error| {
            format!("{}: {error} (scripts/bench-engines setup builds it)", command.get_program().display())
        })?;
        let output = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut external = Self { child, output };
        match external.line()?.as_str() {
            "warm" => Ok(external),
            other => Err(format!("the client said {other:?} instead of \"warm\"").into()),
        }
    }

    /// Lets it run once.
    pub fn run(&mut self) -> Fallible<Outcome> {
        writeln!(self.child.stdin.as_mut().ok_or("no input")?, "go")?;
        let answer: Answer = serde_json::from_str(&self.line()?)?;
        Ok(Outcome {
            records: answer.records,
            seconds: answer.seconds,
            p50_p99_us: Some((answer.p50_us, answer.p99_us)),
        })
    }

    fn line(&mut self) -> Fallible<String> {
        let mut line = String::new();
        if self.output.read_line(&mut line)? == 0 {
            return Err("the client ended without an answer (see above)".into());
        }
        Ok(line.trim().to_owned())
    }
}

impl Drop for External {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        for _ in 0..100 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a waiting client is told what to do; the same flags for every language.
pub struct Shape<'a> {
    /// `kafka`, `rabbitmq`, `rabbitmq-channels`, `nats` or `rocketmq`.
    pub engine: &'a str,
    /// Where the server listens.
    pub address: &'a str,
    /// Topic, queue or subject.
    pub topic: &'a str,
    /// Clients, each waiting for its acknowledgement.
    pub clients: usize,
    /// Partitions; client i writes to partition i modulo this.
    pub partitions: i32,
    /// Bytes of each value.
    pub bytes: usize,
    /// Before measuring.
    pub warm: Duration,
    /// Measured.
    pub measure: Duration,
}

impl Shape<'_> {
    /// The shape as arguments.
    pub fn arguments(&self) -> Vec<String> {
        [
            ("-engine", self.engine.to_owned()),
            ("-address", self.address.to_owned()),
            ("-topic", self.topic.to_owned()),
            ("-clients", self.clients.to_string()),
            ("-partitions", self.partitions.to_string()),
            ("-bytes", self.bytes.to_string()),
            ("-warm-ms", self.warm.as_millis().to_string()),
            ("-measure-ms", self.measure.as_millis().to_string()),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value])
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Fallible<Outcome> {
        External::start(Command::new("sh").args(["-c", script]))?.run()
    }

    #[test]
    fn a_client_measures_only_after_the_word_to_go() {
        let line = r#"{"records":2,"seconds":1.5,"p50_us":1,"p99_us":2}"#;
        let outcome = shell(&format!("echo warm; read word; test $word = go && echo '{line}'")).unwrap();
        assert_eq!((outcome.records, outcome.p50_p99_us), (2, Some((1.0, 2.0))));
    }

    #[test]
    fn a_client_that_ends_early_is_an_error() {
        assert!(shell("exit 1").is_err());
        assert!(shell("echo warm; read word").is_err());
        assert!(shell("echo cold").err().unwrap().to_string().contains("cold"));
    }
}
