//! The documents against the code: every metric of docs/metrics.md, every setting of docs/operations.md.

use api::metrics::{Metric, catalogue};
use api::settings::ApiSettings;
use api::webhooks;
use api::webhooks::settings::WebhookSettings;
use clap::{Arg, Command, CommandFactory};

const METRICS: &str = include_str!("../../../docs/metrics.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Returns the rows of the table between `<!-- api NAME -->` and `<!-- /api NAME -->`, cell by cell.
fn rows(document: &str, name: &str) -> Vec<Vec<String>> {
    let begin = format!("<!-- api {name} -->");
    let end = format!("<!-- /api {name} -->");
    let (_, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("{begin} is missing"));
    let (table, _) = rest.split_once(&end).unwrap_or_else(|| panic!("{end} is missing"));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.lines().map(str::trim).filter(|line| line.starts_with("| `")).map(cells).collect()
}

fn row_of(metric: &Metric) -> Vec<String> {
    let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
    vec![
        format!("`{}`", metric.name),
        format!("{:?}", metric.kind).to_lowercase(),
        metric.unit.as_str().to_owned(),
        labels.join(", "),
        metric.help.to_owned(),
    ]
}

#[test]
fn every_metric_is_in_the_catalogue_as_it_is() {
    the_table_has("metrics", &catalogue());
    the_table_has("webhooks metrics", &webhooks::metrics::catalogue());
}

#[track_caller]
fn the_table_has(table: &str, catalogue: &[Metric]) {
    let written = rows(METRICS, table);
    let expected: Vec<_> = catalogue.iter().map(row_of).collect();
    for row in &expected {
        assert!(written.contains(row), "docs/metrics.md lacks this row:\n| {} |", row.join(" | "));
    }
    for row in &written {
        assert!(expected.contains(row), "docs/metrics.md has a row that no metric has:\n| {} |", row.join(" | "));
    }
}

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
fn every_setting_is_in_the_operations_guide_with_its_default() {
    the_table_is_that_of("settings", &ApiSettings::command());
    the_table_is_that_of("webhooks settings", &WebhookSettings::command());
}

#[track_caller]
fn the_table_is_that_of(table: &str, command: &Command) {
    let written: Vec<_> = rows(OPERATIONS, table).into_iter().map(|row| [row[0].clone(), row[1].clone()]).collect();
    let expected: Vec<_> = command.get_arguments().filter_map(name_and_default).collect();
    assert!(expected.len() > 10, "only {} settings found", expected.len());
    for row in &expected {
        assert!(written.contains(row), "docs/operations.md lacks this row: | {} | ...", row.join(" | "));
    }
    for row in &written {
        assert!(expected.contains(row), "docs/operations.md has a row that no setting has: | {} |", row.join(" | "));
    }
}

#[test]
fn no_blank_line_cuts_a_table_of_the_operations_guide() {
    let lines: Vec<&str> = OPERATIONS.lines().collect();
    let cut = lines
        .windows(3)
        .enumerate()
        .filter(|(_, window)| window[0].starts_with('|') && window[1].is_empty() && window[2].starts_with('|'));
    // A table of its own begins with its head, and a line of dashes.
    let is_table = |row: usize| lines.get(row + 1).is_some_and(|line| line.starts_with("|-"));
    let cut: Vec<_> = cut.filter(|(row, _)| !is_table(row + 2)).map(|(row, window)| (row + 3, window[2])).collect();
    assert!(cut.is_empty(), "docs/operations.md has rows that no table has: {cut:?}");
}
