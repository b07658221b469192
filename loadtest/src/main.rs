//! `loadtest ...`: reads the command line, runs the subcommand, and turns its result into an exit code.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use loadtest::simulate::{SimulateArgs, simulate};

/// What the pipeline does under load.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Simulates the scaling of a Terraform plan: alarms, policies, boot, Spot losses and the queue.
    ///
    /// Prints a table per scenario, writes plots, and fails when the policy of the plan breaks a promise.
    Simulate(SimulateArgs),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Simulate(args) => simulate(&args),
    };
    match result {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
