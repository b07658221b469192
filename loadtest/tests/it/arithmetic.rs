//! The numbers of a report against the same numbers computed in another way: sorted lists, loops, and the CDN's own counters.

use std::time::Duration;

use loadtest::measure::{Latency, Recorder, Timing};
use loadtest::threshold::{availability_percent, cache_hit_percent, error_percent};
use loadtest::watch::Look;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::live::{Live, said};
use crate::runs::SPEEDLESS;

/// A histogram of three digits.
const TOLERANCE: f64 = 0.001;

/// The smallest value that at least `percent` of all are not above: nearest rank.
fn nearest_rank(sorted: &[u64], percent: u64) -> u64 {
    let rank = (sorted.len() as u64 * percent).div_ceil(100).max(1);
    sorted[usize::try_from(rank).unwrap() - 1]
}

fn assert_close(what: &str, measured_seconds: f64, expected_micros: u64) {
    let expected = expected_micros as f64 / 1e6;
    let off = (measured_seconds - expected).abs();
    assert!(off <= expected * TOLERANCE + 1e-6, "{what}: {measured_seconds} instead of {expected}");
}

/// Latencies from a tenth of a millisecond to minutes, evenly over the orders of magnitude.
fn latencies(rng: &mut StdRng, count: usize) -> Vec<u64> {
    (0..count).map(|_| rng.random_range(100..1000) * 10_u64.pow(rng.random_range(0..6))).collect()
}

fn of(micros: u64) -> Duration {
    Duration::from_micros(micros)
}

#[test]
fn quantiles_are_those_of_the_sorted_list() {
    let mut rng = StdRng::seed_from_u64(11);
    for count in [1, 2, 3, 19, 20, 21, 99, 100, 101, 1000, 4321] {
        let mut all = latencies(&mut rng, count);
        let mut latency = Latency::default();
        all.iter().for_each(|micros| latency.add(Timing::of(of(*micros))));
        all.sort_unstable();
        let quantiles = latency.quantiles().unwrap();
        for (percent, measured) in [
            (50, quantiles.p50),
            (90, quantiles.p90),
            (95, quantiles.p95),
            (99, quantiles.p99),
            (95, quantiles.measured_p95),
        ] {
            assert_close(&format!("p{percent} of {count}"), measured, nearest_rank(&all, percent));
        }
        assert_close(&format!("max of {count}"), quantiles.max, *all.last().unwrap());
        assert_close(&format!("mean of {count}"), quantiles.mean, all.iter().sum::<u64>() / count as u64);
        assert_eq!((quantiles.samples, quantiles.added), (count as u64, 0));
    }
}

/// What a stalled user would have seen at each of the times it usually begins: each waits one pace less than the one before.
fn with_what_was_kept_back(latency: u64, pace: u64) -> Vec<u64> {
    let mut seen = vec![latency];
    while pace > 0 && seen[seen.len() - 1] >= 2 * pace {
        seen.push(seen[seen.len() - 1] - pace);
    }
    seen
}

#[test]
fn the_correction_adds_what_a_stall_kept_back() {
    assert_eq!(with_what_was_kept_back(10, 3), [10, 7, 4]);
    let mut rng = StdRng::seed_from_u64(12);
    for round in 0..20 {
        let mut expected = Vec::new();
        let mut latency = Latency::default();
        let measured = latencies(&mut rng, 200);
        for micros in &measured {
            let pace = rng.random_range(200_000..5_000_000);
            latency.add(Timing { measured: of(*micros), judged: of(*micros), cadence: Some(of(pace)) });
            expected.extend(with_what_was_kept_back(*micros, pace));
        }
        expected.sort_unstable();
        let quantiles = latency.quantiles().unwrap();
        assert_eq!(quantiles.samples, 200);
        // The histogram knows a latency to a thousandth, so one that is a multiple of the pace may bring one more or less.
        let added = (expected.len() - measured.len()) as f64;
        assert!(
            (quantiles.added as f64 - added).abs() <= 2.0 + added * 0.01,
            "{round}: {} of {added}",
            quantiles.added
        );
        for (percent, value) in [(50, quantiles.p50), (95, quantiles.p95), (99, quantiles.p99)] {
            let (low, high) = (nearest_rank(&expected, percent - 1), nearest_rank(&expected, (percent + 1).min(100)));
            let micros = value * 1e6;
            let within = micros >= low as f64 * (1.0 - TOLERANCE) && micros <= high as f64 * (1.0 + TOLERANCE);
            assert!(within, "{round}: p{percent} is {micros}, not between {low} and {high}");
        }
        // Without the correction it is the list as it is.
        let mut sorted = measured;
        sorted.sort_unstable();
        assert_close("measured p95", quantiles.measured_p95, nearest_rank(&sorted, 95));
    }
}

