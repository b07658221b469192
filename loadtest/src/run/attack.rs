//! The attack: the plan's users as `goose` runs them.

use std::sync::Arc;
use std::time::Duration;

use goose::config::GooseConfiguration;
use goose::goose::{GooseUser, Scenario, Transaction, TransactionFunction};
use goose::{GooseAttack, GooseScheduler};

use super::Plan;
use crate::failure::Failure;
use crate::users::{Session, Task, Traits};

/// Silent but for errors: what is measured and said here is ours.
const QUIET: u8 = 2;

/// Makes the attack. `goose` brings users up, gives each its tasks by weight and its think times, and takes them down again;
/// measuring is the session's.
///
/// # Errors
/// When `goose` does not take the plan.
pub(super) fn attack(plan: &Plan, session: &Arc<Session>) -> Result<GooseAttack, Failure> {
    let mut configuration = GooseConfiguration::default();
    configuration.host = Some(session.portal.origin().to_owned());
    configuration.users = Some(plan.users);
    configuration.increase_time = Some(whole_seconds(plan.ramp));
    configuration.run_time = Some(whole_seconds(plan.duration.saturating_sub(plan.ramp)));
    configuration.quiet = QUIET;
    configuration.no_metrics = true;
    configuration.no_print_metrics = true;
    configuration.no_error_summary = true;
    configuration.no_telnet = true;
    let mut scenario = Scenario::new(plan.kind.as_str());
    for (task, weight) in plan.kind.tasks() {
        let transaction = Transaction::new(function(*task, plan.seed, session)).set_name(task.as_str());
        scenario = scenario.register_transaction(transaction.set_weight(*weight).map_err(refused)?);
    }
    // Arrivals of the open model are due when they are due: nobody thinks.
    if plan.rate.is_none() {
        let think = plan.kind.think_millis();
        let time = |millis: u64| Duration::from_millis(millis) / plan.haste;
        scenario = scenario.set_wait_time(time(think.start), time(think.end)).map_err(refused)?;
    }
    let attack = GooseAttack::initialize_with_config(configuration).map_err(refused)?;
    // Otherwise all users would begin with the same task.
    Ok(attack.set_scheduler(GooseScheduler::Random).register_scenario(scenario))
}

fn function(task: Task, seed: u64, session: &Arc<Session>) -> TransactionFunction {
    let session = Arc::clone(session);
    Arc::new(move |user: &mut GooseUser| {
        let session = Arc::clone(&session);
        Box::pin(async move {
            if user.get_session_data::<Traits>().is_none() {
                user.set_session_data(Traits::new(seed.wrapping_add(user.weighted_users_index as u64)));
            }
            session.visit(task, user.get_session_data_unchecked_mut::<Traits>()).await;
            Ok(())
        })
    })
}

fn refused(error: goose::GooseError) -> Failure {
    Failure::fault(format!("goose does not take the plan: {error}"))
}

/// `goose` counts in seconds, and 0 means for ever.
fn whole_seconds(duration: Duration) -> String {
    format!("{}", duration.as_secs_f64().round().max(1.0))
}
