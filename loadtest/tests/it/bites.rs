//! One mistake each, and the promise that it breaks: what the simulator is there to notice.

use loadtest::simulate::baseline::Contender;
use loadtest::simulate::scenario::{BURST, PlanKind, Scenario, THROTTLED};

use crate::support::{Changed, IDLE, NEEDED, SURPLUS, broken, run};

fn assert_broken(plan: &Changed, scenario: &Scenario, runs: u64, expected: &str) {
    let broken = broken(plan, scenario, runs);
    assert!(broken.contains(expected), "{expected:?} is not among:\n{broken}");
}

#[test]
fn three_datapoints_of_three_are_later_than_five_minutes() {
    let mut plan = Changed::committed(PlanKind::Production);
    plan.periods(NEEDED, 3);
    assert_broken(&plan, &BURST, 20, "in service after 300 s or never");
}

#[test]
fn a_division_by_the_fleet_never_leaves_zero() {
    let mut plan = Changed::committed(PlanKind::Production);
    plan.expression(
        NEEDED,
        "IF((visible + inflight) / FILL(desired, REPEAT) > 20, CEIL((visible + inflight) / 20), 0)",
    );
    assert_broken(&plan, &BURST, 2, "in service after 300 s or never in 2 of 2 runs");
    assert_broken(&plan, &BURST, 2, "the backlog is not drained in 2 of 2 runs");
}

#[test]
fn alarms_that_do_not_count_what_is_in_flight_stop_busy_workers_and_start_them_again() {
    let mut plan = Changed::committed(PlanKind::Production);
    plan.expression(NEEDED, "IF(CEIL(visible / 20) > FILL(desired, REPEAT), CEIL(visible / 20), 0)");
    plan.expression(SURPLUS, "IF(CEIL(visible / 20) < FILL(desired, REPEAT), CEIL(visible / 20), 1000)");
    plan.expression(IDLE, "visible");
    assert_broken(&plan, &THROTTLED, 2, "the size changes back within 15 minutes");
    let runs = run(&plan.read().unwrap(), Contender::Plan, &THROTTLED, 2);
    assert!(runs.total(|outcome| outcome.busy_chosen) > 0);
}

#[test]
fn without_the_hook_scale_in_kills_busy_workers() {
    let mut plan = Changed::committed(PlanKind::Production);
    by_the_divisor_of_the_way_out(&mut plan);
    plan.remove("aws_autoscaling_lifecycle_hook.worker_drain");
    assert_broken(&plan, &THROTTLED, 2, "workers before their jobs were done");
}

/// How terraform/scaling.tf scaled in at first.
fn by_the_divisor_of_the_way_out(plan: &mut Changed) {
    let needed = format!("CEIL((visible + inflight) / {})", plan.read().unwrap().limits.worker_backlog_per_instance);
    plan.expression(SURPLUS, &format!("IF({needed} < FILL(desired, REPEAT), {needed}, 1000)"));
}

#[test]
fn scaling_in_by_the_divisor_of_the_way_out_flaps() {
    let mut plan = Changed::committed(PlanKind::Production);
    by_the_divisor_of_the_way_out(&mut plan);
    assert_broken(&plan, &THROTTLED, 1, "the size changes back within 15 minutes");
}

#[test]
fn surplus_that_leaves_one_and_idle_that_leaves_none_must_not_act_in_the_same_minute() {
    let mut plan = Changed::committed(PlanKind::Production);
    by_the_divisor_of_the_way_out(&mut plan);
    plan.periods(IDLE, 10);
    assert_broken(&plan, &BURST, 10, "the size changes back within 15 minutes");
}

#[test]
fn the_plain_policies_never_leave_zero() {
    let plan = Changed::committed(PlanKind::Production).read().unwrap();
    for contender in [Contender::BacklogPerInstance, Contender::Cpu] {
        let runs = run(&plan, contender, &BURST, 2);
        assert!(runs.outcomes.iter().all(|o| o.first_in_service_seconds.is_none() && o.done == 0), "{contender:?}");
    }
}

#[test]
fn target_tracking_from_one_worker_takes_five_minutes_and_more() {
    let plan = Changed::committed(PlanKind::Production).read().unwrap();
    let runs = run(&plan, Contender::BacklogPerInstanceFromOne, &BURST, 20);
    let spread = runs.spread(|outcome| outcome.first_in_service_seconds);
    assert!(spread.worst.is_some_and(|seconds| seconds > 300.0), "{spread:?}");
}
