//! The documents against the code: every metric of docs/metrics.md, every setting of docs/operations.md.

use clap::{Arg, CommandFactory};
use worker::error::Kind;
use worker::metrics::{CATALOGUE, MetricInfo, OUTCOMES};
use worker::reconcile::ReconcileSettings;
use worker::settings::Settings;

const METRICS: &str = include_str!("../../../docs/metrics.md");
const OPERATIONS: &str = include_str!("../../../docs/operations.md");

/// Returns the rows of the table between `<!-- worker NAME -->` and `<!-- /worker NAME -->`, cell by cell.
fn rows(document: &str, name: &str) -> Vec<Vec<String>> {
    let begin = format!("<!-- worker {name} -->");
    let end = format!("<!-- /worker {name} -->");
    let (_, rest) = document.split_once(&begin).unwrap_or_else(|| panic!("{begin} is missing"));
    let (table, _) = rest.split_once(&end).unwrap_or_else(|| panic!("{end} is missing"));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    table.lines().map(str::trim).filter(|line| line.starts_with("| `")).map(cells).collect()
}

fn row_of(metric: &MetricInfo) -> Vec<String> {
    let labels: Vec<String> =
        metric.labels.split(',').map(str::trim).filter(|l| !l.is_empty()).map(|label| format!("`{label}`")).collect();
    vec![format!("`{}`", metric.name), metric.kind.to_owned(), labels.join(", "), metric.help.to_owned()]
}

#[test]
fn every_metric_is_in_the_catalogue_as_it_is() {
    let written = rows(METRICS, "metrics");
    let expected: Vec<_> = CATALOGUE.iter().map(row_of).collect();
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
    the_table_is_that_of("settings", &Settings::command());
    the_table_is_that_of("reconcile", &ReconcileSettings::command());
}

fn the_table_is_that_of(table: &str, command: &clap::Command) {
    let written: Vec<_> = rows(OPERATIONS, table).into_iter().map(|row| [row[0].clone(), row[1].clone()]).collect();
    let expected: Vec<_> = command.get_arguments().filter_map(name_and_default).collect();
    assert!(expected.len() > 5, "only {} settings found", expected.len());
    for row in &expected {
        assert!(written.contains(row), "docs/operations.md lacks this row: | {} | ...", row.join(" | "));
    }
    for row in &written {
        assert!(expected.contains(row), "docs/operations.md has a row that no setting has: | {} |", row.join(" | "));
    }
}

/// Returns the first cells of the rows of a table.
fn names(document: &str, table: &str) -> Vec<String> {
    rows(document, table).into_iter().map(|row| row[0].trim_matches('`').to_owned()).collect()
}

#[test]
fn every_outcome_of_a_delivery_is_explained() {
    let written = names(METRICS, "outcomes");
    assert_eq!(sorted(written), sorted(OUTCOMES.map(str::to_owned).to_vec()));
}

#[test]
fn every_error_kind_is_explained_with_its_class() {
    let written: Vec<_> = rows(OPERATIONS, "kinds").into_iter().map(|row| (row[0].clone(), row[1].clone())).collect();
    let expected = Kind::ALL.map(|kind| {
        let class = format!("{:?}", kind.class()).to_lowercase();
        let outage = if kind.is_outage_when_repeated() { ", outage" } else { "" };
        (format!("`{}`", kind.as_str()), format!("{class}{outage}"))
    });
    assert_eq!(sorted(written), sorted(expected.to_vec()));
}

fn sorted<T: Ord>(mut list: Vec<T>) -> Vec<T> {
    list.sort();
    list
}
