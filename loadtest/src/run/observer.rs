//! The observer: looks at the system while it is under load, and shows how the run goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::Plan;
use crate::measure::{Metric, Recorder};
use crate::output;
use crate::watch::{Look, Watch};

/// Looks in a report: more than its charts have room for say no more.
const LOOKS: u32 = 75;
const MIN_EVERY: Duration = Duration::from_secs(1);
/// A worker's boot takes minutes, and each look is three requests to AWS.
const DEPLOYED_EVERY: Duration = Duration::from_secs(5);
const MAX_EVERY: Duration = Duration::from_secs(60);
/// Without a terminal a line is printed this often.
const LINE_EVERY: Duration = Duration::from_secs(15);
const SHOW_EVERY: Duration = Duration::from_millis(500);
/// Throughput is shown over this many looks: ten seconds.
const WINDOW: usize = 20;

/// A look, and when it was made, in seconds after the begin of the run.
pub(crate) type TimedLook = (f64, Look);

/// Looks until `done`, and returns all looks, the one before the load first.
pub(super) async fn observe(
    watch: &mut Watch,
    at_begin: Look,
    plan: &Plan,
    began: Instant,
    done: &CancellationToken,
) -> Vec<TimedLook> {
    let floor = if matches!(watch, Watch::Local(_)) { MIN_EVERY } else { DEPLOYED_EVERY };
    let every = (plan.duration / LOOKS).clamp(floor, MAX_EVERY.max(floor));
    let mut looks = vec![(0.0, at_begin)];
    let mut due = tokio::time::Instant::from_std(began) + every;
    loop {
        let at_end = tokio::select! {
            () = done.cancelled() => true,
            () = tokio::time::sleep_until(due) => false,
        };
        // Before the look, which may have to wait for somebody who does not answer.
        let at = began.elapsed().as_secs_f64();
        looks.push((at, watch.look_at_load().await));
        if at_end {
            return looks;
        }
        due = (due + every).max(tokio::time::Instant::now());
    }
}

/// Shows progress until `done`: a bar on a terminal, lines elsewhere.
pub(super) async fn show(plan: &Plan, recorder: &Recorder, began: Instant, done: &CancellationToken) {
    let bar = ProgressBar::new(plan.duration.as_secs()).with_message("starting");
    if let Ok(style) = ProgressStyle::with_template("{prefix} {wide_bar} {elapsed} of {len} s\n  {msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(plan.scenario.clone());
    let mut window = VecDeque::from([(began, 0)]);
    let mut last_line = Instant::now();
    while !done.is_cancelled() {
        tokio::select! {
            () = done.cancelled() => break,
            () = tokio::time::sleep(SHOW_EVERY) => {}
        }
        let (counts, picture) = recorder.so_far(Metric::TimeToPictureSeconds);
        let (since, operations) = window[0];
        #[expect(clippy::cast_precision_loss, reason = "for people to read")]
        let per_second = (counts.operations - operations) as f64 / since.elapsed().as_secs_f64();
        window.push_back((Instant::now(), counts.operations));
        if window.len() > WINDOW {
            window.pop_front();
        }
        let p95 = picture.map_or_else(|| "-".to_owned(), |quantiles| format!("{:.1} s", quantiles.p95));
        let draining = if began.elapsed() > plan.duration { "jobs under way may end; " } else { "" };
        let message = format!(
            "{draining}{per_second:.0} operations a second, {} failed; {} jobs, {} pictures, p95 to picture {p95}",
            counts.failed, counts.jobs_accepted, counts.pictures
        );
        if bar.is_hidden() && last_line.elapsed() >= LINE_EVERY {
            last_line = Instant::now();
            output::aside(format_args!("{} {:>5.0} s: {message}", plan.scenario, began.elapsed().as_secs_f64()));
        }
        bar.set_position(began.elapsed().as_secs().min(plan.duration.as_secs()));
        bar.set_message(message);
    }
    bar.finish_and_clear();
}

/// Returns the seconds from the first job that waited to the first worker in service that was not there at the begin.
#[must_use]
pub(crate) fn scale_out_seconds(looks: &[TimedLook]) -> Option<f64> {
    let at_begin = looks.iter().find_map(|(_, look)| look.group.in_service)?;
    let (waited, _) = looks.iter().find(|(_, look)| look.queue.visible.is_some_and(|visible| visible > 0))?;
    let more = |look: &Look| look.group.in_service.is_some_and(|workers| workers > at_begin);
    let (scaled, _) = looks.iter().find(|(at, look)| at >= waited && more(look))?;
    Some(scaled - waited)
}

/// Returns how many more jobs waited or were in flight in the last third of the load than in its middle third, on
/// average, in % of the jobs accepted in between. A rate that can be kept up has about 0; above capacity what is beyond it
/// piles up, first in the workers' slots, where the wait in the queue does not show it. None without looks in both thirds,
/// or without jobs.
#[must_use]
pub(crate) fn backlog_growth_percent(looks: &[TimedLook], load: Duration, accepted: u64) -> Option<f64> {
    let third = load.as_secs_f64() / 3.0;
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    let mean = |from: f64| {
        let inside = looks.iter().filter(|(at, _)| *at >= from && *at < from + third);
        let backlogs: Vec<f64> = inside.filter_map(|(_, look)| Some(look.backlog()? as f64)).collect();
        (!backlogs.is_empty()).then(|| backlogs.iter().sum::<f64>() / backlogs.len() as f64)
    };
    let growth = mean(2.0 * third)? - mean(third)?;
    #[expect(clippy::cast_precision_loss, reason = "counts of a run are far below 2^52")]
    let accepted_in_between = accepted as f64 / 3.0;
    (accepted > 0).then(|| 100.0 * growth / accepted_in_between)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{GroupLook, QueueLook};

    fn look(at: f64, visible: u64, in_service: u64) -> TimedLook {
        let queue = QueueLook { visible: Some(visible), in_flight: Some(0), ..QueueLook::default() };
        let group = GroupLook { in_service: Some(in_service), ..GroupLook::default() };
        (at, Look { queue, group, ..Look::default() })
    }

    #[test]
    fn scaling_out_counts_from_the_first_waiting_job() {
        let looks = [look(0.0, 0, 1), look(15.0, 4, 1), look(90.0, 60, 1), look(210.0, 80, 2), look(300.0, 0, 3)];
        assert_eq!(scale_out_seconds(&looks), Some(195.0));
        assert_eq!(scale_out_seconds(&looks[..3]), None, "no worker was added");
        assert_eq!(scale_out_seconds(&[look(0.0, 0, 1), look(60.0, 0, 2)]), None, "nothing waited");
        assert_eq!(scale_out_seconds(&[]), None);
    }

    #[test]
    fn jobs_that_pile_up_are_told_in_percent_of_those_that_came() {
        let load = Duration::from_secs(60);
        // Three jobs a second come, and two are done: one of three stays.
        let looks: Vec<TimedLook> = (0_u32..75).map(|at| look(f64::from(at), at.min(60).into(), 1)).collect();
        let growth = backlog_growth_percent(&looks, load, 180).unwrap();
        assert!((growth - 100.0 / 3.0).abs() < 0.1, "{growth}");
        let steady: Vec<TimedLook> = (0..60).map(|at| look(f64::from(at), 8, 1)).collect();
        assert_eq!(backlog_growth_percent(&steady, load, 180), Some(0.0));
        assert_eq!(backlog_growth_percent(&steady, load, 0), None, "nothing came");
        assert_eq!(backlog_growth_percent(&steady[..40], load, 180), None, "nobody looked at the last third");
    }
}