#[test]
fn a_queue_behind_one_slow_answer_is_seen_in_the_open_model() {
    // Due every 100 ms, answered in 1 ms each, but the tenth takes 2 s and all wait for it: what a schedule would have seen.
    let recorder = Recorder::new(Duration::from_secs(3600));
    let (mut free_at, mut judged) = (0_u64, Vec::new());
    for arrival in 0..100_u64 {
        let due = arrival * 100_000;
        let begins = due.max(free_at);
        let service = if arrival == 10 { 2_000_000 } else { 1_000 };
        free_at = begins + service;
        judged.push(free_at - due);
        let timing = Timing { measured: of(service), judged: of(free_at - due), cadence: None };
        recorder.time(loadtest::measure::Metric::TimeToPictureSeconds, timing);
    }
    judged.sort_unstable();
    let quantiles = recorder.measured().latencies[&loadtest::measure::Metric::TimeToPictureSeconds].clone();
    assert_close("p90", quantiles.p90, nearest_rank(&judged, 90));
    assert_close("p95", quantiles.p95, nearest_rank(&judged, 95));
    // Who only looks at the answers sees nothing of it.
    assert_close("measured p95", quantiles.measured_p95, 1_000);
    assert!(quantiles.p95 > 1.0, "{quantiles:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hit_ratio_is_what_the_cdn_counted_itself() {
    let live = Live::start().await;
    let thresholds = live.file("thresholds.toml", SPEEDLESS);
    let stats = async || -> serde_json::Value {
        let url = format!("{}/_standin/stats", live.stack.cdn_url());
        reqwest::Client::builder().no_proxy().build().unwrap().get(url).send().await.unwrap().json().await.unwrap()
    };
    let output = live.run(&format!("run baseline --quick --thresholds {thresholds}")).await;
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let (_, report) = live.reports("baseline").remove(0);
    let counted = stats().await;
    let of = |name: &str| counted[name].as_u64().unwrap();
    let (counts, prepared) = (&report.counts, 3);
    // Each picture that was made beforehand was downloaded once, before the clock started.
    assert_eq!(of("hits") + of("refresh_hits"), counts.cache_hits, "{counted} {counts:?}");
    assert_eq!(of("misses"), counts.cache_misses + prepared, "{counted} {counts:?}");
    assert!(counts.cache_hits > 0 && counts.cache_misses > 0, "{counts:?}");
    let ratio = 100.0 * counts.cache_hits as f64 / (counts.cache_hits + counts.cache_misses) as f64;
    assert_eq!(cache_hit_percent(counts), Some(ratio));
    assert_eq!((error_percent(counts), availability_percent(counts)), (Some(0.0), Some(100.0)));
    // Every download is one request of the CDN; every job one call of the model.
    assert_eq!(
        report.latencies[&loadtest::measure::Metric::CdnDownloadSeconds].samples,
        counts.cache_hits + counts.cache_misses
    );
    assert_eq!(live.stack.bedrock().ledger().totals.paid, counts.jobs_accepted + prepared);

    let output = live.command("monitor --once --json").output().await.unwrap();
    let look: Look = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(look.cdn.requests, Some(0.0), "{look:?}");
    live.stop().await;
}
