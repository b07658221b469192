//! `loadtest simulate`: the scaling of a Terraform plan under four loads, beside two policies that one would write first.

use std::collections::{BTreeMap, HashMap};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};

pub mod alarm;
pub mod assumptions;
pub mod baseline;
pub mod document;
pub mod expression;
pub mod fleet;
pub mod outcome;
pub mod paper;
pub mod plan;
pub mod plot;
pub mod policy;
pub mod queue;
pub mod report;
pub mod scenario;
pub mod world;

use crate::output;
use baseline::Contender;
use document::Document;
use outcome::Runs;
use plan::ScalingPlan;
use scenario::{PlanKind, Scenario};

const FOLDER: &str = env!("CARGO_MANIFEST_DIR");

#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// Output of `terraform show -json`, of a plan or a state, for every scenario [default: production.json and
    /// million-a-day.json in loadtest/plans].
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
    /// Write what the simulator reads of --plan to this file, and do nothing else.
    #[arg(long, value_name = "FILE", requires = "plan")]
    write_plan: Option<PathBuf>,
    /// Value of a Terraform variable that the plan has otherwise or, being a state, not at all: `worker_slots=4`.
    #[arg(long = "variable", value_name = "NAME=NUMBER", value_parser = variable)]
    variables: Vec<(String, f64)>,
    /// Only this scenario: burst, day, throttled or paper.
    #[arg(long, value_name = "NAME", value_parser = ["burst", "day", "throttled", "paper"])]
    scenario: Option<String>,
    /// Folder of the plots.
    #[arg(long, value_name = "FOLDER", default_value = "docs/scaling")]
    out: PathBuf,
    /// Seed of the first run of each scenario; the others have the next ones.
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// Runs of each scenario [default: 100 of burst, 3 of day, 20 of throttled].
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    runs: Option<u64>,
    /// Interruptions of a Spot instance an hour. A hundred times what AWS reports of its worst class.
    #[arg(long, value_name = "NUMBER", default_value_t = assumptions::SPOT_INTERRUPTIONS_PER_HOUR)]
    spot_interruptions_per_hour: f64,
}

fn variable(text: &str) -> Result<(String, f64), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=NUMBER")?;
    let value = value.parse().map_err(|error| format!("{value:?}: {error}"))?;
    Ok((name.to_owned(), value))
}

/// Runs every scenario with every policy.
///
/// # Errors
/// When a plan cannot be read or a plot not be written. A broken promise is no error but the exit code 1.
pub fn simulate(args: &SimulateArgs) -> Result<ExitCode, Box<dyn Error>> {
    if let (Some(plan), Some(reduced)) = (&args.plan, &args.write_plan) {
        let document = Document::read(plan)?;
        // Refused now rather than when it is read again.
        ScalingPlan::of(&document, &args.variables.iter().cloned().collect())?;
        std::fs::write(reduced, format!("{:#}\n", document.reduced()))
            .map_err(|error| format!("{}: {error}", reduced.display()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let is_chosen = |name: &str| args.scenario.as_deref().is_none_or(|chosen| chosen == name);
    std::fs::create_dir_all(&args.out).map_err(|error| format!("--out {}: {error}", args.out.display()))?;
    let mut plans = HashMap::new();
    let mut broken = Vec::new();
    for scenario in scenario::ALL.into_iter().filter(|scenario| is_chosen(scenario.name)) {
        let plan = match plans.get(&scenario.plan) {
            Some(plan) => plan,
            None => plans.entry(scenario.plan).or_insert(read(args, scenario.plan)?),
        };
        let results = run(args, plan, scenario);
        output::line(format_args!("## {}\n\n{}", scenario.title, report::table(scenario, &results)));
        let path = args.out.join(format!("{}.svg", scenario.name));
        let first: Vec<_> = results.iter().map(|(contender, runs)| (*contender, &runs.outcomes[0])).collect();
        plot::plot(&path, scenario, &first).map_err(|error| format!("{}: {error}", path.display()))?;
        broken.extend(scenario.broken(plan, &results[0].1));
    }
    if is_chosen("paper") {
        output::line(format_args!("## 100,000,000 images a day, on paper\n\n{}", paper::table()));
    }
    for sentence in &broken {
        output::aside(format_args!("broken promise: {sentence}"));
    }
    Ok(if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn read(args: &SimulateArgs, kind: PlanKind) -> Result<ScalingPlan, Box<dyn Error>> {
    let given: BTreeMap<String, f64> = args.variables.iter().cloned().collect();
    let path = args.plan.clone().unwrap_or_else(|| committed(kind));
    Ok(ScalingPlan::of(&Document::read(&path)?, &given)?)
}

/// Path of the plan in the repository.
#[must_use]
pub fn committed(kind: PlanKind) -> PathBuf {
    let name = match kind {
        PlanKind::Production => "production.json",
        PlanKind::MillionADay => "million-a-day.json",
    };
    Path::new(FOLDER).join("plans").join(name)
}

fn run(args: &SimulateArgs, plan: &ScalingPlan, scenario: &Scenario) -> Vec<(Contender, Runs)> {
    let runs = args.runs.unwrap_or(scenario.replications);
    let contenders = u64::try_from(Contender::ALL.len()).unwrap_or(1);
    // Shown on a terminal only.
    let bar = ProgressBar::new(runs * contenders).with_message(scenario.name);
    if let Ok(style) = ProgressStyle::with_template("{msg:10} {bar:40} {pos}/{len} runs") {
        bar.set_style(style);
    }
    let seeds = args.seed..args.seed.saturating_add(runs);
    let spot = args.spot_interruptions_per_hour;
    let results =
        Contender::ALL.map(|contender| (contender, contender.runs(plan, scenario, seeds.clone(), spot, || bar.inc(1))));
    bar.finish_and_clear();
    results.into()
}
