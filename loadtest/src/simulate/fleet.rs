//! The Auto Scaling group: instances that launch, serve, drain and end, and the jobs that they hold.

use rand::RngExt;
use rand::rngs::StdRng;
use rand_distr::{Distribution, Exp};

use super::assumptions as assumed;
use super::plan::ScalingPlan;
use super::queue::Job;

/// One EC2 instance with its worker. All times are seconds of the simulation.
#[derive(Debug)]
pub struct Instance {
    pub is_spot: bool,
    pub zone: usize,
    pub launched_at: f64,
    pub in_service_at: f64,
    /// The worker receives from here on.
    pub ready_at: f64,
    pub interrupted_at: f64,
    pub ending: Option<Ending>,
    pub held: Vec<Held>,
    /// When each core is free.
    pub cores: [f64; assumed::CORES],
}

/// A job in a worker.
#[derive(Debug, Clone, Copy)]
pub struct Held {
    pub job: Job,
    pub stage: Stage,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Stage {
    /// The quota of the model is used up.
    Waiting,
    /// The model answers at this time.
    Calling(f64),
    /// The picture is published at this time.
    Rendering(f64),
}

/// How an instance ends.
#[derive(Debug, Clone, Copy)]
pub struct Ending {
    pub cause: Cause,
    /// The worker stops receiving and gives back what waits for the model.
    pub noticed_at: f64,
    /// The worker gives back what is left.
    pub gives_back_at: f64,
    /// The instance is gone, whatever it holds.
    pub killed_at: f64,
    /// Whether the group still counts it.
    pub counts: bool,
    /// Whether a job could not be finished.
    pub has_failed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    ScaleIn,
    Spot,
}

impl Instance {
    #[must_use]
    pub fn counts(&self) -> bool {
        self.ending.is_none_or(|ending| ending.counts)
    }

    #[must_use]
    pub fn receives(&self, now: f64, slots: usize) -> bool {
        self.ready_at <= now
            && self.ending.is_none_or(|ending| now < ending.noticed_at)
            && self.held.len() < slots
            // The worker receives nothing more while a call waits for the limiter (ARCHITECTURE.md, invariant 5).
            && !self.held.iter().any(|held| held.stage == Stage::Waiting)
    }
}

/// The group.
#[derive(Debug)]
pub struct Fleet {
    pub instances: Vec<Instance>,
    pub desired: u32,
    rng: StdRng,
    spot_lifetime: Option<Exp<f64>>,
}

impl Fleet {
    /// `spot_interruptions` are an hour and instance.
    #[must_use]
    pub fn new(rng: StdRng, spot_interruptions: f64) -> Self {
        let spot_lifetime = Exp::new(spot_interruptions / 3600.0).ok().filter(|_| spot_interruptions > 0.0);
        Self { instances: Vec::new(), desired: 0, rng, spot_lifetime }
    }

    /// Puts `count` instances into service as of `now`, warmed up: how a scenario that is under way begins.
    pub fn begin_with(&mut self, plan: &ScalingPlan, count: u32, now: f64) {
        self.desired = count;
        for _ in 0..count {
            self.launch(plan, now);
        }
        for instance in &mut self.instances {
            instance.in_service_at = now - plan.warmup_seconds;
            instance.ready_at = now;
        }
    }

    #[must_use]
    pub fn counted(&self) -> usize {
        self.instances.iter().filter(|instance| instance.counts()).count()
    }

    pub fn in_service(&self, now: f64) -> impl Iterator<Item = &Instance> {
        self.instances.iter().filter(move |instance| instance.ending.is_none() && instance.in_service_at <= now)
    }

    #[must_use]
    pub fn warm(&self, plan: &ScalingPlan, now: f64) -> usize {
        self.in_service(now).filter(|instance| instance.in_service_at + plan.warmup_seconds <= now).count()
    }

    #[must_use]
    pub fn is_warming(&self, plan: &ScalingPlan, now: f64) -> bool {
        let live = self.instances.iter().filter(|instance| instance.ending.is_none());
        live.into_iter().any(|instance| now < instance.in_service_at + plan.warmup_seconds)
    }

    #[must_use]
    pub fn held(&self) -> usize {
        self.instances.iter().map(|instance| instance.held.len()).sum()
    }

    fn between(&mut self, (low, high): (f64, f64)) -> f64 {
        self.rng.random_range(low..high)
    }

