//! Real Kafka clients against Baton and against Apache Kafka, same assertions.
//!
//! Each client has a suite, a program of its own that runs the cases of `compat/cases.toml` against one address and
//! prints a line for each. This crate starts both servers, runs the suites, and judges their lines.

pub mod cases;
pub mod crash;
pub mod places;
pub mod run;
pub mod server;
pub mod table;
pub mod verdict;

/// Why a suite could not be run or a server not be started.
#[derive(Debug, thiserror::Error)]
pub enum CompatError {
    /// Something that the tests need is not installed.
    #[error("the tests' tools are not set up; run scripts/setup-tests\n{0}")]
    NotSetUp(String),
    /// A program could not be started or its files not be read.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A server did not start, or not stop.
    #[error("{0}")]
    Server(String),
    /// A file of the suite says something that it cannot mean.
    #[error("{0}")]
    Description(String),
}

impl CompatError {
    /// Wraps what the system said with what was being done.
    pub fn io(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}
