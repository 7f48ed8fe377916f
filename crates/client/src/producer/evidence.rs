//! Brings the reports of producers, relays and consumers to their topic, beside the messages and never in front of them.

use std::sync::Arc;
use std::time::Duration;

use baton_core::partitioner::partition_of_key;
use baton_core::{EVIDENCE_TOPIC, Headers, Report, TopicPartition};
use baton_engine::{Engine, EngineError, EngineProducer, ProducerOptions, Record, TopicSpec};
use bytes::Bytes;
use tokio::sync::mpsc;

/// Partitions of the evidence topic when it is made: a producer sends it one small message a second, so that one is enough for thousands.
const PARTITIONS: u32 = 1;
/// How long one report may take. Longer than a short outage; what fails is said again in the next report.
const REPORT_WAIT: Duration = Duration::from_secs(5);
/// Sets of reports that wait; the driver takes no new one before it knows what became of the one before.
const SETS_MAX: usize = 1;

/// What reports are sent through.
pub(crate) enum Through {
    /// What messages are sent through, too.
    Shared(Arc<dyn EngineProducer>),
    /// A producer of their own, which is made with the first report.
    Own(ProducerOptions),
}

/// Starts to send reports. What became of each set is told to `told`: with each report, whether it is stored. Why one is not is told to
/// `failing`, once until one is stored again.
pub(crate) fn start(
    engine: Arc<dyn Engine>,
    through: Through,
    failing: impl Fn(&str) + Send + Sync + 'static,
    told: impl Fn(Vec<(Report, bool)>) + Send + Sync + 'static,
) -> mpsc::Sender<Vec<Report>> {
    let (sender, mut sets) = mpsc::channel::<Vec<Report>>(SETS_MAX);
    tokio::spawn(async move {
        let mut evidence = Evidence { engine, through, partitions: None, warned: false };
        while let Some(reports) = sets.recv().await {
            told(evidence.send_all(reports, &failing).await);
        }
    });
    sender
}

/// Says in the log that reports cannot be sent.
pub(crate) fn warn(cause: &str) {
    tracing::warn!(topic = EVIDENCE_TOPIC, cause, "evidence cannot be sent; it is tried again until it can");
}

struct Evidence {
    engine: Arc<dyn Engine>,
    through: Through,
    partitions: Option<std::num::NonZeroU32>,
    /// It failed the last time: one line in the log is enough.
    warned: bool,
}

impl Evidence {
    async fn send_all(&mut self, reports: Vec<Report>, failing: &impl Fn(&str)) -> Vec<(Report, bool)> {
        let mut told = Vec::with_capacity(reports.len());
        for report in reports {
            let sent = match tokio::time::timeout(REPORT_WAIT, self.send(&report)).await {
                Ok(sent) => sent,
                Err(_) => Err(format!("no answer in {} s", REPORT_WAIT.as_secs())),
            };
            match &sent {
                Ok(()) => self.warned = false,
                Err(cause) if !self.warned => {
                    failing(cause);
                    self.warned = true;
                }
                Err(_) => {}
            }
            told.push((report, sent.is_ok()));
        }
        told
    }

    async fn send(&mut self, report: &Report) -> Result<(), String> {
        let partitions = match self.partitions {
            Some(partitions) => partitions,
            None => self.topic().await.map_err(|error| error.to_string())?,
        };
        self.partitions = Some(partitions);
        let key = Bytes::copy_from_slice(report.instance.as_str().as_bytes());
        let record = Record {
            to: TopicPartition::new(EVIDENCE_TOPIC, partition_of_key(&key, partitions)),
            key: Some(key),
            payload: Some(report.encode()),
            headers: Headers::default(),
            timestamp_ms: None,
            id: None,
        };
        let producer = self.producer().await.map_err(|error| error.to_string())?;
        let sending = match producer.send(record) {
            Ok(sending) => sending,
            Err(full) => {
                producer.room().await;
                producer.send(*full.0).map_err(|_| "the engine's buffer is full of messages".to_owned())?
            }
        };
        sending.await.map(drop).map_err(|error| {
            // The topic may have been deleted: it is looked at again.
            self.partitions = None;
            error.to_string()
        })
    }

    async fn producer(&mut self) -> Result<Arc<dyn EngineProducer>, EngineError> {
        let producer = match &self.through {
            Through::Shared(producer) => Arc::clone(producer),
            Through::Own(options) => self.engine.producer(options.clone()).await?,
        };
        self.through = Through::Shared(Arc::clone(&producer));
        Ok(producer)
    }

    /// Finds the topic, or makes it.
    async fn topic(&self) -> Result<std::num::NonZeroU32, EngineError> {
        let there = match self.engine.partitions(EVIDENCE_TOPIC).await {
            Err(EngineError::Caller(_)) => {
                let spec = TopicSpec {
                    name: EVIDENCE_TOPIC.into(),
                    partitions: PARTITIONS,
                    copies: None,
                    settings: Vec::new(),
                };
                self.engine.create_topic(&spec).await.map(|()| PARTITIONS)
            }
            answer => answer,
        };
        std::num::NonZeroU32::new(there?)
            .ok_or_else(|| EngineError::Unavailable(format!("{EVIDENCE_TOPIC} has no partitions yet")))
    }
}
