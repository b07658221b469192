//! `image-worker`: reads the settings, makes the clients, runs the worker, exits when it has drained.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use job::Pause;
use service::following::Followed;
use service::readiness::Readiness;
use service::settings::{give_up, refuse};
use service::{admin, aws, health, shutdown, telemetry};
use tokio_util::sync::CancellationToken;
use worker::app::{Ports, Worker, system_clock};
use worker::generate::bedrock::{self, BedrockGenerator};
use worker::generate::{BedrockRegister, Generator, OpenAiGenerator, StabilityModel};
use worker::lane::{BatchLane, Entrance};
use worker::lifecycle::{InstanceMetadata, TerminationHook};
use worker::metrics;
use worker::model_life::{ModelRegister, READ_EVERY, Standing};
use worker::queue::{JobQueue, SqsQueue};
use worker::quota::TimetableStore;
use worker::reconcile;
use worker::settings::{ModelFallback, ModelSource, Settings};
use worker::store::{ObjectStore, S3Store, read_pauses};

/// Buffers of megabytes come and go with every picture. glibc gives them back to the kernel, and being given zeroed pages
/// again was 45 % of the CPU outside rendering: see docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How often the pauses are read: 17,280 reads a day and process, 0.007 USD.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// A start does not wait longer for the first of them: without it, the worker works.
const FIRST_LOOK: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    if let Some(code) = health::asked(std::env::args_os()).or_else(|| reconcile::asked(std::env::args_os())) {
        return code;
    }
    let settings = match Settings::try_parse() {
        Ok(settings) => settings,
        Err(error) if error.use_stderr() => return refuse(&error.render()),
        Err(help) => help.exit(),
    };
    if let Err(contradiction) = settings.validate() {
        return refuse(&contradiction);
    }
    if let Err(unknown) = StabilityModel::for_id(&settings.bedrock_model_id) {
        return refuse(&format!("BEDROCK_MODEL_ID: {unknown}"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return give_up(&error),
    };
    let version = env!("CARGO_PKG_VERSION");
    let traces = match telemetry::init(&settings.observe, "image-worker", version, runtime.handle()) {
        Ok(traces) => traces,
        Err(error) => return refuse(&error),
    };
    let stopped = runtime.block_on(run(settings));
    if let Some(traces) = traces {
        traces.flush();
    }
    match stopped {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => give_up(&error),
    }
}

async fn run(settings: Settings) -> Result<(), Box<dyn std::error::Error>> {
    let stopping = shutdown::on_signal()?;
    let readiness = Readiness::starting();
    let recorder = telemetry::install_metrics(&metrics::BUCKETS)?;
    metrics::describe();
    let admin_addr = admin::serve(settings.observe.admin_addr, recorder, readiness.clone())?;

    let config = aws::load_config().await;
    let from_bedrock = settings.model_source == ModelSource::Bedrock;
    let openai = |used_by| -> Result<Arc<dyn Generator>, Box<dyn std::error::Error>> {
        Ok(Arc::new(OpenAiGenerator::new(settings.openai.source(used_by)?, settings.model_timeout())))
    };
    let generator: Arc<dyn Generator> = if from_bedrock {
        let client = bedrock::client(&config, &settings.bedrock_region, settings.model_timeout());
        let (model_id, format) = (settings.bedrock_model_id.clone(), settings.bedrock_output_format);
        Arc::new(BedrockGenerator::new(client, model_id, format)?)
    } else {
        openai("MODEL_SOURCE")?
    };
    let fallback = match settings.model_fallback {
        ModelFallback::None => None,
        ModelFallback::OpenAi => Some(openai("MODEL_FALLBACK")?),
    };
    let (model, fallback_model) =
        (generator.model_id().to_owned(), fallback.as_ref().map(|other| other.model_id().to_owned()));
    let wait = Duration::from_secs(settings.receive_wait_seconds);
    let store = Arc::new(S3Store::new(&config, settings.s3_bucket_name.clone()));
    let pause = Followed::default();
    let batch = settings.lanes.batch_queue_url().map(|url| {
        let queue = Arc::new(SqsQueue::new(&config, url.to_owned(), wait, settings.lease()));
        BatchLane { queue: Arc::clone(&queue) as Arc<dyn JobQueue>, entrance: queue }
    });
    let notices = settings
        .webhook_queue_url()
        .map(|url| Arc::new(SqsQueue::new(&config, url.to_owned(), wait, settings.lease())) as Arc<dyn Entrance>);
    let ports = Ports {
        batch,
        notices,
        queue: Arc::new(SqsQueue::new(&config, settings.sqs_queue_url.clone(), wait, settings.lease())),
        store: Arc::clone(&store) as Arc<dyn ObjectStore>,
        generator,
        fallback,
        pause: pause.clone(),
        timetable: Some(Arc::clone(&store) as Arc<dyn TimetableStore>),
        clock: system_clock(),
    };
    let worker = Worker::new(&settings, ports, readiness.clone(), stopping.clone());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %admin_addr, slots = settings.worker_slots,
        cpu_threads = settings.threads(), model, fallback_model,
        model_requests_per_minute = settings.model_requests_per_minute, "worker started");

    let metadata = settings.lifecycle.ec2_lifecycle.then(InstanceMetadata::default);
    let ended_early = match &metadata {
        Some(metadata) => metadata.in_service(&stopping).await,
        None => false,
    };
    let read = async || read_pauses(store.as_ref()).await.map(|pauses| pauses.generation);
    // A process that is started during a pause must not begin with a receive.
    if let Ok(Ok(found)) = tokio::time::timeout(FIRST_LOOK, read()).await
        && pause.set(found.clone())
    {
        told(&found);
    }
    let register = if from_bedrock {
        BedrockRegister::new(&config, &settings.bedrock_region, &settings.bedrock_model_id)?
    } else {
        None
    };
    let life = async {
        match &register {
            Some(register) => follow_the_model(register, &settings.bedrock_model_id, &worker, &stopping).await,
            None => tracing::info!("the model is not in Amazon's list: its life is not looked up"),
        }
    };
    readiness.clear("starting");
    let (drained, instance_ends, (), ()) = tokio::join!(
        worker.run(),
        watch(metadata.as_ref(), &stopping),
        pause.follow("the pause of generation", LOOK_EVERY, &stopping, read, told),
        life
    );
    tracing::info!(?drained, "worker stopped");

    // After any other stop, a deploy's above all, no hook waits: the group would refuse.
    if (ended_early || instance_ends)
        && let (Some(metadata), Some(hook)) = (&metadata, hook(&settings))
        && let Err(error) = hook.complete(&config, metadata).await
    {
        tracing::error!(%error, "termination hook could not be completed, the group waits for its time-out");
    }
    Ok(())
}

