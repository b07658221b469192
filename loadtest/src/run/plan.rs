//! `Plan`: a scenario with everything that the command line changes of it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;
use serde::{Deserialize, Serialize};

use crate::failure::Failure;
use crate::scenario::{RUNNABLE, Scenario, THE_FOUR};
use crate::target::TargetArgs;
use crate::users::{Spread, UserKind};

/// Duration of a scenario with `--quick`: enough for several pictures of each user.
const QUICK_DURATION: Duration = Duration::from_secs(8);
const QUICK_RAMP: Duration = Duration::from_secs(1);
const QUICK_USERS: usize = 6;
const QUICK_PICTURES: usize = 3;
/// With `--quick` users think this many times faster.
const QUICK_HASTE: u32 = 5;
/// Users of the open model for each arrival a second, unless told otherwise: pictures may take this many seconds before
/// arrivals have to wait for a free user.
const POOL_SECONDS: f64 = 60.0;
const MIN_POOL: usize = 10;
const MAX_POOL: usize = 5000;
/// Fewer arrivals a second would be none in most runs; more than this no machine generates.
const RATES: std::ops::RangeInclusive<f64> = 0.01..=10_000.0;

/// What to run, and how.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// What to run, one after the other; `all` is baseline, stress, cache and heavy.
    #[arg(value_name = "SCENARIO", value_parser = RUNNABLE, default_value = "baseline")]
    pub scenarios: Vec<String>,
    /// Virtual users [default: the scenario's; with --rate as many as 60 s of arrivals].
    #[arg(long, value_name = "N", value_parser = users, allow_negative_numbers = true)]
    pub users: Option<usize>,
    /// Open model: arrivals a second, whatever the system does, instead of users who wait for it.
    #[arg(long, value_name = "PER_SECOND", value_parser = rate, allow_negative_numbers = true)]
    pub rate: Option<f64>,
    /// How arrivals of the open model are spread.
    #[arg(long, value_enum, default_value = "poisson", requires = "rate")]
    pub spread: Spread,
    /// How long, such as `90s`, `5m` or `1h 30m` [default: the scenario's].
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub duration: Option<Duration>,
    /// Seconds instead of minutes, with few users in a hurry: whether it works, not how fast it is.
    #[arg(long)]
    pub quick: bool,
    /// Most jobs that are submitted in each scenario, pictures made beforehand included: each costs money on a deployment.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub max_jobs: Option<u64>,
    /// Different pictures that are asked for [default: every job another one].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub distinct: Option<u64>,
    /// File with prompts, one a line.
    #[arg(long, value_name = "FILE")]
    pub prompts: Option<PathBuf>,
    /// File with thresholds.
    #[arg(long, value_name = "FILE")]
    pub thresholds: Option<PathBuf>,
    /// How long jobs under way may take after the end, such as `30s`.
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "60s")]
    pub drain: Duration,
    /// Seed of the arrivals of the open model, of which pictures are looked at and of who polls. What a closed user does next,
    /// and how long it thinks, is chance in any case.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Folder that each report gets a folder in.
    #[arg(long, value_name = "FOLDER", default_value = "loadtest/reports")]
    pub reports: PathBuf,
    /// Name of the report's folder, with one scenario [default: the scenario and the time].
    #[arg(long, value_name = "NAME", value_parser = name)]
    pub name: Option<String>,
    #[command(flatten)]
    pub target: TargetArgs,
}

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    pub scenario: String,
    pub kind: UserKind,
    /// Closed users; in the open model the most that work on arrivals at a time.
    pub users: usize,
    /// Arrivals a second of the open model.
    pub rate: Option<f64>,
    pub spread: Spread,
    #[serde(with = "seconds")]
    pub duration: Duration,
    #[serde(with = "seconds")]
    pub ramp: Duration,
    #[serde(with = "seconds")]
    pub drain: Duration,
    pub pictures: usize,
    /// Think times are divided by this.
    pub haste: u32,
    pub distinct: Option<u64>,
    pub max_jobs: Option<u64>,
    pub seed: u64,
}

