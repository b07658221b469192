//! Command line of the Bedrock stand-in.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};

use clap::Args;

use super::fault::Fault;
use super::fault_plan::{FaultPlan, InvalidFaultPlan};
use super::foundation_model::Life;
use super::latency::Latency;
use super::picture::Detail;
use super::quota::QuotaCount;
use super::{BedrockOptions, DEFAULT_CACHE_BYTES};

/// Settings of `cargo dev bedrock`.
#[derive(Debug, Clone, Args)]
pub struct BedrockArgs {
    /// Address to listen on. Port 0 takes a free one.
    #[arg(long, env = "BEDROCK_STANDIN_ADDR", default_value = "127.0.0.1:4801", value_name = "HOST:PORT")]
    pub addr: SocketAddr,
    /// Time from request to answer: `800ms`, `200ms..2s`, or `lognormal:MEDIAN,P99`.
    #[arg(long, env = "BEDROCK_STANDIN_LATENCY", default_value = "lognormal:800ms,2500ms", value_name = "LATENCY")]
    pub latency: Latency,
    /// How much work goes into a picture.
    #[arg(long, env = "BEDROCK_STANDIN_DETAIL", default_value = "full", value_enum)]
    pub detail: Detail,
    /// Enforced quota; more calls get `ThrottlingException`.
    #[arg(long, env = "BEDROCK_STANDIN_REQUESTS_PER_MINUTE", value_name = "N")]
    pub requests_per_minute: Option<NonZeroU32>,
    /// How the quota is counted.
    #[arg(long, default_value = "bucket", value_enum, value_name = "COUNT")]
    pub quota_count: QuotaCount,
    /// Share of calls that get a fault, such as `throttle=0.1`. May be given several times.
    #[arg(long = "fault", value_name = "FAULT=SHARE", value_parser = fault_rate)]
    pub faults: Vec<(Fault, f64)>,
    /// Every call gets this fault until another plan is put to /_standin/faults.
    #[arg(long, value_name = "FAULT", value_enum)]
    pub outage: Option<Fault>,
    /// Bound of the cache of encoded pictures, in bytes.
    #[arg(long, default_value_t = DEFAULT_CACHE_BYTES, value_name = "BYTES")]
    pub cache_bytes: usize,
    /// Pictures painted at the same time.
    #[arg(long, default_value = "1", value_name = "N")]
    pub painters: NonZeroUsize,
}

impl BedrockArgs {
    /// Turns the command line into options.
    ///
    /// # Errors
    /// When the rates cannot hold together.
    pub fn options(&self) -> Result<BedrockOptions, InvalidFaultPlan> {
        let faults = FaultPlan {
            rates: self.faults.iter().copied().collect(),
            latency: None,
            outage: self.outage,
            life: Life::default(),
        };
        faults.validate()?;
        Ok(BedrockOptions {
            latency: self.latency,
            detail: self.detail,
            faults,
            requests_per_minute: self.requests_per_minute,
            quota_count: self.quota_count,
            cache_bytes: self.cache_bytes,
            painters: self.painters,
        })
    }
}

fn fault_rate(text: &str) -> Result<(Fault, f64), String> {
    let (fault, rate) = text.split_once('=').ok_or("expected FAULT=SHARE, such as throttle=0.1")?;
    let fault = fault.parse::<Fault>().map_err(|error| error.to_string())?;
    let rate = rate.parse().map_err(|_| format!("{rate:?} is not a number between 0.0 and 1.0"))?;
    Ok((fault, rate))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        bedrock: BedrockArgs,
    }

    fn parse(args: &[&str]) -> Result<BedrockOptions, String> {
        let cli = Cli::try_parse_from([&["dev"], args].concat()).map_err(|error| error.to_string())?;
        cli.bedrock.options().map_err(|error| error.to_string())
    }

    #[test]
    fn the_command_line_becomes_options() {
        let args = ["--latency=1s", "--detail=cheap", "--fault=throttle=0.1", "--fault=close=0.2", "--outage=retired"];
        let options = parse(&args).unwrap();
        assert_eq!((options.latency, options.detail), (Latency::Fixed { ms: 1000 }, Detail::Cheap));
        assert_eq!(options.faults.rates[&Fault::Throttle], 0.1);
        assert_eq!(options.faults.outage, Some(Fault::Retired));
        assert_eq!(parse(&[]).unwrap().faults, FaultPlan::default());
    }

    #[test]
    fn contradictions_and_unknown_names_are_refused() {
        assert!(parse(&["--fault=throttle=0.9", "--fault=close=0.9"]).unwrap_err().contains("add up to"));
        assert!(parse(&["--fault=nope=0.9"]).unwrap_err().contains("unknown fault"));
        assert!(parse(&["--latency=fast"]).unwrap_err().contains("lognormal:"));
    }
}
