//! `cargo dev ...`

use std::process::ExitCode;

use clap::Parser;
use devstack::cli::{Cli, run};

fn main() -> ExitCode {
    run(Cli::parse())
}
