//! `portal`: reads the settings, opens database and port, serves until told to stop.

use std::error::Error;
use std::io::BufRead;
use std::process::ExitCode;

use clap::Parser;
use portal::app::{Application, is_long_enough, put_teacher};
use portal::database::Database;
use portal::secret;
use portal::settings::{Cli, Command, LogFormat, MIN_PASSWORD_CHARS, ServeSettings, TeacherSettings};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Settings that cannot be used: starting again does not mend them (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;
/// A second signal.
const EXIT_INTERRUPTED: i32 = 130;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) if error.use_stderr() => return refuse(&error.render()),
        Err(help) => help.exit(),
    };
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&error),
    };
    match cli.command {
        Command::Serve(settings) => {
            if let Err(error) = settings.validate() {
                return refuse(&error);
            }
            if let Err(error) = init_logs(&settings) {
                return refuse(&error);
            }
            runtime.block_on(serve(&settings)).map_or_else(|error| give_up(&*error), |()| ExitCode::SUCCESS)
        }
        Command::Teacher(settings) => {
            let password = match read_password() {
                Ok(password) => password,
                Err(words) => return refuse(&words),
            };
            let done = runtime.block_on(teacher(&settings, password));
            done.map_or_else(|error| give_up(&*error), |()| ExitCode::SUCCESS)
        }
    }
}

async fn serve(settings: &ServeSettings) -> Result<(), Box<dyn Error>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let stopping = stop.clone();
    tasks.spawn(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("stopping");
        stopping.cancel();
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(EXIT_INTERRUPTED);
    });
    let application = Application::build(settings).await?;
    tracing::info!(address = %application.local_addr()?, "listening");
    application.run(stop).await?;
    tracing::info!("stopped");
    Ok(())
}

async fn teacher(settings: &TeacherSettings, password: String) -> Result<(), Box<dyn Error>> {
    let database = Database::open(settings.database.database_url.reveal()).await?;
    put_teacher(&database, &settings.email, settings.name.as_deref(), password, &secret::class_code()).await?;
    database.close().await;
    println!("{} can sign in", settings.email);
    Ok(())
}

/// Not an argument and no variable: those can be seen by others of the machine.
fn read_password() -> Result<String, String> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).map_err(|error| format!("the password cannot be read: {error}"))?;
    let password = line.trim_end_matches(['\n', '\r']).to_owned();
    if is_long_enough(&password) {
        return Ok(password);
    }
    Err(format!("the password on standard input needs {MIN_PASSWORD_CHARS} characters or more"))
}

fn init_logs(settings: &ServeSettings) -> Result<(), String> {
    let filter = EnvFilter::try_new(&settings.log_filter).map_err(|error| format!("LOG_FILTER: {error}"))?;
    let logs = tracing_subscriber::fmt().with_env_filter(filter);
    let installed = match settings.log_format {
        LogFormat::Json => logs.json().flatten_event(true).try_init(),
        LogFormat::Text => logs.try_init(),
    };
    installed.map_err(|error| error.to_string())
}

fn refuse(error: &dyn std::fmt::Display) -> ExitCode {
    eprintln!("{error}");
    ExitCode::from(EXIT_USAGE)
}

fn give_up(error: &(impl std::fmt::Display + ?Sized)) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}
