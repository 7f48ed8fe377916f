//! Rewrites the generated messages of `baton-wire`.

use std::path::Path;
use std::process::ExitCode;

use baton_wire_gen::GenerateError;

fn main() -> Result<ExitCode, GenerateError> {
    let wire = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wire");
    let files = baton_wire_gen::generate(&wire.join("schemas"))?;
    baton_wire_gen::write(&files, &wire.join("src/messages"))?;
    Ok(ExitCode::SUCCESS)
}
