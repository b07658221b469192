//! `Cli`: the commands of `imagectl`, every flag and environment variable of theirs.

use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand, ValueEnum, value_parser};
use job::{JobId, Part};

/// What an operator sees and does: queue, jobs, dead letters, pauses, costs.
///
/// It talks to AWS, or to whatever the AWS SDK's own variables name (`AWS_REGION`, `AWS_ENDPOINT_URL_SQS`,
/// `AWS_ENDPOINT_URL_S3`, ...), and with `--dev-dir` to a running `cargo dev up`.
///
/// Exit codes: 0 done; 1 a service did not do what was asked; 2 there is no such job or dead letter; 64 the command
/// cannot be run as given; 130 interrupted.
#[derive(Debug, Clone, Parser)]
#[command(name = "imagectl", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub target: TargetSettings,
    /// Print JSON instead of tables.
    #[arg(long, global = true)]
    pub json: bool,
    #[command(subcommand)]
    pub command: Command,
}

/// Which pipeline.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Pipeline")]
pub struct TargetSettings {
    /// Data folder of a running `cargo dev up`, usually .dev: the queues and the bucket are read there, whatever else is set.
    #[arg(long, global = true, value_name = "FOLDER")]
    pub dev_dir: Option<PathBuf>,
    /// URL of the job queue.
    #[arg(long, global = true, env = "SQS_QUEUE_URL", value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub sqs_queue_url: Option<String>,
    /// URL of the queue of batches, where the fleet has two lanes.
    #[arg(long, global = true, env = "SQS_BATCH_QUEUE_URL", value_name = "URL")]
    pub sqs_batch_queue_url: Option<String>,
    /// URL of the dead-letter queue [default: what the job queue's redrive policy names].
    #[arg(long, global = true, env = "DEAD_LETTER_QUEUE_URL", value_name = "URL", value_parser = NonEmptyStringValueParser::new())]
    pub dead_letter_queue_url: Option<String>,
    /// Bucket of pictures and records.
    #[arg(long, global = true, env = "S3_BUCKET_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub s3_bucket_name: Option<String>,
    /// Auto Scaling group of the workers: `status` then shows its instances, and the age of the oldest message.
    #[arg(long, global = true, env = "AUTOSCALING_GROUP_NAME", value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    pub autoscaling_group_name: Option<String>,
    /// Who does it, for the audit.
    #[arg(long, global = true, env = "USER", value_name = "NAME", default_value = "unknown")]
    pub by: String,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Shows queue, dead letters, workers and pauses.
    Status(StatusSettings),
    /// Looks at single jobs.
    #[command(subcommand)]
    Job(JobCommand),
    /// Looks at what the queue has given up, and sends it again.
    #[command(subcommand)]
    DeadLetters(LettersCommand),
    /// Stops a part of the pipeline for the whole fleet, with a reason that clients are shown.
    Pause(PauseSettings),
    /// Lets a part of the pipeline go on.
    Resume(ResumeSettings),
    /// Counts what was paid for and what was delivered.
    Cost(CostSettings),
}

#[derive(Debug, Clone, Args)]
pub struct StatusSettings {
    /// Claims are looked for in the records of jobs accepted since so long ago.
    #[arg(long, default_value_t = 60, value_name = "MINUTES", value_parser = value_parser!(u32).range(1..=20_160))]
    pub claims_minutes: u32,
    /// Records read at most.
    #[arg(long, default_value_t = 2000, value_name = "RECORDS", value_parser = value_parser!(u32).range(1..))]
    pub max_records: u32,
}

#[derive(Debug, Clone, Subcommand)]
pub enum JobCommand {
    /// Shows a job across record, objects, dead letters and traces.
    Show(JobSettings),
}

#[derive(Debug, Clone, Args)]
pub struct JobSettings {
    /// The job's id.
    #[arg(value_name = "JOB_ID")]
    pub id: JobId,
    /// Dead letters looked at, at most.
    #[arg(long, default_value_t = 1000, value_name = "LETTERS", value_parser = value_parser!(u32).range(0..))]
    pub max_letters: u32,
}

#[derive(Debug, Clone, Subcommand)]
pub enum LettersCommand {
    /// Lists them with what their records say.
    List(ListSettings),
    /// Shows one. Its prompt is shown too: it is the message itself.
    Show(LetterSettings),
    /// Sends some or all back to the queue that they came from. Each is written down before it moves.
    Redrive(RedriveSettings),
    /// Deletes one that nothing will be made of. It is written down first; the message is gone for good.
    Delete(DeleteSettings),
}

#[derive(Debug, Clone, Args)]
pub struct ListSettings {
    /// Only those whose failure, or last fault, has this code, such as `attempts_exhausted`, `model_failed` or `poison`.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// Looked at, at most.
    #[arg(long, default_value_t = 1000, value_name = "LETTERS", value_parser = value_parser!(u32).range(1..))]
    pub max_letters: u32,
}

