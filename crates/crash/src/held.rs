//! Programs that end when the driver does, also when that one is killed, and when they stand still themselves.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;

use clap::Args;
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};

use crate::places::CrashError;

/// Which driver, and what to become.
#[derive(Args)]
pub struct HeldArguments {
    /// The process id of the driver.
    #[arg(long)]
    driver: i32,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<OsString>,
}

/// Becomes the program; returns only if that is not possible. What is asked of the operating system here outlives the change.
///
/// # Errors
/// When it cannot, or the driver has ended.
pub fn become_program(arguments: &HeldArguments) -> Result<bool, CrashError> {
    let asked = set_parent_process_death_signal(Some(Signal::KILL));
    asked.map_err(|error| CrashError::io("asking to end with the driver")(error.into()))?;
    // It may have ended before it was asked for.
    if getppid().map(Pid::as_raw_nonzero).map(std::num::NonZero::get) != Some(arguments.driver) {
        return Err(CrashError::Process("the driver has ended".to_owned()));
    }
    let mut program = arguments.program.iter();
    let mut command = Command::new(program.next().map_or_else(Default::default, Clone::clone));
    Err(CrashError::io("starting a program")(command.args(program).exec()))
}
