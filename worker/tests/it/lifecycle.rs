//! An EC2 instance on its way out: instance metadata and termination hook, with the real binary.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::support::{Site, WorkerProcess, when};

const TOKEN: &str = "token-of-the-test";
const TOKEN_HEADER: &str = "x-aws-ec2-metadata-token";
const TTL_HEADER: &str = "x-aws-ec2-metadata-token-ttl-seconds";
const TARGET_STATE: &str = "autoscaling/target-lifecycle-state";
const SPOT_ACTION: &str = "spot/instance-action";
const INSTANCE_ID: &str = "i-0123456789abcdef0";
const COMPLETED: &str = "<CompleteLifecycleActionResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\">\
    <CompleteLifecycleActionResult/><ResponseMetadata><RequestId>1</RequestId></ResponseMetadata>\
    </CompleteLifecycleActionResponse>";
const REFUSED: &str = "<ErrorResponse xmlns=\"http://autoscaling.amazonaws.com/doc/2011-01-01/\"><Error>\
    <Type>Sender</Type><Code>ValidationError</Code><Message>No active Lifecycle Action found</Message></Error>\
    <RequestId>1</RequestId></ErrorResponse>";

/// The metadata service (`IMDSv2`) of an instance, and the Auto Scaling API, at one address.
struct Instance {
    addr: SocketAddr,
    shared: Arc<Mutex<Shared>>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    metadata: HashMap<&'static str, String>,
    reads: HashMap<String, usize>,
    actions: Vec<HashMap<String, String>>,
    refusing: bool,
}

impl Instance {
    async fn start() -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let router = Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/meta-data/{*path}", get(metadata))
            .route("/", post(complete))
            .with_state(shared.clone());
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        let instance = Self { addr, shared, _serving: serving };
        instance.set("instance-id", INSTANCE_ID);
        instance
    }

    fn set(&self, path: &'static str, value: &str) {
        self.shared.lock().unwrap().metadata.insert(path, value.to_owned());
    }

    fn reads(&self, path: &str) -> usize {
        self.shared.lock().unwrap().reads.get(path).copied().unwrap_or_default()
    }

    /// Returns the calls of `CompleteLifecycleAction`.
    fn actions(&self) -> Vec<HashMap<String, String>> {
        self.shared.lock().unwrap().actions.clone()
    }

    async fn worker(&self, site: &Site, extra: &[(&str, &str)]) -> WorkerProcess {
        let url = format!("http://{}", self.addr);
        let own = [
            ("EC2_LIFECYCLE", "true"),
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url),
            ("AWS_ENDPOINT_URL_AUTO_SCALING", &url),
        ];
        WorkerProcess::start(site, &[&own, extra].concat()).await
    }
}

const HOOK: [(&str, &str); 2] = [("AUTOSCALING_GROUP_NAME", "image-workers"), ("LIFECYCLE_HOOK_NAME", "drain")];

