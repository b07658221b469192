//! What `Batching` promises its callers, on a paused clock.

use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::*;

const LIMITS: Limits =
    Limits { entries: 10, weight: 1000, calls: 4, waiting: 100, patience: Duration::from_millis(25) };

/// What becomes of an entry: its own name, or a failure of its own.
type Own = Result<usize, ()>;

/// One call as it was made: when, and with what.
type Seen = (Duration, Vec<Job>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Job {
    name: usize,
    weight: usize,
}

fn job(name: usize) -> Job {
    Job { name, weight: 1 }
}

/// Answers each entry with its own name, after `takes`; refuses, panics and says nothing as told.
struct Scripted {
    began: Instant,
    takes: Duration,
    calls: Mutex<Vec<Seen>>,
    at_once: (AtomicUsize, AtomicUsize),
    unheard: Mutex<Vec<(usize, Option<Own>)>>,
    /// A call waits for one permit, if given.
    gate: Option<Arc<Semaphore>>,
    script: fn(&[Job]) -> Vec<Own>,
}

fn each_its_own(jobs: &[Job]) -> Vec<Own> {
    jobs.iter().map(|job| if job.name % 3 == 2 { Err(()) } else { Ok(job.name) }).collect()
}

fn scripted() -> Scripted {
    Scripted {
        began: Instant::now(),
        takes: Duration::from_millis(10),
        calls: Mutex::default(),
        at_once: Default::default(),
        unheard: Mutex::default(),
        gate: None,
        script: each_its_own,
    }
}

#[async_trait]
impl BatchCall for Arc<Scripted> {
    type Entry = Job;
    type Outcome = Own;

    fn weight(&self, job: &Job) -> usize {
        job.weight
    }

    async fn call(&self, jobs: &[Job]) -> Vec<Self::Outcome> {
        self.calls.lock().unwrap().push((self.began.elapsed(), jobs.to_vec()));
        let now = self.at_once.0.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once.1.fetch_max(now, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.acquire().await.unwrap().forget();
        }
        tokio::time::sleep(self.takes).await;
        self.at_once.0.fetch_sub(1, Ordering::SeqCst);
        (self.script)(jobs)
    }

    fn unheard(&self, job: &Job, outcome: Option<Self::Outcome>) {
        self.unheard.lock().unwrap().push((job.name, outcome));
    }
}

impl Scripted {
    fn names(&self) -> Vec<Vec<usize>> {
        self.calls.lock().unwrap().iter().map(|(_, jobs)| jobs.iter().map(|job| job.name).collect()).collect()
    }

    fn times(&self) -> Vec<u128> {
        self.calls.lock().unwrap().iter().map(|(at, _)| at.as_millis()).collect()
    }
}

fn batching(scripted: Scripted, limits: Limits) -> (Arc<Scripted>, Arc<Batching<Arc<Scripted>>>) {
    let scripted = Arc::new(scripted);
    (Arc::clone(&scripted), Arc::new(Batching::new(scripted, limits)))
}

fn ask(set: &mut JoinSet<(usize, Result<Own, NoOutcome>)>, to: &Arc<Batching<Arc<Scripted>>>, after: u64, job: Job) {
    let to = Arc::clone(to);
    set.spawn(async move {
        tokio::time::sleep(Duration::from_millis(after)).await;
        (job.name, to.ask(job).await)
    });
}

#[tokio::test(start_paused = true)]
async fn the_first_goes_at_once_and_what_comes_meanwhile_shares_the_next() {
    let (seen, to) = batching(scripted(), LIMITS);
    let mut set = JoinSet::new();
    for (name, after) in [(0, 0), (1, 1), (2, 4), (3, 9), (4, 30)] {
        ask(&mut set, &to, after, job(name));
    }
    for (name, outcome) in set.join_all().await {
        assert_eq!(outcome.unwrap().is_ok(), name != 2, "{name}");
    }
    assert_eq!(seen.names(), [vec![0], vec![1, 2, 3], vec![4]]);
    assert_eq!(seen.times(), [0, 10, 30]);
}

#[tokio::test(start_paused = true)]
async fn a_full_call_waits_for_none_and_a_slow_one_is_waited_for_briefly() {
    let slow = Scripted { takes: Duration::from_secs(5), ..scripted() };
    let (seen, to) = batching(slow, LIMITS);
    let mut set = JoinSet::new();
    ask(&mut set, &to, 0, job(0));
    for name in 1..=12 {
        ask(&mut set, &to, 3, job(name));
    }
    ask(&mut set, &to, 100, job(13));
    assert_eq!(set.join_all().await.len(), 14);
    // Ten at once, as that is all that one call takes; the rest when two calls have been waited for long enough; one that
    // comes when all that are under way are slow goes at once.
    assert_eq!(seen.names().iter().map(Vec::len).collect::<Vec<_>>(), [1, 10, 2, 1]);
    assert_eq!(seen.times(), [0, 3, 28, 100]);
}

#[tokio::test(start_paused = true)]
async fn calls_are_bounded_and_the_last_of_them_takes_up_what_waits() {
    let slow = Scripted { takes: Duration::from_secs(5), ..scripted() };
    let (seen, to) = batching(slow, LIMITS);
    let outcomes = to.ask_all((0..75).map(job).collect()).await;
    assert_eq!(outcomes, each_its_own(&(0..75).map(job).collect::<Vec<_>>()).into_iter().map(Ok).collect::<Vec<_>>());
    assert_eq!(seen.at_once.1.load(Ordering::SeqCst), LIMITS.calls);
    assert_eq!(seen.times(), [0, 0, 0, 0, 5000, 5000, 5000, 5025]);
    to.drained().await;
}

#[tokio::test(start_paused = true)]
async fn weight_is_a_limit_as_well() {
    let (seen, to) = batching(scripted(), LIMITS);
    let jobs = [400, 400, 400, 2000, 10].into_iter().enumerate().map(|(name, weight)| Job { name, weight });
    assert_eq!(to.ask_all(jobs.collect()).await.len(), 5);
    assert_eq!(seen.names(), [vec![0, 1], vec![2], vec![3], vec![4]]);
}

#[tokio::test(start_paused = true)]
async fn who_goes_away_stops_nobody_else() {
    let (seen, to) = batching(scripted(), LIMITS);
    let mut set = JoinSet::new();
    let (calling, waiting) = (to.ask(job(0)), to.ask(job(1)));
    // Polled once each, so that the one is under way and the other waits.
    assert!(tokio::time::timeout(Duration::from_millis(1), calling).await.is_err());
    assert!(tokio::time::timeout(Duration::from_millis(1), waiting).await.is_err());
    ask(&mut set, &to, 0, job(3));
    assert_eq!(set.join_all().await, [(3, Ok(Ok(3)))]);
    assert_eq!(seen.names(), [vec![0], vec![3]]);
    let mut unheard = seen.unheard.lock().unwrap().clone();
    unheard.sort_unstable();
    assert_eq!(unheard, [(0, Some(Ok(0))), (1, None)]);
}

#[tokio::test(start_paused = true)]
async fn one_too_many_is_refused_and_who_has_gone_makes_room() {
    let gate = Arc::new(Semaphore::new(0));
    let (seen, to) =
        batching(Scripted { gate: Some(Arc::clone(&gate)), ..scripted() }, Limits { calls: 1, waiting: 2, ..LIMITS });
    let mut set = JoinSet::new();
    for (after, name) in [(0, 0), (1, 1), (2, 3)] {
        ask(&mut set, &to, after, job(name));
    }
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(to.ask(job(4)).await, Err(NoOutcome::Full));
    // Nothing of it stays behind.
    assert_eq!(seen.unheard.lock().unwrap().len(), 0);

    set.abort_all();
    while set.join_next().await.is_some() {}
    let mut set = JoinSet::new();
    ask(&mut set, &to, 0, job(6));
    tokio::time::sleep(Duration::from_millis(5)).await;
    assert_eq!(seen.unheard.lock().unwrap().len(), 2);
    gate.add_permits(2);
    assert_eq!(set.join_all().await, [(6, Ok(Ok(6)))]);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_or_forgets_an_entry_fails_its_own_entries_only() {
    let script: fn(&[Job]) -> Vec<Own> = |jobs| {
        assert!(jobs[0].name != 0, "the script says so");
        vec![Ok(jobs[0].name)]
    };
    let (_, to) = batching(Scripted { script, ..scripted() }, LIMITS);
    let mut set = JoinSet::new();
    for name in 0..3 {
        ask(&mut set, &to, name as u64, job(name));
    }
    let mut outcomes = set.join_all().await;
    outcomes.sort_unstable_by_key(|(name, _)| *name);
    assert_eq!(outcomes, [(0, Err(NoOutcome::Lost)), (1, Ok(Ok(1))), (2, Err(NoOutcome::Lost))]);
    to.drained().await;
    assert_eq!(to.ask(job(7)).await, Ok(Ok(7)));
}

#[tokio::test(start_paused = true)]
async fn drained_waits_for_calls_that_nobody_waits_for() {
    let (seen, to) = batching(scripted(), LIMITS);
    to.drained().await;
    assert!(tokio::time::timeout(Duration::from_millis(1), to.ask(job(0))).await.is_err());
    to.drained().await;
    assert_eq!(*seen.unheard.lock().unwrap(), [(0, Some(Ok(0)))]);
}

#[test]
fn a_runtime_may_end_with_calls_under_way() {
    for threads in [None, Some(2)] {
        let mut builder = match threads {
            None => tokio::runtime::Builder::new_current_thread(),
            Some(_) => tokio::runtime::Builder::new_multi_thread(),
        };
        let runtime = builder.enable_all().build().unwrap();
        let (seen, to) = runtime.block_on(async {
            let stuck = Scripted { takes: Duration::from_secs(3600), ..scripted() };
            let (seen, to) = batching(stuck, LIMITS);
            let asked = Arc::clone(&to);
            let all = async move { asked.ask_all((0..60).map(job).collect()).await };
            assert!(tokio::time::timeout(Duration::from_millis(50), all).await.is_err());
            (seen, to)
        });
        drop(runtime);
        assert_eq!(seen.calls.lock().unwrap().len(), LIMITS.calls);
        assert_eq!(to.shared.lock().under_way, 0);
    }
}

/// What comes, when, how heavy, and for how long its caller waits.
#[derive(Debug, Clone)]
struct Arrival {
    after: u64,
    weight: usize,
    gives_up_after: Option<u64>,
}

fn arrival() -> impl Strategy<Value = Arrival> {
    let weight = prop_oneof![9 => 0..400_usize, 1 => 0..2000_usize];
    (0..60_u64, weight, proptest::option::weighted(0.2, 0..40_u64))
        .prop_map(|(after, weight, gives_up_after)| Arrival { after, weight, gives_up_after })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn each_caller_gets_its_own_outcome_within_the_limits(
        arrivals in proptest::collection::vec(arrival(), 1..120),
        takes in 0..60_u64,
        calls in 1..5_usize,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let script = Scripted { takes: Duration::from_millis(takes), ..scripted() };
            let (seen, to) = batching(script, Limits { calls, waiting: 1000, ..LIMITS });
            let mut set = JoinSet::new();
            for (name, arrival) in arrivals.iter().cloned().enumerate() {
                let to = Arc::clone(&to);
                set.spawn(async move {
                    tokio::time::sleep(Duration::from_millis(arrival.after)).await;
                    let asked = to.ask(Job { name, weight: arrival.weight });
                    match arrival.gives_up_after {
                        None => (name, Some(asked.await)),
                        Some(ms) => (name, tokio::time::timeout(Duration::from_millis(ms), asked).await.ok()),
                    }
                });
            }
            let outcomes = set.join_all().await;
            to.drained().await;

            let called: Vec<Job> = seen.calls.lock().unwrap().iter().flat_map(|(_, jobs)| jobs.clone()).collect();
            let unheard = seen.unheard.lock().unwrap().clone();
            for (name, outcome) in outcomes {
                let times = called.iter().filter(|job| job.name == name).count();
                let told: Vec<_> = unheard.iter().filter(|(its, _)| *its == name).collect();
                let own = each_its_own(&[job(name)])[0];
                match outcome {
                    Some(outcome) => {
                        assert_eq!(outcome, Ok(own));
                        assert_eq!((times, told.len()), (1, 0), "{name}");
                    }
                    // It gave up: never called, or called once and told of. At the very moment of the answer the
                    // answer may have been delivered and not been looked at.
                    None => match told[..] {
                        [(_, None)] => assert_eq!(times, 0),
                        [(_, Some(outcome))] => assert_eq!((*outcome, times), (own, 1)),
                        ref none => assert_eq!((none.len(), times), (0, 1)),
                    },
                }
            }
            for (_, jobs) in seen.calls.lock().unwrap().iter() {
                assert!(jobs.len() <= LIMITS.entries);
                assert!(jobs.len() == 1 || jobs.iter().map(|job| job.weight).sum::<usize>() <= LIMITS.weight);
            }
            assert!(seen.at_once.1.load(Ordering::SeqCst) <= calls);
            let state = to.shared.lock();
            assert_eq!((state.waiting.len(), state.weight, state.under_way, state.waited_for), (0, 0, 0, 0));
        });
    }
}
