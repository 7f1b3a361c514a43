//! The `lastlayer` program.

use std::process::ExitCode;

fn main() -> ExitCode {
    lastlayer::cli::main()
}
