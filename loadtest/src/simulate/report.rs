//! The table of a scenario: one column a policy.

use super::baseline::Contender;
use super::outcome::{Outcome, Runs, Spread};
use super::scenario::Scenario;

type Cell = Box<dyn Fn(&Runs) -> String>;

/// Returns the scenario's table, in Markdown that a terminal shows as well.
#[must_use]
pub fn table(scenario: &Scenario, results: &[(Contender, Runs)]) -> String {
    let replications = results.first().map_or(0, |(_, runs)| runs.outcomes.len());
    let count = |of: fn(&Outcome) -> u64| move |runs: &Runs| runs.total(of).to_string();
    let spread = |of: fn(&Outcome) -> Option<f64>| move |runs: &Runs| of_spread(runs.spread(of));
    let rows: Vec<(&str, Cell)> = vec![
        ("first scaled instance in service, s", Box::new(spread(|outcome| outcome.first_in_service_seconds))),
        ("it receives its first job, s", Box::new(spread(|outcome| outcome.first_receive_seconds))),
        ("backlog drained, s", Box::new(spread(|outcome| outcome.drained_seconds))),
        ("age of the oldest job, p95, s", Box::new(spread(|outcome| Some(outcome.age_seconds(0.95))))),
        ("age of the oldest job, max, s", Box::new(spread(|outcome| Some(outcome.age_seconds(1.0))))),
        (
            "jobs waiting at the end",
            Box::new(spread(|outcome| outcome.samples.last().map(|sample| count_of(sample.visible)))),
        ),
        ("workers in service, most", Box::new(spread(|outcome| Some(count_of(outcome.max_fleet()))))),
        ("changes of size", Box::new(spread(|outcome| Some(f64::from(outcome.changes))))),
        ("changes back within 15 min", Box::new(spread(|outcome| Some(f64::from(outcome.flaps))))),
        ("instance hours", Box::new(|runs: &Runs| of_hours(runs.spread(|outcome| Some(outcome.instance_hours))))),
        ("busy workers drained by scale-in, sum", Box::new(count(|outcome| outcome.busy_chosen))),
        ("busy workers ended before their jobs, sum", Box::new(count(|outcome| outcome.busy_ended))),
        ("Spot notices, sum", Box::new(count(|outcome| outcome.spot_notices))),
        ("jobs given back at a stop, sum", Box::new(count(|outcome| outcome.given_back))),
        ("jobs cut off, sum", Box::new(count(|outcome| outcome.cut_off))),
        ("jobs lost, sum", Box::new(count(|outcome| outcome.lost))),
    ];
    let is_told = |name: &str| match name {
        "first scaled instance in service, s" | "it receives its first job, s" => scenario.burst > 0,
        "backlog drained, s" => scenario.drains_after(0.0).is_some(),
        _ => true,
    };
    let mut lines = vec![
        std::iter::once(format!("median, worst of {replications} runs"))
            .chain(results.iter().map(|(contender, _)| contender.label().to_owned()))
            .collect::<Vec<_>>(),
    ];
    for (name, cell) in rows.iter().filter(|(name, _)| is_told(name)) {
        lines.push(std::iter::once((*name).to_owned()).chain(results.iter().map(|(_, runs)| cell(runs))).collect());
    }
    aligned(&lines)
}

#[expect(clippy::cast_precision_loss, reason = "jobs and workers")]
fn count_of(value: usize) -> f64 {
    value as f64
}

fn of_spread(spread: Spread) -> String {
    let text = |value: Option<f64>| value.map_or("never".to_owned(), |value| format!("{value:.0}"));
    format!("{}, {}", text(spread.median), text(spread.worst))
}

fn of_hours(spread: Spread) -> String {
    format!("{:.1}, {:.1}", spread.median.unwrap_or(0.0), spread.worst.unwrap_or(0.0))
}

/// Pads the cells of a table: the first column to the left, the others to the right. The first line is the head.
#[must_use]
pub fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            let cell = if column == 0 { format!("{cell:<width$}") } else { format!("{cell:>width$}") };
            text.extend(["| ", &cell, " "]);
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.iter().enumerate() {
                let colon = if column == 0 { "-" } else { ":" };
                text.extend(["|", &"-".repeat(width + 1), colon]);
            }
            text.push_str("|\n");
        }
    }
    text
}
