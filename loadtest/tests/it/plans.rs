//! What is read out of `terraform show -json`, and what is refused.

use loadtest::simulate::document::Document;
use loadtest::simulate::plan::Limits;
use loadtest::simulate::scenario::PlanKind;
use serde_json::{Value, json};

use crate::support::{Changed, IDLE, NEEDED, SURPLUS};

#[test]
fn the_committed_plans_say_what_the_documents_say() {
    let plan = Changed::committed(PlanKind::Production).read().unwrap();
    assert_eq!((plan.min_size, plan.max_size, plan.on_demand_base, plan.on_demand_percentage), (0, 3, 1, 0));
    assert_eq!((plan.warmup_seconds, plan.heartbeat_seconds), (120.0, Some(300.0)));
    assert!(plan.capacity_rebalance);
    let mut alarms: Vec<&str> = plan.rules.iter().map(|rule| rule.alarm.name.as_str()).collect();
    alarms.sort_unstable();
    assert_eq!(alarms, [IDLE, NEEDED, SURPLUS]);
    let limits = Limits {
        worker_slots: 4,
        worker_backlog_per_instance: 20.0,
        worker_shutdown_grace_seconds: 95.0,
        model_requests_per_minute: 90.0,
        model_seconds_per_call: 5.0,
        queue_max_receive_count: 5,
    };
    assert_eq!(plan.limits, limits);
    let million = Changed::committed(PlanKind::MillionADay).read().unwrap();
    assert_eq!((million.max_size, million.limits.worker_slots), (14, 16));
    assert_eq!(million.limits.model_requests_per_minute, 1800.0);
}

#[test]
fn a_promise_says_what_one_worker_is_there_for() {
    let mut plan = Changed::committed(PlanKind::Production);
    let mut backlog = |name: &str, value: Value| {
        plan.0["variables"][name] = json!({ "value": value });
        plan.read().unwrap().limits.worker_backlog_per_instance
    };
    assert_eq!(backlog("picture_within_seconds", json!(60)), 48.0);
    assert_eq!(backlog("worker_backlog_per_instance", json!(21)), 21.0, "what is set is not derived");
    assert_eq!(backlog("worker_backlog_per_instance", Value::Null), 48.0);
    assert_eq!(backlog("picture_within_seconds", json!(1)), 4.0, "never less than a busy worker holds");
    assert_eq!(backlog("picture_within_seconds", Value::Null), 20.0);
}

#[test]
fn a_reduced_plan_is_read_the_same_and_reduced_no_further() {
    let plan = Changed::committed(PlanKind::Production);
    let reduced = Changed(Document::parse(plan.0.clone()).unwrap().reduced());
    assert_eq!(reduced.0, plan.0);
    assert_eq!(format!("{:?}", reduced.read().unwrap()), format!("{:?}", plan.read().unwrap()));
}

#[test]
fn a_state_is_read_by_its_arns() {
    let mut plan = Changed::committed(PlanKind::Production);
    let expected = format!("{:?}", plan.read().unwrap());
    for (alarm, policy) in [(NEEDED, "workers_out"), (SURPLUS, "workers_in"), (IDLE, "workers_idle")] {
        let arn = format!("arn:aws:autoscaling:ap-south-1:1:scalingPolicy:2:policyName/{policy}");
        plan.values(&format!("aws_autoscaling_policy.{policy}"))["arn"] = json!(arn);
        plan.values(alarm)["alarm_actions"] = json!([arn]);
    }
    let Value::Object(mut document) = plan.0 else { panic!() };
    let values = document.remove("planned_values").unwrap();
    document.insert("values".to_owned(), values);
    document.remove("configuration");
    let state = Changed(Value::Object(document.clone()));
    assert_eq!(format!("{:?}", state.read().unwrap()), expected);
    document.remove("variables");
    let error = Changed(Value::Object(document)).read().unwrap_err().to_string();
    assert!(error.contains("--variable worker_slots=NUMBER"), "{error}");
}

#[test]
fn what_is_missing_is_named_with_the_fix() {
    for address in ["aws_autoscaling_group.worker", "aws_sqs_queue.jobs"] {
        let mut plan = Changed::committed(PlanKind::Production);
        plan.remove(address);
        let error = plan.read().unwrap_err().to_string();
        assert!(error.contains(address) && error.contains("terraform show -json"), "{error}");
    }
    let mut plan = Changed::committed(PlanKind::Production);
    [NEEDED, SURPLUS, IDLE].into_iter().for_each(|alarm| plan.remove(alarm));
    let error = plan.read().unwrap_err().to_string();
    assert!(error.contains("aws_cloudwatch_metric_alarm that invokes"), "{error}");
    let error = Document::parse(json!({})).unwrap_err().to_string();
    assert!(error.contains("planned_values or values"), "{error}");
}

type Mistake = fn(&mut Changed);

#[test]
fn what_cloudwatch_would_silently_accept_is_refused() {
    let table: [(Mistake, &str); 8] = [
        (|plan| plan.expression(NEEDED, "nonsense((("), "expression \"nonsense(((\""),
        (|plan| plan.expression(NEEDED, "visible + typo"), "refers to \"typo\""),
        (
            |plan| plan.values(NEEDED)["metric_query"][0]["metric"][0]["period"] = json!(10),
            "period is 10 and must be 60",
        ),
        (|plan| plan.values(NEEDED)["metric_query"][0]["metric"][0]["dimensions"] = json!({}), "dimension"),
        (|plan| plan.values("aws_autoscaling_group.worker")["enabled_metrics"] = json!([]), "not in enabled_metrics"),
        (
            |plan| plan.values("aws_autoscaling_group.worker")["default_instance_warmup"] = json!(null),
            "set it, even to 0",
        ),
        (
            |plan| plan.values("aws_autoscaling_policy.workers_out")["policy_type"] = json!("SimpleScaling"),
            "reads StepScaling",
        ),
        (|plan| plan.values(NEEDED)["threshold"] = json!("one"), "threshold: invalid type"),
    ];
    for (mistake, expected) in table {
        let mut plan = Changed::committed(PlanKind::Production);
        mistake(&mut plan);
        let error = plan.read().unwrap_err().to_string();
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[test]
fn nothing_of_a_machine_or_an_account_is_committed() {
    for kind in [PlanKind::Production, PlanKind::MillionADay] {
        let text = Changed::committed(kind).0.to_string();
        for word in ["arn:", "secret", "/root", "/work", "/tmp", "access_key", "timestamp"] {
            assert!(!text.contains(word), "{word} in {kind:?}");
        }
    }
}
