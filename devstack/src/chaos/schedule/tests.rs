//! Tests of the schedule: the same seed is the same, nothing overlaps that must not, every kind is dealt.

use std::collections::BTreeSet;

use super::*;

const LEASE: Duration = Duration::from_secs(20);

fn schedule(seed: u64, minutes: u64) -> Schedule {
    Schedule::new(seed, Duration::from_secs(60 * minutes), 3, LEASE)
}

#[test]
fn the_same_seed_is_the_same_schedule_and_another_is_another() {
    assert_eq!(schedule(7, 5), schedule(7, 5));
    assert_ne!(schedule(7, 5).events, schedule(8, 5).events);
}

#[test]
fn five_minutes_deal_every_kind() {
    let kinds = |schedule: &Schedule| -> BTreeSet<String> {
        let kind = |event: &Event| format!("{:?}", event.fault).split([' ', '(']).next().unwrap().to_owned();
        schedule.events.iter().map(kind).collect()
    };
    for seed in 0..50 {
        let schedule = schedule(seed, 5);
        assert_eq!(schedule.left_out, 0, "{seed}");
        // What had to wait for its place may fall out at the end, so not always all fourteen.
        assert!(kinds(&schedule).len() >= 12, "{seed}: {:?}", kinds(&schedule));
    }
    assert_eq!(kinds(&schedule(1, 60)).len(), 14);
}

#[test]
fn faults_lie_within_the_run_in_order_and_do_not_share_a_place() {
    for (seed, minutes) in (0..50).zip([2, 5, 17, 60].into_iter().cycle()) {
        let Schedule { events, .. } = schedule(seed, minutes);
        let length = Duration::from_secs(60 * minutes);
        assert!(events.is_sorted_by_key(|event| event.at), "{seed}");
        for event in &events {
            assert!(event.at >= QUIET && event.at + event.lasts <= length, "{seed}: {event}");
            assert!(event.lasts <= LONGEST_OUTAGE, "{seed}: {event}");
        }
        for service in Service::ALL {
            let of_service = |event: &&Event| matches!(event.fault, Fault::Network { service: s, .. } if s == service);
            let found: Vec<&Event> = events.iter().filter(of_service).collect();
            let apart = found.windows(2).all(|pair| pair[0].at + pair[0].lasts < pair[1].at);
            assert!(apart, "{seed}: {found:?}");
        }
    }
}

#[test]
fn a_frozen_worker_sleeps_past_its_lease() {
    let frozen = |event: &&Event| matches!(event.fault, Fault::Freeze(_));
    let Schedule { events, .. } = schedule(3, 60);
    assert!(events.iter().filter(frozen).count() > 3);
    // The last may be cut off by the end of the run.
    let all = events.iter().filter(frozen).filter(|event| event.at + LEASE * 2 < Duration::from_secs(3600));
    assert!(all.into_iter().all(|event| event.lasts > LEASE));
}

#[test]
fn a_long_run_leaves_nearly_as_much_time_to_work_as_a_short_one() {
    // The share of the time in which no service is away for everybody.
    let well = |seed, minutes| {
        let Schedule { events, .. } = schedule(seed, minutes);
        let is_out = |event: &&Event| {
            let away = Condition::Refused;
            matches!(event.fault, Fault::Network { whom: Whom::Everybody, condition, .. }
                if condition == away || condition == Condition::Silent)
        };
        let out: Vec<&Event> = events.iter().filter(is_out).collect();
        let seconds = 60 * minutes;
        let is_well = |second: &u64| {
            let now = Duration::from_secs(*second);
            out.iter().all(|event| now < event.at || now > event.at + event.lasts)
        };
        let count = (0..seconds).filter(is_well).count();
        f64::from(u32::try_from(count).unwrap()) / f64::from(u32::try_from(seconds).unwrap())
    };
    let mean = |minutes| (0..20).map(|seed| well(seed, minutes)).sum::<f64>() / 20.0;
    let (short, long) = (mean(5), mean(60));
    assert!(long > short * 0.75, "{short:.2} of five minutes, {long:.2} of an hour");
}
