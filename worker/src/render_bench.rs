//! `render-bench`: the render against Pillow and sharp. Starts the bench `render_table`, whose dependencies the worker must not have.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    #[expect(clippy::disallowed_methods, reason = "cargo says by it which cargo it is; no setting")]
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // `--workspace`: with the features of all crates together nothing is compiled twice (docs/adr/0006).
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command.args(["bench", "--locked", "--workspace", "--bench", "render_table", "--"]);
    // Cargo starts a bench in the folder of its package, and files are named from here.
    if let Ok(here) = std::env::current_dir() {
        command.arg("--from").arg(here);
    }
    match command.args(std::env::args_os().skip(1)).status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("cargo cannot be started ({error}): run this from a clone, with `cargo run`");
            ExitCode::FAILURE
        }
    }
}
