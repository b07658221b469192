//! `imagectl`: reads the command line, runs the command, and prints its result as a table or as JSON.

use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use imagectl::fault::Fault;
use imagectl::settings::{Cli, Command, JobCommand, LettersCommand};
use imagectl::site::Site;
use imagectl::{cost, delete, letters, pause, redrive, show, status};
use serde::Serialize;
use service::settings::{EXIT_USAGE, give_up};
use service::shutdown;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Whether somebody reads it or not.
            error.print().ok();
            return if is_help { ExitCode::SUCCESS } else { ExitCode::from(EXIT_USAGE) };
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&error),
    };
    match runtime.block_on(run(&cli)) {
        Ok(code) => code,
        Err(fault) => {
            aside(&format!("error: {fault}"));
            fault.exit_code()
        }
    }
}

async fn run(cli: &Cli) -> Result<ExitCode, Fault> {
    let signals = shutdown::on_signal();
    let stopping = signals.map_err(|error| Fault::Service { what: "signals", reason: error.to_string() })?;
    let command = async {
        let site = Site::open(&cli.target, aside).await?;
        let tell = Tell { json: cli.json };
        match &cli.command {
            Command::Status(settings) => {
                let seen = status::status(&site, settings).await;
                tell.result(&seen);
                return Ok(exit_code_with(&seen.gaps));
            }
            Command::Job(JobCommand::Show(settings)) => {
                let shown = show::show(&site, settings).await?;
                tell.result(&shown);
                return Ok(exit_code_with(&shown.gaps));
            }
            Command::DeadLetters(LettersCommand::List(settings)) => {
                tell.result(&letters::list(&site, settings.code.as_deref(), settings.max_letters).await?);
            }
            Command::DeadLetters(LettersCommand::Show(settings)) => {
                tell.result(&letters::find(&site, &settings.id, settings.max_letters).await?);
            }
            Command::DeadLetters(LettersCommand::Redrive(settings)) => {
                let done = redrive::redrive(&site, settings, &stopping).await;
                tell.result(&done);
                if let Some(fault) = done.fault {
                    return Err(fault);
                }
                if done.interrupted {
                    return Err(Fault::Interrupted);
                }
            }
            Command::DeadLetters(LettersCommand::Delete(settings)) => {
                tell.result(&delete::delete(&site, settings).await?);
            }
            Command::Pause(settings) => {
                tell.result(&pause::pause(&site, settings.which.parts(), &settings.reason).await?);
            }
            Command::Resume(settings) => tell.result(&pause::resume(&site, settings.which.parts()).await?),
            Command::Cost(settings) => tell.result(&cost::cost(&site, settings).await?),
        }
        Ok(ExitCode::SUCCESS)
    };
    // A redrive ends by itself between two letters, and says how far it came.
    if matches!(cli.command, Command::DeadLetters(LettersCommand::Redrive(_))) {
        return command.await;
    }
    tokio::select! {
        done = command => done,
        () = stopping.cancelled() => Err(Fault::Interrupted),
    }
}

/// What was shown is not all that was asked for.
fn exit_code_with(gaps: &[String]) -> ExitCode {
    if gaps.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

struct Tell {
    json: bool,
}

impl Tell {
    fn result<T: Serialize + Display>(&self, result: &T) {
        let text = if self.json {
            serde_json::to_string_pretty(result).expect("a result always serialises") + "\n"
        } else {
            result.to_string()
        };
        // Somebody may have stopped reading: `imagectl ... | head`.
        io::stdout().lock().write_all(text.as_bytes()).ok();
    }
}

fn aside(line: &str) {
    writeln!(io::stderr().lock(), "{line}").ok();
}
