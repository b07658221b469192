//! `loadtest ...`: reads the command line, runs the subcommand, and turns its result into an exit code.

use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use loadtest::capacity::{CapacityArgs, capacity};
use loadtest::failure::{EXIT_USAGE, Failure};
use loadtest::monitor::{MonitorArgs, monitor};
use loadtest::output;
use loadtest::report::{CompareArgs, RenderArgs, compare, render};
use loadtest::run::{RunArgs, run};
use loadtest::screenshot::{ScreenshotArgs, screenshot};
use loadtest::simulate::{SimulateArgs, simulate};

/// What the pipeline does under load.
///
/// Load goes to the running `cargo dev up`, or to a deployment that --terraform-dir or --outputs names, and nowhere else.
///
/// Exit codes: 0 done; 1 something went wrong; 64 the command cannot be run as given; 99 a threshold was not met or had no
/// samples; 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "loadtest", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs scenarios of virtual users, judges them by thresholds and writes reports.
    Run(Box<RunArgs>),
    /// Finds the highest rate of jobs that meets the thresholds, and names what stands in the way of more.
    Capacity(Box<CapacityArgs>),
    /// Shows the system at a glance, again and again: queue, workers, storage, CDN, alarms.
    Monitor(Box<MonitorArgs>),
    /// Shows two runs side by side.
    Compare(CompareArgs),
    /// Writes HTML and CSV of a report again from its JSON.
    Render(RenderArgs),
    /// Takes a picture of a report in a real browser.
    Screenshot(ScreenshotArgs),
    /// Simulates the scaling of a Terraform plan: alarms, policies, boot, Spot losses and the queue.
    ///
    /// Prints a table per scenario, writes plots, and fails when the policy of the plan breaks a promise.
    Simulate(SimulateArgs),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refused(&error),
    };
    let result = match cli.command {
        Command::Run(args) => block_on(run(&args)),
        Command::Capacity(args) => block_on(capacity(&args)),
        Command::Monitor(args) => block_on(monitor(&args)),
        Command::Compare(args) => compare(&args),
        Command::Render(args) => render(&args),
        Command::Screenshot(args) => block_on(screenshot(&args)),
        Command::Simulate(args) => simulate(&args).map_err(Failure::usage),
    };
    result.unwrap_or_else(|failure| {
        output::aside(format_args!("error: {failure}"));
        failure.exit_code()
    })
}

fn block_on(command: impl Future<Output = Result<ExitCode, Failure>>) -> Result<ExitCode, Failure> {
    tokio::runtime::Runtime::new().map_err(Failure::fault)?.block_on(command)
}

/// clap's own exit code for a command line that it cannot read is 2; here it is that of every refusal.
fn refused(error: &clap::Error) -> ExitCode {
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    // Whether somebody reads it or not.
    error.print().ok();
    if is_help { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) }
}
