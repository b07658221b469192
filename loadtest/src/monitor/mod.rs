//! `loadtest monitor`: the system at a glance, again and again.

mod level;
mod picture;
mod screen;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use crate::failure::Failure;
use crate::output;
use crate::target::TargetArgs;
use crate::watch::{Look, Watch};

pub use level::Level;
pub use screen::draw;

/// Time between the two looks of `--once`: differences need two, and a deployment's metrics none.
const ONCE_GAP: Duration = Duration::from_secs(2);
/// How often the thread that waits for keys looks whether it is still wanted.
const KEYS_EVERY: Duration = Duration::from_millis(200);

/// What to look at, and how often.
#[derive(Debug, Clone, Args)]
pub struct MonitorArgs {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub interval: u64,
    /// Look once, print and end.
    #[arg(long)]
    pub once: bool,
    /// Print JSON instead of the screen, for scripts.
    #[arg(long, requires = "once")]
    pub json: bool,
    /// Draw the screen into an SVG as well.
    #[arg(long, requires = "once", value_name = "FILE")]
    pub svg: Option<PathBuf>,
    #[command(flatten)]
    pub target: TargetArgs,
}

/// Looks until `q`, Esc, Ctrl-C or SIGTERM; once with `--once`.
///
/// # Errors
/// When there is nothing to look at, nothing of it answers, or there is no terminal to draw on.
pub async fn monitor(args: &MonitorArgs) -> Result<ExitCode, Failure> {
    let target = args.target.discover()?;
    let mut watch = Watch::of(&target).await;
    let every = Duration::from_secs(args.interval);
    if args.once {
        let look = once(&mut watch).await;
        return show_once(args, &look, every);
    }
    if !io::stdout().is_terminal() {
        return Err(Failure::usage("there is no terminal to draw on: use --once, with --json for scripts"));
    }
    let mut terminal = ratatui::try_init().map_err(|error| Failure::fault(format!("the terminal: {error}")))?;
    let ended = keep_drawing(&mut terminal, &mut watch, every).await;
    ratatui::restore();
    ended.map_err(|error| Failure::fault(format!("the terminal: {error}")))?;
    Ok(ExitCode::SUCCESS)
}

fn show_once(args: &MonitorArgs, look: &Look, every: Duration) -> Result<ExitCode, Failure> {
    if args.json {
        output::line(serde_json::to_string_pretty(look).map_err(Failure::fault)?);
    } else {
        output::line(screen::text(look));
    }
    if let Some(file) = &args.svg {
        let picture = picture::svg(look, every)?;
        std::fs::write(file, picture)
            .map_err(|error| Failure::usage(format!("--svg {} cannot be written: {error}", file.display())))?;
    }
    if look.is_blind() {
        return Err(Failure::fault(format!("nothing of it answers: {}", look.gaps.join("; "))));
    }
    Ok(ExitCode::SUCCESS)
}

/// Looks once, with differences where they need two looks.
pub async fn once(watch: &mut Watch) -> Look {
    let first = watch.look().await;
    if matches!(watch, Watch::Deployed(_)) {
        return first;
    }
    tokio::time::sleep(ONCE_GAP).await;
    watch.look().await
}

async fn keep_drawing(terminal: &mut ratatui::DefaultTerminal, watch: &mut Watch, every: Duration) -> io::Result<()> {
    let mut keys = keys();
    // Without this it would leave the terminal as it is while drawn on.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut look = Look::default();
    let mut pause = Duration::ZERO;
    for next_pause in std::iter::once(every.min(ONCE_GAP)).chain(std::iter::repeat(every)) {
        // A system that does not answer keeps a look waiting, and not the person at the keyboard.
        let due = tokio::time::Instant::now() + pause;
        let looking = async {
            tokio::time::sleep_until(due).await;
            watch.look().await
        };
        tokio::pin!(looking);
        look = loop {
            terminal.draw(|frame| draw(frame, &look, every))?;
            tokio::select! {
                look = &mut looking => break look,
                _ = terminate.recv() => return Ok(()),
                event = keys.recv() => match event.transpose()? {
                    Some(event) if !is_end(&event) => {}
                    _ => return Ok(()),
                },
            }
        };
        pause = next_pause;
    }
    Ok(())
}

/// Reads keys and resizes of the terminal on a thread of their own, as long as the receiver is there.
fn keys() -> mpsc::Receiver<io::Result<Event>> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        while !sender.is_closed() {
            let event = match event::poll(KEYS_EVERY) {
                Ok(false) => continue,
                Ok(true) => event::read(),
                Err(error) => Err(error),
            };
            let is_over = event.is_err();
            if sender.blocking_send(event).is_err() || is_over {
                return;
            }
        }
    });
    receiver
}

fn is_end(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let ctrl_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (ctrl_c || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}
