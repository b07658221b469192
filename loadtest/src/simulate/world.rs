//! `World`: queue, fleet, model and `CloudWatch`, advanced together in steps of half a second.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, LogNormal, Poisson};

use super::alarm::{Alarm, MetricName, Metrics};
use super::assumptions as assumed;
use super::fleet::{Cause, Fleet, Held, Instance, Stage};
use super::outcome::{Outcome, Sample};
use super::plan::ScalingPlan;
use super::policy::{Capacity, Policy};
use super::queue::{Queue, milliseconds};
use super::scenario::Scenario;

/// An alarm, its policy, and the second of the minute at which it is evaluated.
#[derive(Debug)]
struct Rule {
    alarm: Alarm,
    policy: Policy,
    next_at: f64,
}

/// Everything that is simulated.
#[derive(Debug)]
pub struct World<'a> {
    plan: &'a ScalingPlan,
    scenario: &'a Scenario,
    now: f64,
    queue: Queue,
    fleet: Fleet,
    metrics: Metrics,
    rules: Vec<Rule>,
    /// Calls of the model that the quota allows now, of the whole fleet.
    tokens: f64,
    /// Core seconds since the last sample.
    cpu_seconds: f64,
    burst_at: f64,
    queue_sample_at: f64,
    group_sample_at: f64,
    arrivals: StdRng,
    model: StdRng,
    cloudwatch: StdRng,
    call_seconds: LogNormal<f64>,
    outcome: Outcome,
}

/// Idle or steady seconds before the scenario begins, so that alarms have a history.
const LEAD_SECONDS: f64 = 1200.0;
const SAMPLE_SECONDS: f64 = 10.0;

impl<'a> World<'a> {
    /// The same seed gives the same arrivals whatever the rules are.
    #[must_use]
    pub fn new(plan: &'a ScalingPlan, rules: &[(Alarm, Policy)], scenario: &'a Scenario, seed: u64, spot: f64) -> Self {
        let stream = |number: u64| StdRng::seed_from_u64(seed.wrapping_mul(8).wrapping_add(number));
        let mut cloudwatch = stream(2);
        let start = -LEAD_SECONDS;
        let mut phase = || start + cloudwatch.random_range(0.0..60.0);
        let (burst_phase, queue_sample_at, group_sample_at) = (phase(), phase(), phase());
        let rules = rules
            .iter()
            .map(|(alarm, policy)| Rule { alarm: alarm.clone(), policy: policy.clone(), next_at: phase() })
            .collect();
        let mut fleet = Fleet::new(stream(3), spot);
        fleet.begin_with(plan, scenario.starts_with(plan), start);
        let sigma = assumed::MODEL_SIGMA;
        let median = plan.limits.model_seconds_per_call.ln() - sigma * sigma / 2.0;
        Self {
            plan,
            scenario,
            now: start,
            queue: Queue::new(plan.limits.queue_max_receive_count),
            fleet,
            metrics: Metrics::default(),
            rules,
            tokens: 0.0,
            cpu_seconds: 0.0,
            burst_at: burst_phase + LEAD_SECONDS,
            queue_sample_at,
            group_sample_at,
            arrivals: stream(0),
            model: stream(1),
            cloudwatch,
            call_seconds: LogNormal::new(median, sigma).expect("sigma is a constant above 0"),
            outcome: Outcome::default(),
        }
    }

    /// Runs the scenario to its end.
    #[must_use]
    pub fn run(mut self) -> Outcome {
        let mut next_sample = 0.0;
        while self.now < self.scenario.seconds {
            self.now += assumed::TICK_SECONDS;
            self.arrive();
            self.queue.end_leases(self.now);
            self.outcome.spot_notices += self.fleet.interrupt(self.plan, self.now);
            self.work();
            self.receive();
            self.end_instances();
            self.measure();
            self.evaluate();
            self.outcome.busy_chosen += self.fleet.reconcile(self.plan, self.now);
            self.note_first();
            if self.now >= next_sample {
                next_sample += SAMPLE_SECONDS;
                self.sample();
            }
        }
        self.finish()
    }

    /// Notes when the first instance that was launched since the burst is there.
    fn note_first(&mut self) {
        let launched = || self.fleet.instances.iter().filter(|instance| instance.launched_at >= self.burst_at);
        let since = |at: f64| (at <= self.now).then_some(at - self.burst_at);
        let earliest = |at: fn(&Instance) -> f64| launched().map(at).min_by(f64::total_cmp).and_then(since);
        let (in_service, ready) = (earliest(|instance| instance.in_service_at), earliest(|instance| instance.ready_at));
        self.outcome.first_in_service_seconds = self.outcome.first_in_service_seconds.or(in_service);
        self.outcome.first_receive_seconds = self.outcome.first_receive_seconds.or(ready);
    }

