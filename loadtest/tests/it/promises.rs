//! What the scaling promises in each scenario, and that a seed says everything.

use loadtest::simulate::assumptions::SPOT_INTERRUPTIONS_PER_HOUR;
use loadtest::simulate::baseline::Contender;
use loadtest::simulate::scenario::{ALL, BURST, DAY_CURVE, PlanKind, Scenario, THROTTLED};

use crate::support::{Changed, broken, run};

#[test]
fn a_burst_from_zero_is_drained_and_the_fleet_goes_back_to_zero() {
    assert_eq!(broken(&Changed::committed(PlanKind::Production), &BURST, 40), "");
}

#[test]
fn a_throttled_model_is_waited_for() {
    assert_eq!(broken(&Changed::committed(PlanKind::Production), &THROTTLED, 5), "");
}

#[test]
fn a_million_images_a_day_follow_the_curve() {
    assert_eq!(broken(&Changed::committed(PlanKind::MillionADay), &DAY_CURVE, 1), "");
}

#[test]
fn the_committed_plans_keep_every_promise() {
    for scenario in ALL {
        assert_eq!(broken(&Changed::committed(scenario.plan), scenario, 1), "", "{}", scenario.name);
    }
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_seed_another() {
    let plan = Changed::committed(PlanKind::Production).read().unwrap();
    let short = Scenario { seconds: 1800.0, ..THROTTLED };
    let outcomes = |seed: u64| {
        let contender = Contender::Plan;
        contender.runs(&plan, &short, seed..seed + 1, SPOT_INTERRUPTIONS_PER_HOUR, || {}).outcomes
    };
    assert_eq!(outcomes(7), outcomes(7));
    assert_ne!(outcomes(7), outcomes(8));
}

#[test]
fn every_policy_gets_the_same_jobs() {
    let plan = Changed::committed(PlanKind::Production).read().unwrap();
    let short = Scenario { seconds: 1800.0, ..THROTTLED };
    let submitted = Contender::ALL.map(|contender| run(&plan, contender, &short, 1).outcomes[0].submitted);
    assert!(submitted[0] > 1500 && submitted.iter().all(|number| *number == submitted[0]), "{submitted:?}");
}

#[test]
fn a_lost_spot_worker_costs_time_and_no_job() {
    let plan = Changed::committed(PlanKind::Production).read().unwrap();
    let short = Scenario { seconds: 3600.0, throttle: None, mean_rate: 1.3, ..THROTTLED };
    // Every Spot worker about every ten minutes.
    let runs = Contender::Plan.runs(&plan, &short, 1..6, 6.0, || {});
    assert!(runs.total(|outcome| outcome.spot_notices) > 5);
    assert_eq!(runs.total(|outcome| outcome.lost), 0);
    assert_eq!(runs.total(|outcome| outcome.cut_off), 0, "calls of some seconds fit into the two minutes of a notice");
}
