//! The screen of the monitor: one line a number, coloured by its level.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Wrap};

use super::level::{self, Level};
use crate::watch::Look;

/// Lines of the two upper panels: five numbers and a border.
const PANEL: u16 = 7;
const NAME_WIDTH: usize = 20;

/// A name, a value and how good it is.
type Row = (&'static str, String, Level);

/// Draws a look.
pub fn draw(frame: &mut Frame<'_>, look: &Look, every: Duration) {
    let [head, upper, lower, alarms, foot] = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(PANEL),
        Constraint::Length(PANEL),
        Constraint::Min(4),
        Constraint::Length(1),
    ])
    .areas(frame.area());
    let halves = Layout::horizontal([Constraint::Percentage(50), Constraint::Percentage(50)]);
    let ([upper_left, upper_right], [lower_left, lower_right]) = (halves.areas(upper), halves.areas(lower));

    frame.render_widget(Paragraph::new(title(look)), head);
    frame.render_widget(panel("Queue", &queue(look)), upper_left);
    frame.render_widget(panel("Workers", &workers(look)), upper_right);
    frame.render_widget(panel("Storage and CDN", &delivery(look)), lower_left);
    frame.render_widget(panel("Processes", &processes(look)), lower_right);
    let alarm_lines = Paragraph::new(alarm_lines(look)).wrap(Wrap { trim: false });
    frame.render_widget(alarm_lines.block(Block::bordered().title(" Alarms ")), alarms);
    let keys = format!("every {} s   q quits", every.as_secs());
    frame.render_widget(Paragraph::new(keys).style(Style::new().add_modifier(Modifier::DIM)), foot);
}

/// Returns a look as plain lines, for `--once`.
pub(super) fn text(look: &Look) -> String {
    let mut lines = vec![title(look)];
    for (name, rows) in [
        ("Queue", queue(look)),
        ("Workers", workers(look)),
        ("Storage and CDN", delivery(look)),
        ("Processes", processes(look)),
    ] {
        lines.push(format!("\n{name}"));
        lines.extend(
            rows.into_iter().map(|(name, value, level)| format!("  {name:<NAME_WIDTH$}{value:<22}{}", word(level))),
        );
    }
    lines.push("\nAlarms".to_owned());
    lines.extend(look.alarms.iter().map(|alarm| format!("  {:<18}{}", alarm.state, alarm.name)));
    lines.extend(look.gaps.iter().map(|gap| format!("  not seen: {gap}")));
    lines.join("\n")
}

fn title(look: &Look) -> String {
    if look.target.is_empty() {
        return "looking ...".to_owned();
    }
    format!("Image pipeline, {}   {}", look.target, look.at.strftime("%Y-%m-%d %H:%M:%S UTC"))
}

fn queue(look: &Look) -> Vec<Row> {
    let queue = &look.queue;
    let age_name = if look.target == "local" { "waited, mean" } else { "oldest message" };
    // Depth alone is neither good nor bad: workers are started by it.
    let depth = if queue.visible.is_some() { Level::Good } else { Level::Unknown };
    vec![
        ("waiting", count(queue.visible), depth),
        ("in flight", count(queue.in_flight), depth),
        (age_name, number(queue.age_seconds, " s"), level::age(look)),
        ("dead letters", count(queue.dead_letters), level::dead_letters(look)),
    ]
}

fn workers(look: &Look) -> Vec<Row> {
    let group = &look.group;
    let level = level::group(look);
    let slots = format!("{} of {}", count(look.slots.busy), count(look.slots.all));
    let mut rows = vec![
        ("desired", count(group.desired), level),
        ("in service", count(group.in_service), level),
        ("healthy", count(group.healthy), level),
        ("CPU", number(look.worker_cpu_percent, " %"), level::cpu(look)),
    ];
    if look.slots.all.is_some() {
        rows.push(("slots busy", slots, level::slots(look)));
    }
    rows
}

fn delivery(look: &Look) -> Vec<Row> {
    let storage = if look.target == "local" { "S3 writes" } else { "S3 requests" };
    let errors = match look.storage.refusals {
        Some(refusals) => format!("{} 5xx, {refusals:.0} 4xx", number(look.storage.errors, "")),
        None => number(look.storage.errors, ""),
    };
    vec![
        (storage, number(look.storage.requests, ""), level::storage(look)),
        ("S3 errors", errors, level::storage(look)),
        ("CDN requests", number(look.cdn.requests, ""), level::cdn(look)),
        ("CDN hit ratio", number(look.cdn.hit_percent, " %"), level::cdn(look)),
        ("throttled calls", number(look.model.throttled, ""), throttled(look)),
    ]
}

fn processes(look: &Look) -> Vec<Row> {
    let of = |name: &str| number(look.cpu_of(name), " %");
    if look.machine.is_none() {
        return vec![("not on this machine", String::new(), Level::Unknown)];
    }
    vec![
        ("machine", number(look.machine.map(|machine| machine.busy_percent), " %"), level::cpu(look)),
        ("api", of("api"), Level::Good),
        ("stand-ins", of("stand-ins"), Level::Good),
        ("loadtest", of("loadtest"), Level::Good),
    ]
}