    fn on_demand_of(plan: &ScalingPlan, size: usize) -> usize {
        let base = usize::try_from(plan.on_demand_base).unwrap_or(usize::MAX).min(size);
        let percentage = usize::try_from(plan.on_demand_percentage).unwrap_or(100);
        base + ((size - base) * percentage).div_ceil(100)
    }

    fn launch(&mut self, plan: &ScalingPlan, now: f64) {
        let on_demand = self.instances.iter().filter(|instance| instance.counts() && !instance.is_spot).count();
        let is_spot = on_demand >= Self::on_demand_of(plan, self.counted() + 1);
        let in_zone = |zone| self.instances.iter().filter(|i| i.counts() && i.zone == zone).count();
        let zone = usize::from(in_zone(1) < in_zone(0));
        let in_service_at = now + self.between(assumed::IN_SERVICE_SECONDS);
        let ready_at = now + self.between(assumed::BOOT_SECONDS);
        let lifetime = self.spot_lifetime.filter(|_| is_spot);
        let interrupted_at = lifetime.map_or(f64::INFINITY, |lifetime| now + lifetime.sample(&mut self.rng));
        self.instances.push(Instance {
            is_spot,
            zone,
            launched_at: now,
            in_service_at,
            ready_at,
            interrupted_at,
            ending: None,
            held: Vec::new(),
            cores: [now; assumed::CORES],
        });
    }

    /// Launches and ends instances until as many count as are wanted. Returns how many busy ones were chosen to end.
    pub fn reconcile(&mut self, plan: &ScalingPlan, now: f64) -> u64 {
        let desired = usize::try_from(self.desired).unwrap_or(0);
        while self.counted() < desired {
            self.launch(plan, now);
        }
        let mut busy = 0;
        while self.counted() > desired {
            let Some(chosen) = self.choose(plan) else { break };
            busy += u64::from(!self.instances[chosen].held.is_empty());
            let noticed_at = now + self.between(assumed::NOTICE_SECONDS);
            // Without a hook EC2 stops the instance and waits for nobody.
            let killed_at = plan.heartbeat_seconds.map_or(now, |heartbeat| now + heartbeat);
            let gives_back_at = noticed_at + plan.limits.worker_shutdown_grace_seconds;
            self.instances[chosen].ending = Some(Ending {
                cause: Cause::ScaleIn,
                noticed_at,
                gives_back_at,
                killed_at,
                counts: false,
                has_failed: false,
            });
        }
        busy
    }

    /// The default termination policy: keep the share of On-Demand, then level the zones, then the oldest.
    /// <https://docs.aws.amazon.com/autoscaling/ec2/userguide/ec2-auto-scaling-termination-policies.html>
    fn choose(&self, plan: &ScalingPlan) -> Option<usize> {
        let counted = || self.instances.iter().enumerate().filter(|(_, instance)| instance.counts());
        let on_demand = counted().filter(|(_, instance)| !instance.is_spot).count();
        let from_spot = on_demand <= Self::on_demand_of(plan, self.counted() - 1);
        let in_zone = |zone| counted().filter(|(_, instance)| instance.zone == zone).count();
        let fuller = usize::from(in_zone(1) > in_zone(0));
        let order = |(_, instance): &(usize, &Instance)| {
            (instance.is_spot != from_spot, instance.zone != fuller, instance.launched_at)
        };
        counted()
            .min_by(|a, b| order(a).partial_cmp(&order(b)).unwrap_or(std::cmp::Ordering::Equal))
            .map(|(index, _)| index)
    }

    /// Sends the Spot notices that are due. Returns how many.
    pub fn interrupt(&mut self, plan: &ScalingPlan, now: f64) -> u64 {
        let mut notices = 0;
        for index in 0..self.instances.len() {
            if self.instances[index].interrupted_at > now || self.instances[index].ending.is_some() {
                continue;
            }
            let noticed_at = now + self.between(assumed::NOTICE_SECONDS);
            self.instances[index].ending = Some(Ending {
                cause: Cause::Spot,
                noticed_at,
                gives_back_at: noticed_at + plan.limits.worker_shutdown_grace_seconds,
                killed_at: now + assumed::SPOT_NOTICE_SECONDS,
                counts: !plan.capacity_rebalance,
                has_failed: false,
            });
            notices += 1;
        }
        notices
    }
}