    fn finish(mut self) -> Outcome {
        let in_system = self.queue.visible() + self.queue.leased() + self.fleet.held();
        let known = self.outcome.done + self.queue.dead_lettered + u64::try_from(in_system).unwrap_or(0);
        self.outcome.lost = self.queue.dead_lettered + self.queue.submitted.abs_diff(known);
        self.outcome.submitted = self.queue.submitted;
        for instance in &self.fleet.instances {
            self.outcome.instance_hours += (self.now - instance.launched_at) / 3600.0;
        }
        self.outcome.final_desired = self.fleet.desired;
        self.outcome
    }

    fn arrive(&mut self) {
        let began = self.now > self.burst_at && self.now - assumed::TICK_SECONDS <= self.burst_at;
        if began {
            self.queue.submit(self.now, self.scenario.burst);
        }
        let mean = self.scenario.rate(self.now) * assumed::TICK_SECONDS;
        if let Ok(poisson) = Poisson::new(mean) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "arrivals of half a second")]
            let count = poisson.sample(&mut self.arrivals) as u64;
            self.queue.submit(self.now, count);
        }
    }

    /// Lets the model answer, pictures be rendered, and waiting calls begin within the quota.
    fn work(&mut self) {
        let quota = self.plan.limits.model_requests_per_minute / 60.0 * self.scenario.quota_share(self.now);
        self.tokens =
            (self.tokens + quota * assumed::TICK_SECONDS).min((quota * assumed::QUOTA_BURST_SECONDS).max(1.0));
        // Another worker begins each time, so that none has precedence.
        let first = self.first_instance();
        for offset in 0..self.fleet.instances.len() {
            let index = (first + offset) % self.fleet.instances.len();
            let instance = &mut self.fleet.instances[index];
            for position in (0..instance.held.len()).rev() {
                match instance.held[position].stage {
                    Stage::Waiting if self.tokens >= 1.0 => {
                        self.tokens -= 1.0;
                        let answer = self.now + self.call_seconds.sample(&mut self.model);
                        instance.held[position].stage = Stage::Calling(answer);
                    }
                    Stage::Calling(answer) if answer <= self.now => {
                        let core = usize::from(instance.cores[1] < instance.cores[0]);
                        let done = instance.cores[core].max(answer) + assumed::CPU_SECONDS_PER_JOB;
                        instance.cores[core] = done;
                        self.cpu_seconds += assumed::CPU_SECONDS_PER_JOB;
                        instance.held[position].stage = Stage::Rendering(done);
                    }
                    Stage::Rendering(done) if done <= self.now => {
                        instance.held.swap_remove(position);
                        self.outcome.done += 1;
                    }
                    Stage::Waiting | Stage::Calling(_) | Stage::Rendering(_) => {}
                }
            }
        }
    }

    fn first_instance(&mut self) -> usize {
        if self.fleet.instances.is_empty() { 0 } else { self.model.random_range(0..self.fleet.instances.len()) }
    }

    /// Hands out what is visible, one job a worker in turn, as long polls do.
    fn receive(&mut self) {
        let slots = self.plan.limits.worker_slots;
        let first = self.first_instance();
        let mut has_received = true;
        while has_received && self.queue.visible() > 0 {
            has_received = false;
            for offset in 0..self.fleet.instances.len() {
                let index = (first + offset) % self.fleet.instances.len();
                let instance = &mut self.fleet.instances[index];
                if !instance.receives(self.now, slots) {
                    continue;
                }
                let Some(job) = self.queue.receive() else { return };
                has_received = true;
                let stage = if self.tokens >= 1.0 {
                    self.tokens -= 1.0;
                    Stage::Calling(self.now + self.call_seconds.sample(&mut self.model))
                } else {
                    Stage::Waiting
                };
                instance.held.push(Held { job, stage });
            }
        }
    }

    /// Drains what is going to end, and removes what has ended.
    fn end_instances(&mut self) {
        let now = self.now;
        let mut index = 0;
        while index < self.fleet.instances.len() {
            let Some(ending) = self.fleet.instances[index].ending else {
                index += 1;
                continue;
            };
            let instance = &mut self.fleet.instances[index];
            let mut given_back = Vec::new();
            if ending.noticed_at <= now {
                let is_over = ending.gives_back_at <= now;
                given_back.extend(instance.held.extract_if(.., |held| is_over || held.stage == Stage::Waiting));
            }
            let is_drained = ending.noticed_at <= now && instance.held.is_empty();
            let is_killed = ending.killed_at <= now;
            let cut_off = if is_killed { std::mem::take(&mut instance.held) } else { Vec::new() };
            let is_cut_short = given_back.iter().chain(&cut_off).any(|held| held.stage != Stage::Waiting);
            if ending.cause == Cause::ScaleIn {
                self.outcome.busy_ended += u64::from(is_cut_short && !ending.has_failed);
            }
            self.outcome.given_back += u64::try_from(given_back.len()).unwrap_or(0);
            self.outcome.cut_off += u64::try_from(cut_off.len()).unwrap_or(0);
            given_back.into_iter().for_each(|held| self.queue.give_back(held.job));
            for held in cut_off {
                // The lease was extended within the last quarter of it.
                let lease = self.plan.visibility_timeout_seconds * self.model.random_range(0.75..1.0);
                self.queue.abandon(held.job, now + lease);
            }
            if let Some(ending) = &mut instance.ending {
                ending.has_failed |= is_cut_short;
            }
            if is_drained || is_killed {
                let ended = self.fleet.instances.remove(index);
                self.outcome.instance_hours += (now - ended.launched_at) / 3600.0;
            } else {
                index += 1;
            }
        }
    }

    fn between(&mut self, (low, high): (f64, f64)) -> f64 {
        self.cloudwatch.random_range(low..high)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn in_flight(&self) -> f64 {
        (self.fleet.held() + self.queue.leased()) as f64
    }

    /// Publishes the metrics that are due, each to be read later.
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "counts far below 2^52, and minutes"
    )]
    fn measure(&mut self) {
        let minute = (self.now / 60.0).floor() as i64;
        if self.now >= self.queue_sample_at {
            self.queue_sample_at += 60.0;
            let at = self.now + self.between(assumed::QUEUE_METRIC_DELAY_SECONDS);
            let (first, second) =
                (self.between(assumed::QUEUE_METRIC_LAG_SECONDS), self.between(assumed::QUEUE_METRIC_LAG_SECONDS));
            self.metrics.publish(MetricName::Visible, minute, self.queue.visible() as f64, at + first);
            self.metrics.publish(MetricName::InFlight, minute, self.in_flight(), at + second);
        }
        if self.now >= self.group_sample_at {
            self.group_sample_at += 60.0;
            let at = self.now + self.between(assumed::GROUP_METRIC_DELAY_SECONDS);
            self.metrics.publish(MetricName::Desired, minute, f64::from(self.fleet.desired), at);
            let in_service = self.fleet.in_service(self.now).count() as f64;
            self.metrics.publish(MetricName::InService, minute, in_service, at);
            if in_service > 0.0 {
                let percent = 100.0 * self.cpu_seconds / (60.0 * in_service * assumed::CORES as f64);
                self.metrics.publish(MetricName::Cpu, minute, percent, at);
            }
            self.cpu_seconds = 0.0;
        }
    }

    fn evaluate(&mut self) {
        for rule in &mut self.rules {
            if self.now < rule.next_at {
                continue;
            }
            rule.next_at += 60.0;
            let Some(value) = rule.alarm.evaluate(&self.metrics, self.now) else { continue };
            let capacity = Capacity {
                desired: self.fleet.desired,
                warm: u32::try_from(self.fleet.warm(self.plan, self.now)).unwrap_or(0),
                is_warming: self.fleet.is_warming(self.plan, self.now),
                min_size: self.plan.min_size,
                max_size: self.plan.max_size,
            };
            if let Some(desired) = rule.policy.desired(value, rule.alarm.threshold, capacity) {
                if self.now >= 0.0 {
                    self.outcome.record_change(self.now, self.fleet.desired, desired);
                }
                self.fleet.desired = desired;
            }
        }
    }

    fn sample(&mut self) {
        let held = self.fleet.instances.iter().flat_map(|instance: &Instance| &instance.held);
        let oldest = held.map(|held| held.job.arrived_ms).chain(self.queue.oldest_ms()).min();
        #[expect(clippy::cast_precision_loss, reason = "milliseconds of a day")]
        let age_seconds = oldest.map_or(0.0, |arrived| (milliseconds(self.now) - arrived) as f64 / 1000.0);
        let sample = Sample {
            seconds: self.now,
            visible: self.queue.visible(),
            in_flight: self.fleet.held() + self.queue.leased(),
            in_service: self.fleet.in_service(self.now).count(),
            age_seconds,
        };
        self.outcome.record_sample(sample, self.scenario.drains_after(self.burst_at));
    }
}