fn throttled(look: &Look) -> Level {
    match look.model.throttled {
        None => Level::Unknown,
        Some(calls) if calls > 0.0 => Level::Watch,
        Some(_) => Level::Good,
    }
}

fn panel<'a>(title: &'a str, rows: &[Row]) -> Paragraph<'a> {
    let line = |(name, value, level): &Row| {
        Line::from(vec![
            Span::raw(format!(" {name:<NAME_WIDTH$}")),
            Span::styled(value.clone(), Style::new().fg(color(*level)).add_modifier(Modifier::BOLD)),
        ])
    };
    Paragraph::new(rows.iter().map(line).collect::<Vec<_>>()).block(Block::bordered().title(format!(" {title} ")))
}

/// What is on comes first.
fn alarm_lines(look: &Look) -> Vec<Line<'static>> {
    let mut alarms: Vec<_> = look.alarms.iter().collect();
    alarms.sort_by_key(|alarm| (std::cmp::Reverse(level::alarm(&alarm.state)), alarm.name.clone()));
    let mut lines: Vec<Line<'static>> = alarms
        .into_iter()
        .map(|alarm| {
            let style = Style::new().fg(color(level::alarm(&alarm.state)));
            Line::from(vec![Span::styled(format!(" {:<18}", alarm.state), style), Span::raw(alarm.name.clone())])
        })
        .collect();
    let gap = |gap: &String| Line::styled(format!(" not seen: {gap}"), Style::new().fg(Color::Yellow));
    lines.extend(look.gaps.iter().map(gap));
    lines
}

fn color(level: Level) -> Color {
    match level {
        Level::Unknown => Color::DarkGray,
        Level::Good => Color::Green,
        Level::Watch => Color::Yellow,
        Level::Bad => Color::Red,
    }
}

fn word(level: Level) -> &'static str {
    match level {
        Level::Unknown => "not known",
        Level::Good => "good",
        Level::Watch => "watch",
        Level::Bad => "BAD",
    }
}

fn count(value: Option<u64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn number(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}{unit}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{
        AlarmLook, CdnLook, GroupLook, MachineLook, ModelLook, ProcessLook, QueueLook, RequestsLook, SlotsLook,
    };
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn look() -> Look {
        let alarm = |name: &str, state: &str| AlarmLook { name: name.to_owned(), state: state.to_owned() };
        Look {
            at: "2026-11-24T12:00:00Z".parse().unwrap(),
            target: "deployed".to_owned(),
            queue: QueueLook {
                visible: Some(120),
                in_flight: Some(32),
                dead_letters: Some(1),
                age_seconds: Some(312.0),
            },
            group: GroupLook { desired: Some(3), in_service: Some(2), healthy: Some(2) },
            worker_cpu_percent: Some(93.4),
            storage: RequestsLook { requests: Some(1800.0), errors: Some(0.0), refusals: Some(25.0) },
            cdn: CdnLook { requests: Some(5400.0), hit_percent: Some(64.2) },
            alarms: vec![
                alarm("api-down", "OK"),
                alarm("bucket-size", "INSUFFICIENT_DATA"),
                alarm("oldest-message", "ALARM"),
            ],
            gaps: vec!["CloudFront's alarms: AccessDenied".to_owned()],
            ..Look::default()
        }
    }

    fn drawn(look: &Look) -> Terminal<TestBackend> {
        let mut terminal = Terminal::new(TestBackend::new(80, 26)).unwrap();
        terminal.draw(|frame| draw(frame, look, Duration::from_secs(30))).unwrap();
        terminal
    }

    #[test]
    fn the_screen_of_a_deployment() {
        insta::assert_snapshot!(drawn(&look()).backend());
    }

    #[test]
    fn the_screen_of_the_local_stack() {
        let local = Look {
            target: "local".to_owned(),
            slots: SlotsLook { busy: Some(32), all: Some(32) },
            storage: RequestsLook { requests: Some(1800.0), errors: Some(0.0), refusals: None },
            model: ModelLook { calls: Some(40.0), throttled: Some(2.0) },
            machine: Some(MachineLook { cores: 2, busy_percent: 55.0 }),
            processes: vec![ProcessLook { name: "api".to_owned(), cpu_percent: 12.0 }],
            gaps: vec![],
            ..look()
        };
        insta::assert_snapshot!(drawn(&local).backend());
        insta::assert_snapshot!("the_lines_of_the_local_stack", text(&local));
    }

    #[test]
    fn numbers_are_coloured_by_their_level() {
        let terminal = drawn(&look());
        let buffer = terminal.backend().buffer();
        let color_of = |text: &str| {
            let cells: Vec<_> = buffer.content().iter().collect();
            let width = text.chars().count();
            let at = cells
                .windows(width)
                .position(|cells| cells.iter().map(|cell| cell.symbol()).collect::<String>() == text);
            cells[at.unwrap_or_else(|| panic!("{text} is not drawn"))].fg
        };
        assert_eq!(color_of("312.0 s"), Color::Yellow);
        assert_eq!(color_of("93.4 %"), Color::Red);
        assert_eq!(color_of("64.2 %"), Color::Red);
        assert_eq!(color_of("1800.0"), Color::Green);
        assert_eq!(color_of("ALARM"), Color::Red);
        assert_eq!(color_of("OK "), Color::Green);
    }
}
