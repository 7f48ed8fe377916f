//! The ways between the services and what they use, which a run may disturb.

use std::time::Duration;

use baton_testkit::proxy::{Fault, Proxy};
use tokio::runtime::Runtime;

use crate::places::CrashError;
use crate::plan::{Disturbance, How, Way};
use crate::servers::free_port;

/// How much later everything arrives when it is late.
const DELAY: Duration = Duration::from_millis(150);

/// The ways that can be disturbed; none in a run without disturbances.
pub(crate) struct Network {
    runtime: Runtime,
    engine: Option<Proxy>,
    database: Option<Proxy>,
}

impl Network {
    pub(crate) fn new() -> Result<Self, CrashError> {
        let runtime = Runtime::new().map_err(CrashError::io("threads for the network"))?;
        Ok(Self { runtime, engine: None, database: None })
    }

    /// A way to the engine that listens on `port` and leads to the port `to`.
    pub(crate) fn lead_to_engine(&mut self, port: u16, to: u16) -> Result<(), CrashError> {
        self.engine = Some(self.way(port, to)?);
        Ok(())
    }

    /// A way to the database; says where it begins.
    pub(crate) fn lead_to_database(&mut self, to: u16) -> Result<u16, CrashError> {
        let port = free_port()?;
        self.database = Some(self.way(port, to)?);
        Ok(port)
    }

    fn way(&self, port: u16, to: u16) -> Result<Proxy, CrashError> {
        let started = self.runtime.block_on(Proxy::start(&format!("127.0.0.1:{port}"), format!("127.0.0.1:{to}")));
        started.map_err(CrashError::io("a proxy"))
    }

    /// Disturbs a way for its time, and says in words what was done; nothing if there is no such way.
    pub(crate) fn disturb(&self, disturbance: Disturbance) -> Option<String> {
        let Disturbance { way, how, lasts_ms } = disturbance;
        let (way, whom) = match way {
            Way::ToEngine => (&self.engine, "engine"),
            Way::ToDatabase => (&self.database, "database"),
        };
        let proxy = way.as_ref()?;
        let (fault, what) = match how {
            How::Delay => (Fault::Delay(DELAY), "delay"),
            How::Stall => (Fault::Stall, "stall"),
            How::Cut => (Fault::Cut, "cut"),
            How::LostAnswers => (Fault::LoseAnswers, "lost answers"),
            How::HalfOpen => (Fault::HalfOpen, "half open"),
        };
        proxy.set(fault);
        std::thread::sleep(Duration::from_millis(lasts_ms));
        proxy.set(Fault::None);
        Some(format!("{what} to the {whom}"))
    }
}
