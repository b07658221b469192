//! The observer: looks at the system while it is under load, and shows how the run goes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};
use tokio_util::sync::CancellationToken;

use super::Plan;
use crate::measure::{Metric, Recorder};
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
        let look = watch.look_at_load().await;
        looks.push((began.elapsed().as_secs_f64(), look));
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
            eprintln!("{} {:>5.0} s: {message}", plan.scenario, began.elapsed().as_secs_f64());
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::watch::{GroupLook, QueueLook};

    fn look(at: f64, visible: u64, in_service: u64) -> TimedLook {
        let queue = QueueLook { visible: Some(visible), ..QueueLook::default() };
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
}