async fn token(headers: HeaderMap) -> Response {
    match headers.get(TTL_HEADER) {
        Some(ttl) => ([(TTL_HEADER, ttl.clone())], TOKEN).into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn metadata(
    State(shared): State<Arc<Mutex<Shared>>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Result<String, StatusCode> {
    if headers.get(TOKEN_HEADER).is_none_or(|token| token != TOKEN) {
        return Err(StatusCode::UNAUTHORIZED);
    }
    let mut shared = shared.lock().unwrap();
    let value = shared.metadata.get(path.as_str()).cloned().ok_or(StatusCode::NOT_FOUND);
    *shared.reads.entry(path).or_default() += 1;
    value
}

async fn complete(State(shared): State<Arc<Mutex<Shared>>>, body: String) -> Response {
    let pairs = body.split('&').filter_map(|pair| pair.split_once('='));
    let action = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let mut shared = shared.lock().unwrap();
    shared.actions.push(action);
    let (status, xml) = if shared.refusing { (StatusCode::BAD_REQUEST, REFUSED) } else { (StatusCode::OK, COMPLETED) };
    (status, [(header::CONTENT_TYPE, "text/xml")], xml).into_response()
}

#[tokio::test]
async fn an_instance_in_a_warm_pool_receives_nothing_until_it_is_in_service() {
    let (site, instance) = (Site::start().await, Instance::start().await);
    instance.set(TARGET_STATE, "Warmed:Running");
    let job = site.submit("a red fox").await;
    let mut worker = instance.worker(&site, &HOOK).await;
    when("two polls", async || (instance.reads(TARGET_STATE) >= 2).then_some(())).await;
    assert!(worker.reasons().await.contains_key("starting"));
    let metrics = worker.admin("/metrics").await;
    let mut receives = metrics.lines().filter(|line| line.starts_with("worker_receives_total{"));
    assert!(receives.all(|line| line.ends_with(" 0")), "it has received: {metrics}");
    assert_eq!(site.backlog().await, (1, 0));

    instance.set(TARGET_STATE, "InService");
    site.succeeded(&job).await;
    worker.ready().await;
    // A stop that is not the group's, a deploy's for example, is none of the hook's business.
    worker.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
    assert_eq!(instance.actions(), []);
    assert!(!worker.has_logged("termination hook"));
}

#[tokio::test]
async fn an_instance_that_ends_in_the_warm_pool_lets_the_group_go_on() {
    let (site, instance) = (Site::start().await, Instance::start().await);
    instance.set(TARGET_STATE, "Warmed:Stopped");
    let job = site.submit("a red fox").await;
    let mut worker = instance.worker(&site, &HOOK).await;
    worker.logged("in a warm pool").await;
    instance.set(TARGET_STATE, "Warmed:Terminated");
    assert_eq!(worker.exit_code().await, Some(0));
    assert_eq!(instance.actions().len(), 1);
    assert!(site.record(&job).await.is_none());
    assert_eq!(site.backlog().await, (1, 0));
}

#[tokio::test]
async fn an_instance_that_goes_back_to_the_warm_pool_stops_receiving_and_lets_the_group_go_on() {
    let (site, instance) = (Site::start().await, Instance::start().await);
    instance.set(TARGET_STATE, "InService");
    let mut worker = instance.worker(&site, &HOOK).await;
    let job = site.submit("a red fox").await;
    site.succeeded(&job).await;
    when("the watch", async || (instance.reads(TARGET_STATE) >= 2).then_some(())).await;
    instance.set(TARGET_STATE, "Warmed:Hibernated");
    assert_eq!(worker.exit_code().await, Some(0));
    assert_eq!(instance.actions().len(), 1);
    let late = site.submit("too late").await;
    assert!(site.record(&late).await.is_none());
}

#[tokio::test]
async fn an_instance_that_is_terminated_finishes_first_and_then_lets_the_group_go_on() {
    let (site, instance) = (Site::start().await, Instance::start().await);
    instance.set(TARGET_STATE, "InService");
    let mut worker = instance.worker(&site, &HOOK).await;
    // Longer than the polls are apart: it is in flight when the state changes and when the drain begins.
    let under_way = site.submit("a red fox [[latency:12s]]").await;
    site.model_calls(1).await;
    instance.set(TARGET_STATE, "Terminated");
    worker.blocked_by("stopping").await;
    let late = site.submit("too late").await;
    assert_eq!(instance.actions(), [], "completed before the drain");

    assert_eq!(worker.exit_code().await, Some(0));
    assert!(site.record(&under_way).await.is_some_and(|record| record.image.is_some()));
    assert!(site.record(&late).await.is_none());
    assert_eq!(site.backlog().await, (1, 0));
    let [action] = &instance.actions()[..] else { panic!("{:?}", instance.actions()) };
    for (name, value) in [
        ("Action", "CompleteLifecycleAction"),
        ("AutoScalingGroupName", "image-workers"),
        ("LifecycleHookName", "drain"),
        ("InstanceId", INSTANCE_ID),
        ("LifecycleActionResult", "CONTINUE"),
    ] {
        assert_eq!(action.get(name).map(String::as_str), Some(value), "{action:?}");
    }
}

#[tokio::test]
async fn a_refused_completion_is_told_and_does_not_fail_the_exit() {
    let (site, instance) = (Site::start().await, Instance::start().await);
    instance.shared.lock().unwrap().refusing = true;
    let mut worker = instance.worker(&site, &HOOK).await;
    worker.ready().await;
    instance.set(TARGET_STATE, "Terminated");
    assert_eq!(worker.exit_code().await, Some(0));
    let line = worker.logged("termination hook could not be completed").await;
    assert!(line["error"].as_str().unwrap().contains("No active Lifecycle Action found"), "{line}");
}

#[tokio::test]
async fn a_spot_notice_stops_the_worker() {
    let (site, instance) = (Site::start().await, Instance::start().await);
    // The group has not set a target state: the metadata service answers 404, and that is no reason to wait or stop.
    let mut worker = instance.worker(&site, &[]).await;
    let job = site.submit("a red fox").await;
    site.succeeded(&job).await;
    instance.set(SPOT_ACTION, r#"{"action": "terminate", "time": "2026-11-24T12:00:00Z"}"#);
    assert_eq!(worker.exit_code().await, Some(0));
    let line = worker.logged("the instance is going to end").await;
    assert!(line["reason"].as_str().unwrap().contains("Spot"), "{line}");
    assert_eq!(instance.actions(), [], "there is no hook");
}

#[tokio::test]
async fn without_a_metadata_service_it_works_on() {
    let site = Site::start().await;
    // A port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let extra = [("EC2_LIFECYCLE", "true"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url.as_str())];
    let mut worker = WorkerProcess::start(&site, &extra).await;
    worker.logged("instance metadata cannot be read").await;
    let job = site.submit("a red fox").await;
    site.succeeded(&job).await;
    worker.ready().await;
    worker.terminate();
    assert_eq!(worker.exit_code().await, Some(0));
}