impl RunArgs {
    /// Makes a plan of each scenario.
    ///
    /// # Errors
    /// When flags contradict each other.
    pub fn plans(&self) -> Result<Vec<Plan>, Failure> {
        let mut names: Vec<&str> = Vec::new();
        for given in &self.scenarios {
            let expanded = if given == "all" { THE_FOUR.to_vec() } else { vec![given.as_str()] };
            // 'all' and one of the four, or the same twice, is no reason to run it twice.
            for name in expanded {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        if self.name.is_some() && names.len() > 1 {
            return Err(Failure::usage("--name is for one scenario: leave it out, or run one"));
        }
        let known = names.into_iter().filter_map(Scenario::named);
        Ok(known.map(|scenario| self.plan(scenario)).collect())
    }

    fn plan(&self, scenario: &Scenario) -> Plan {
        let quick = self.quick;
        let duration = self.duration.unwrap_or(if quick { QUICK_DURATION } else { scenario.duration });
        let ramp = if quick { QUICK_RAMP } else { scenario.ramp };
        let closed = if quick { scenario.users.min(QUICK_USERS) } else { scenario.users };
        Plan {
            scenario: scenario.name.to_owned(),
            kind: scenario.kind,
            users: self.users.unwrap_or_else(|| self.rate.map_or(closed, pool)),
            rate: self.rate,
            spread: self.spread,
            duration,
            // Whatever the duration, most of it has all users.
            ramp: ramp.min(duration / 4),
            drain: self.drain,
            pictures: if quick { scenario.pictures.min(QUICK_PICTURES) } else { scenario.pictures },
            haste: if quick { QUICK_HASTE } else { 1 },
            distinct: self.distinct,
            max_jobs: self.max_jobs,
            seed: self.seed,
        }
    }
}

/// Returns how many users an open model of this rate needs.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped, and rates are above 0")]
pub fn pool(rate: f64) -> usize {
    ((rate * POOL_SECONDS).ceil() as usize).clamp(MIN_POOL, MAX_POOL)
}

/// Reads a time such as `90s` or `1h 30m`.
///
/// # Errors
/// When it is none, or not between a second and a week.
pub fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no time: write 90s, 5m or 1h");
    let parsed: SignedDuration = text.parse().map_err(|_| wrong())?;
    let parsed = Duration::try_from(parsed).map_err(|_| wrong())?;
    let allowed = Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);
    if allowed.contains(&parsed) { Ok(parsed) } else { Err(format!("{text:?} is not between 1s and 7d")) }
}

/// Reads a rate.
///
/// # Errors
/// When it is no number, or not between 0.01 and 10000.
pub fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is no number of arrivals a second"))?;
    if RATES.contains(&rate) {
        Ok(rate)
    } else {
        Err(format!("{text} is not between {} and {}", RATES.start(), RATES.end()))
    }
}

fn users(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(users @ 1..=MAX_POOL) => Ok(users),
        _ => Err(format!("{text:?} is not between 1 and {MAX_POOL}")),
    }
}

fn name(text: &str) -> Result<String, String> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let good = !text.is_empty() && !text.starts_with('.') && text.chars().all(is_plain);
    if good { Ok(text.to_owned()) } else { Err("use letters, digits, '-', '_' and '.', not first".to_owned()) }
}

/// Durations in reports are seconds.
mod seconds {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(duration.as_secs_f64())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        Duration::try_from_secs_f64(f64::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        run: RunArgs,
    }

    fn plans(line: &str) -> Result<Vec<Plan>, String> {
        let args = std::iter::once("run").chain(line.split_ascii_whitespace());
        let cli = Cli::try_parse_from(args).map_err(|error| error.to_string())?;
        cli.run.plans().map_err(|error| error.to_string())
    }

    fn names(line: &str) -> Vec<String> {
        plans(line).unwrap().into_iter().map(|plan| plan.scenario).collect()
    }

    #[test]
    fn all_is_the_four_and_nothing_runs_twice() {
        assert_eq!(names(""), ["baseline"]);
        assert_eq!(names("all"), THE_FOUR);
        assert_eq!(names("heavy all spike spike"), ["heavy", "baseline", "stress", "cache", "spike"]);
    }

    #[test]
    fn users_rate_and_duration_override_the_scenario() {
        let plan = &plans("stress --users 7 --duration 90s").unwrap()[0];
        assert_eq!((plan.users, plan.duration, plan.rate), (7, Duration::from_secs(90), None));
        assert_eq!(plan.ramp, Duration::from_millis(22_500));
        let plan = &plans("stress --rate 2.5").unwrap()[0];
        assert_eq!((plan.users, plan.rate, plan.duration), (150, Some(2.5), Duration::from_secs(600)));
        let plan = &plans("heavy --quick").unwrap()[0];
        assert_eq!((plan.users, plan.duration, plan.haste), (QUICK_USERS, QUICK_DURATION, QUICK_HASTE));
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_flag() {
        for (line, part) in [
            ("bassline", "bassline"),
            ("--users 0", "--users"),
            ("--rate 0", "--rate"),
            ("--rate nan", "--rate"),
            ("--rate -1", "between 0.01 and"),
            ("--users -1", "between 1 and"),
            ("--duration 5", "--duration"),
            ("--duration 8d", "--duration"),
            ("--duration=-5m", "--duration"),
            ("--spread constant", "--rate"),
            ("--distinct 0", "--distinct"),
            ("--max-jobs 0", "--max-jobs"),
            ("--users 5001", "--users"),
            ("--users=-1", "--users"),
            ("--rate 10001", "--rate"),
            ("--rate 1e300", "--rate"),
            ("--resolve d1", "--resolve"),
            ("--name ../x", "--name"),
            ("all --name x", "--name"),
            ("--dir a --outputs b", "--outputs"),
        ] {
            let error = plans(line).unwrap_err();
            assert!(error.contains(part), "{line}: {error}");
        }
    }
}
