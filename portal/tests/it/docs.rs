//! docs/portal.md against the settings.

use clap::{Arg, CommandFactory};
use portal::settings::Cli;

const GUIDE: &str = include_str!("../../../docs/portal.md");

/// Returns name and default as the first two cells of the row say them.
fn name_and_default(arg: &Arg) -> Option<[String; 2]> {
    let name = arg.get_env()?.to_str()?;
    let default = match arg.get_default_values() {
        [default, ..] => format!("`{}`", default.to_str()?),
        [] if arg.is_required_set() => "required".to_owned(),
        [] => "none".to_owned(),
    };
    Some([format!("`{name}`"), default])
}

#[test]
fn every_setting_is_in_the_guide_with_its_default() {
    let (_, table) = GUIDE.split_once("<!-- portal settings -->").unwrap();
    let (table, _) = table.split_once("<!-- /portal settings -->").unwrap();
    let cells = |line: &str| {
        let mut cells = line.trim_start_matches('|').split(" | ").map(|cell| cell.trim().to_owned());
        [cells.next().unwrap_or_default(), cells.next().unwrap_or_default()]
    };
    let written: Vec<_> = table.lines().filter(|line| line.starts_with("| `")).map(cells).collect();
    let command = Cli::command();
    let serve = command.find_subcommand("serve").unwrap();
    let expected: Vec<_> = serve.get_arguments().filter_map(name_and_default).collect();
    assert!(expected.len() > 10, "only {} settings found", expected.len());
    assert_eq!(written, expected, "docs/portal.md differs from `portal serve --help`");
}
