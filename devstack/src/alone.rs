//! One part of the system alone, in the foreground: SQS and S3, Bedrock, `CloudFront`, provisioning, a collector of traces.

use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use service::readiness::Readiness;
use service::{admin, shutdown, telemetry};

use crate::bedrock::{BedrockArgs, BedrockStandIn};
use crate::cdn::{CdnArgs, CdnStandIn};
use crate::cli::{Outcome, init_logs};
use crate::embedded::sqs::SqsOptions;
use crate::embedded::{ACCESS_KEY_ID, EmbeddedS3, EmbeddedSqs, REGION, SECRET_ACCESS_KEY};
use crate::stack::ports::loopback;
use crate::stack::provision::{self, ProvisionArgs};
use crate::stack::{DataDir, Ports};
use crate::traces::{TraceCollector, TracesArgs};

pub(crate) async fn emulator(dir: &Path, ports: Ports) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    let data = DataDir::open(dir)?;
    let sqs_options = SqsOptions { dir: Some(data.path().join("sqs")) };
    let taken =
        |what, flag| move |error| format!("{what} cannot be started ({error}): choose another port with {flag}");
    let sqs = EmbeddedSqs::start(loopback(ports.sqs), sqs_options).await.map_err(taken("SQS", "--sqs-port"))?;
    let s3 = EmbeddedS3::start(loopback(ports.s3), data.path().join("s3")).await.map_err(taken("S3", "--s3-port"))?;
    println!(
        "export AWS_ENDPOINT_URL_SQS={}\nexport AWS_ENDPOINT_URL_S3={}\nexport AWS_REGION={REGION}\n\
         export AWS_ACCESS_KEY_ID={ACCESS_KEY_ID}\nexport AWS_SECRET_ACCESS_KEY={SECRET_ACCESS_KEY}",
        sqs.url(),
        s3.url(),
    );
    signal.cancelled().await;
    s3.stop().await;
    sqs.stop().await;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn bedrock(args: BedrockArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    let standin = BedrockStandIn::start(args.addr, args.options()?).await?;
    println!("export AWS_ENDPOINT_URL_BEDROCK_RUNTIME=http://{}", standin.local_addr());
    println!("export AWS_ENDPOINT_URL_BEDROCK=http://{}", standin.local_addr());
    signal.cancelled().await;
    standin.stop().await;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn provision(args: ProvisionArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    let readiness = Readiness::starting();
    let admin_addr = admin::serve(args.admin_addr, telemetry::install_metrics(&[])?, readiness.clone())?;
    println!("http://{admin_addr}/ready");
    let config = service::aws::load_config().await;
    let sqs = aws_sdk_sqs::config::Builder::from(&config).timeout_config(timeouts()).build();
    provision::keep(&aws_sdk_sqs::Client::from_conf(sqs), &s3(&config), &readiness, &signal).await;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn cdn(args: CdnArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    let config = service::aws::load_config().await;
    let standin = CdnStandIn::start(args.addr, args.options(s3(&config))).await?;
    println!("export CLOUDFRONT_DOMAIN=http://{}", standin.local_addr());
    signal.cancelled().await;
    standin.stop().await;
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn traces(args: TracesArgs) -> Outcome {
    let signal = shutdown::on_signal()?;
    init_logs()?;
    let collector = TraceCollector::listen(args.otlp_addr).await?;
    let query_addr = collector.show(args.query_addr).await?;
    println!("export OTEL_EXPORTER_OTLP_ENDPOINT={}\nhttp://{query_addr}/api/traces/TRACE_ID", collector.endpoint());
    signal.cancelled().await;
    Ok(ExitCode::SUCCESS)
}

/// Returns a client of the S3 that the AWS variables name.
fn s3(config: &aws_config::SdkConfig) -> aws_sdk_s3::Client {
    let settings = aws_sdk_s3::config::Builder::from(config)
        .timeout_config(timeouts())
        .force_path_style(service::aws::s3_needs_path_style(config))
        .build();
    aws_sdk_s3::Client::from_conf(settings)
}

fn timeouts() -> aws_sdk_s3::config::timeout::TimeoutConfig {
    service::aws::timeouts(Duration::from_secs(10), Duration::from_secs(30))
}