#[derive(Debug, Clone, Args)]
pub struct LetterSettings {
    /// Id of the job or of the message.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Looked at, at most.
    #[arg(long, default_value_t = 10_000, value_name = "LETTERS", value_parser = value_parser!(u32).range(1..))]
    pub max_letters: u32,
}

#[derive(Debug, Clone, Args)]
#[command(group = clap::ArgGroup::new("which").required(true).args(["id", "code", "all"]))]
pub struct RedriveSettings {
    /// Id of the job or of the message.
    #[arg(value_name = "ID")]
    pub id: Option<String>,
    /// All whose failure, or last fault, has this code.
    #[arg(long, value_name = "CODE")]
    pub code: Option<String>,
    /// All that are jobs.
    #[arg(long)]
    pub all: bool,
    /// At most so many a second: what the model's quota has to spare.
    #[arg(long, default_value_t = 5, value_name = "A_SECOND", value_parser = value_parser!(u32).range(1..=500))]
    pub rate: u32,
    /// At most so many in all; the rest stays.
    #[arg(long, default_value_t = 10_000, value_name = "LETTERS", value_parser = value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Say what would be sent, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Clone, Args)]
pub struct DeleteSettings {
    /// Id of the job or of the message.
    #[arg(value_name = "ID")]
    pub id: String,
    /// Why, for the audit.
    #[arg(long, value_name = "SENTENCE", value_parser = NonEmptyStringValueParser::new())]
    pub reason: String,
    /// Though it may be a job that has not ended.
    #[arg(long)]
    pub force: bool,
    /// Looked at, at most.
    #[arg(long, default_value_t = 10_000, value_name = "LETTERS", value_parser = value_parser!(u32).range(1..))]
    pub max_letters: u32,
}

/// What can be paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Which {
    /// The API accepts no new jobs: 503 with the reason. Jobs that are in are done.
    Intake,
    /// Workers receive nothing more and finish what they have. New jobs are accepted and wait.
    Generation,
    /// Both.
    All,
}

impl Which {
    /// Returns the parts that are meant.
    pub fn parts(self) -> &'static [Part] {
        match self {
            Self::Intake => &[Part::Intake],
            Self::Generation => &[Part::Generation],
            Self::All => &Part::ALL,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub struct PauseSettings {
    /// What to stop.
    #[arg(value_enum, value_name = "PART")]
    pub which: Which,
    /// Why, in a sentence that clients may read.
    #[arg(long, value_name = "SENTENCE")]
    pub reason: String,
}

#[derive(Debug, Clone, Args)]
pub struct ResumeSettings {
    /// What to let go on.
    #[arg(value_enum, value_name = "PART")]
    pub which: Which,
}

#[derive(Debug, Clone, Args)]
pub struct CostSettings {
    /// Jobs whose records were last written since so long ago.
    #[arg(long, default_value_t = 24, value_name = "HOURS", value_parser = value_parser!(u32).range(1..))]
    pub hours: u32,
    /// Records read at most; the report says whether there were more.
    #[arg(long, default_value_t = 20_000, value_name = "RECORDS", value_parser = value_parser!(u32).range(1..))]
    pub max_records: u32,
    /// Keys listed at most; the report says whether there were more.
    #[arg(long, default_value_t = 1_000_000, value_name = "KEYS", value_parser = value_parser!(u32).range(1..))]
    pub max_keys: u32,
    /// What a call of the model costs (docs/cost.md), to have the report in money as well.
    #[arg(long, value_name = "USD", value_parser = price)]
    pub usd_per_call: Option<f64>,
}

fn price(text: &str) -> Result<f64, String> {
    let price: f64 = text.parse().map_err(|_| "expected a number such as 0.04".to_owned())?;
    if price.is_finite() && price >= 0.0 { Ok(price) } else { Err("expected a price of 0 or more".to_owned()) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parsed(line: &str) -> Result<Cli, String> {
        Cli::try_parse_from(line.split(' ')).map_err(|error| error.to_string())
    }

    #[test]
    fn the_commands_are_in_order() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_redrive_says_which_and_only_once() {
        assert!(parsed("imagectl dead-letters redrive --all --rate 20").is_ok());
        assert!(parsed("imagectl dead-letters redrive --code model_failed").is_ok());
        assert!(parsed("imagectl dead-letters redrive message-1").is_ok());
        for line in ["redrive", "redrive --all --code x", "redrive id --all", "redrive --all --rate 0"] {
            assert!(parsed(&format!("imagectl dead-letters {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn a_pause_needs_a_reason() {
        assert!(parsed("imagectl pause intake").unwrap_err().contains("--reason"));
        let Command::Pause(pause) = parsed("imagectl pause all --reason maintenance --json").unwrap().command else {
            panic!("another command")
        };
        assert_eq!((pause.which.parts(), pause.reason.as_str()), (&Part::ALL[..], "maintenance"));
    }

    #[test]
    fn a_bad_id_is_named() {
        let error = parsed("imagectl job show 42").unwrap_err();
        assert!(error.contains("not a job id"), "{error}");
    }
}
