//! The circuit on a paused clock.

use super::faults::{FAULTS_LAPSE_AFTER, OUTAGE_AFTER};
use super::*;
use crate::error::Kind;

fn denied() -> JobError {
    JobError::new(Kind::AccessDenied, "not allowed")
}

fn job() -> JobId {
    let keys: job::IdKeys = "test-secret-test-secret-test-secret".parse().unwrap();
    keys.issue(&"north".parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn what_may_be_a_jobs_own_fault_needs_several_jobs() {
    let circuit = Circuit::new(Readiness::default());
    for kind in [Kind::ModelFailed, Kind::ModelAnswerMalformed, Kind::ModelTimedOut] {
        circuit.admit().await.passed();
        let odd = JobError::new(kind, "scripted");
        let (first, second, third) = (job(), job(), job());
        let blames = async |job: &JobId| circuit.admit().await.blames_environment(&odd, job);
        for _ in 0..5 * OUTAGE_AFTER {
            assert!(!blames(&first).await, "one job is no outage: {kind:?}");
        }
        assert!(!blames(&second).await);
        assert!(blames(&third).await);
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_with_a_fault_of_its_own_counts_once_among_those_of_a_service() {
    let circuit = Circuit::new(Readiness::default());
    let (down, odd) = (Kind::ModelUnavailable, Kind::ModelTimedOut);
    let blames =
        async |kind: Kind, job: &JobId| circuit.admit().await.blames_environment(&JobError::new(kind, ""), job);
    let slow = job();
    for _ in 0..OUTAGE_AFTER {
        assert!(!blames(odd, &slow).await);
    }
    for _ in 0..OUTAGE_AFTER - 2 {
        assert!(!blames(down, &job()).await);
    }
    assert!(blames(down, &job()).await);
}

#[tokio::test(start_paused = true)]
async fn faults_lapse_while_it_is_closed_and_count_while_it_is_open() {
    let circuit = Circuit::new(Readiness::default());
    let down = JobError::new(Kind::ModelUnavailable, "503");
    for _ in 0..2 * OUTAGE_AFTER {
        assert!(!circuit.admit().await.blames_environment(&down, &job()), "now and then is no outage");
        tokio::time::advance(FAULTS_LAPSE_AFTER / 3).await;
    }
    let odd = JobError::new(Kind::ModelFailed, "Inference error");
    tokio::time::advance(FAULTS_LAPSE_AFTER).await;
    for _ in 0..OUTAGE_AFTER {
        circuit.admit().await.blames_environment(&odd, &job());
    }
    circuit.admit().await.failed(&odd);
    let same = job();
    for _ in 0..4 * OUTAGE_AFTER {
        tokio::time::advance(FAULTS_LAPSE_AFTER).await;
        let probe = circuit.admit_again().await;
        assert!(probe.blames_environment(&odd, &same), "whoever probes, and however seldom");
        probe.failed(&odd);
    }
}

/// The fault may be that of the jobs that are held.
#[tokio::test(start_paused = true)]
async fn after_two_probes_of_held_jobs_a_new_one_goes_first() {
    let circuit = Circuit::new(Readiness::default());
    circuit.admit().await.failed(&denied());
    for _ in 0..HELD_PROBES {
        let held = circuit.admit_again().await;
        assert!(tokio::time::timeout(MAX_PAUSE, circuit.new_probe_due(None)).await.is_err(), "not yet");
        held.failed(&denied());
    }
    let due = circuit.new_probe_due(None).await;
    let again = circuit.new_probe_due(Some(due));
    assert!(tokio::time::timeout(NEW_PROBE_PATIENCE / 5, again).await.is_err(), "one new job for each probe");
    let mut held = Box::pin(circuit.admit_again());
    assert!(tokio::time::timeout(NEW_PROBE_PATIENCE / 5, &mut held).await.is_err(), "it is left to a new one");
    // Nobody new comes.
    held.await.failed(&denied());
    for _ in 0..HELD_PROBES {
        circuit.admit_again().await.failed(&denied());
    }
    let due = circuit.new_probe_due(Some(due)).await;
    let new = async {
        circuit.admit().await.failed(&denied());
        let early = tokio::time::timeout(MAX_PAUSE / 2, circuit.new_probe_due(Some(due))).await;
        assert!(early.is_err(), "held ones again");
    };
    tokio::join!(async { circuit.admit_again().await.passed() }, new);
    assert!(!circuit.is_open());
}

#[tokio::test(start_paused = true)]
async fn what_no_service_is_at_fault_for_is_no_outage_however_many_jobs_meet_it() {
    let circuit = Circuit::new(Readiness::default());
    for kind in [Kind::ModelThrottled, Kind::RenderFailed, Kind::CpuTaskPanicked, Kind::AttemptTimedOut] {
        for _ in 0..4 * OUTAGE_AFTER {
            let blamed = circuit.admit().await.blames_environment(&JobError::new(kind, ""), &job());
            assert!(!blamed, "{kind:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn opens_probes_one_at_a_time_and_closes() {
    let readiness = Readiness::default();
    let circuit = Circuit::new(readiness.clone());
    let under_way = circuit.admit().await;
    circuit.admit().await.failed(&denied());
    assert!(circuit.is_open());
    assert!(readiness.reasons()["circuit"].contains("access_denied"));

    let started = Instant::now();
    let probe = circuit.admit().await;
    assert_eq!(started.elapsed(), FIRST_PAUSE);
    under_way.passed();
    assert!(circuit.is_open(), "an old success proves nothing");
    let mut second = Box::pin(circuit.admit());
    tokio::select! {
        _ = &mut second => panic!("two probes at once"),
        () = tokio::time::sleep(Duration::from_secs(600)) => {}
    }
    probe.failed(&denied());
    let started = Instant::now();
    let probe = second.await;
    assert_eq!(started.elapsed(), FIRST_PAUSE * 2);
    probe.passed();
    circuit.closed().await;
    assert!(readiness.is_ready());
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_faults_in_a_row() {
    let circuit = Circuit::new(Readiness::default());
    let down = JobError::new(Kind::ModelUnavailable, "503");
    for _ in 1..OUTAGE_AFTER {
        assert!(!circuit.admit().await.blames_environment(&down, &job()));
    }
    circuit.admit().await.passed();
    for _ in 1..OUTAGE_AFTER {
        assert!(!circuit.admit().await.blames_environment(&down, &job()));
    }
    let fifth = circuit.admit().await;
    assert!(fifth.blames_environment(&down, &job()));
    fifth.failed(&down);
    assert!(circuit.admit().await.blames_environment(&down, &job()), "a probe that fails keeps it open");
}

#[tokio::test(start_paused = true)]
async fn a_tripped_circuit_asks_for_a_probe_and_recovers() {
    let circuit = Circuit::new(Readiness::default());
    circuit.trip(&denied());
    let started = Instant::now();
    circuit.probe_due().await;
    assert_eq!(started.elapsed(), FIRST_PAUSE);
    circuit.recovered();
    circuit.closed().await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_lets_the_next_one_try() {
    let circuit = Circuit::new(Readiness::default());
    circuit.admit().await.failed(&denied());
    drop(circuit.admit().await);
    circuit.admit().await.passed();
    assert!(!circuit.is_open());
}