/// Reads where the model is in its life, at once and every hour.
async fn follow_the_model(register: &dyn ModelRegister, model_id: &str, worker: &Worker, stopping: &CancellationToken) {
    let standing = Followed::<Option<Standing>>::default();
    let circuit = worker.model_circuit();
    let read = async || register.life().await.map(|life| Some(life.at(system_clock()())));
    let changed = |standing: &Option<Standing>| {
        if let Some(standing) = standing {
            standing.tell(model_id, &circuit);
        }
    };
    standing.follow("the life of the model", READ_EVERY, stopping, read, changed).await;
}

/// Tells the log and the metrics of a pause that has begun or ended.
fn told(pause: &Option<Pause>) {
    metrics::paused(pause.is_some());
    match pause {
        Some(pause) => tracing::warn!(reason = pause.reason, by = pause.by, since = %pause.since,
            "generation is paused: receiving nothing, finishing what is in hand"),
        None => tracing::info!("generation goes on"),
    }
}

async fn watch(metadata: Option<&InstanceMetadata>, stopping: &CancellationToken) -> bool {
    match metadata {
        Some(metadata) => metadata.watch(stopping).await,
        None => false,
    }
}

fn hook(settings: &Settings) -> Option<TerminationHook> {
    let lifecycle = &settings.lifecycle;
    let (group, hook) = lifecycle.autoscaling_group_name.clone().zip(lifecycle.lifecycle_hook_name.clone())?;
    Some(TerminationHook { group, hook })
}
