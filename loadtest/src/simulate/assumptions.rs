//! What no plan says: how long AWS, a boot and a model call take. Each number names where it comes from.

/// Seconds of one step of the simulation.
pub const TICK_SECONDS: f64 = 0.5;

/// From the sample of the queue's depth, once a minute, until it can be read. AWS gives no number; "1-2 minutes" is what is
/// observed, and the 120 s of terraform/scaling.tf.
pub const QUEUE_METRIC_DELAY_SECONDS: (f64, f64) = (60.0, 120.0);

/// The two metrics of a queue do not become readable together. An assumption; the reason for REPEAT in terraform/scaling.tf.
pub const QUEUE_METRIC_LAG_SECONDS: (f64, f64) = (0.0, 10.0);

/// From the sample of the group's metrics and of the CPU until they can be read. An assumption.
pub const GROUP_METRIC_DELAY_SECONDS: (f64, f64) = (0.0, 60.0);

/// From the launch until the group counts the instance as in service: EC2 reports it as running. An assumption.
pub const IN_SERVICE_SECONDS: (f64, f64) = (20.0, 40.0);

/// From the launch to the first receive. terraform/scaling.tf counts with 75 s, AWS's documentation with 60 to 90 s for launch,
/// boot and download.
pub const BOOT_SECONDS: (f64, f64) = (60.0, 90.0);

/// The worker reads the instance metadata every 5 s (worker/src/lifecycle.rs).
pub const NOTICE_SECONDS: (f64, f64) = (0.0, 5.0);

/// Two minutes: <https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html>.
pub const SPOT_NOTICE_SECONDS: f64 = 120.0;

/// Interruptions of a Spot instance an hour. The Spot advisor's worst class is "more than 20 % a month", which is 0.0003 an
/// hour; a hundred times that, so that some happen.
pub const SPOT_INTERRUPTIONS_PER_HOUR: f64 = 0.03;

/// Spread of model calls: lognormal, p99 at 2.2 times the mean. No distribution was measured.
pub const MODEL_SIGMA: f64 = 0.35;

/// CPU time of a job, in core seconds (docs/benchmarks.md).
pub const CPU_SECONDS_PER_JOB: f64 = 0.1;

/// Cores of a worker: `c6i.large`, the first of `worker_instance_types`.
pub const CORES: usize = 2;

/// Part of a minute's quota of the model that can be used at once. An assumption; AWS says requests a minute only.
pub const QUOTA_BURST_SECONDS: f64 = 10.0;

/// A change of size in the direction opposite to the last one, sooner than this after it, is flapping.
///
/// It stops workers that hardly worked, or starts ones that were just stopped. Longer than `worker_scale_in_minutes`.
pub const FLAP_SECONDS: f64 = 900.0;
