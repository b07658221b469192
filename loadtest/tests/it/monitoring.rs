//! The monitor against the local stack and against emulators of AWS.

use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{ComparisonOperator, Dimension, MetricDatum, StateValue, Statistic};
use aws_sdk_sqs::config::{BehaviorVersion, Credentials, Region};
use devstack::ministack::Ministack;
use devstack::moto::Moto;
use loadtest::target::Outputs;
use loadtest::watch::{AlarmLook, CdnLook, GroupLook, Look, RequestsLook};

use crate::live::{Live, loadtest, printed, said, workspace};

const REGION: &str = "ap-south-1";

#[tokio::test(flavor = "multi_thread")]
async fn the_local_stack_is_seen_through_its_admin_ports_and_its_queue() {
    let live = Live::start().await;
    let output = live.command("monitor --once --json").output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let look: Look = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(look.gaps, Vec::<String>::new());
    assert_eq!((look.queue.visible, look.queue.in_flight, look.queue.dead_letters), (Some(0), Some(0), Some(0)));
    let group = GroupLook { desired: Some(2), in_service: Some(2), healthy: Some(2) };
    assert_eq!(look.group, group);
    assert_eq!((look.slots.busy, look.slots.all), (Some(0), Some(32)));
    // Differences of two looks: nothing was asked for in between.
    assert_eq!(look.cdn, CdnLook { requests: Some(0.0), hit_percent: None });
    let names: Vec<&str> = look.processes.iter().map(|process| process.name.as_str()).collect();
    assert_eq!(names, ["loadtest", "stand-ins", "api", "worker-1", "worker-2"]);
    assert!(!look.alarms.is_empty() && look.alarms.iter().all(|alarm| alarm.state == "OK"), "{:?}", look.alarms);

    let output = live.command("monitor --once").output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("Queue") && text.contains("circuit-open"), "{text}");
    let picture = live.file("monitor.svg", "");
    let output = live.command(&format!("monitor --once --svg {picture}")).output().await.unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let svg = std::fs::read_to_string(picture).unwrap();
    assert!(
        svg.starts_with("<svg") && svg.contains("Storage\u{a0}and\u{a0}CDN") && svg.contains("circuit-open"),
        "{svg}"
    );
    // Without a terminal and without --once there is nothing to draw on.
    let output = live.command("monitor").output().await.unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    assert!(said(&output).contains("--once"));
    live.stop().await;
}

/// What Terraform would have made, and `CloudWatch` published.
pub(crate) struct Site {
    sqs: aws_sdk_sqs::Client,
    pub(crate) groups: aws_sdk_autoscaling::Client,
    here: aws_sdk_cloudwatch::Client,
    cdn: aws_sdk_cloudwatch::Client,
}

impl Site {
    pub(crate) fn new(endpoint: &str, metrics_endpoint: &str) -> Self {
        let credentials = Credentials::new("test", "test", None, None, "the emulators");
        let config = |region: &'static str, endpoint: &str| {
            aws_config::SdkConfig::builder()
                .behavior_version(BehaviorVersion::latest())
                .region(Region::new(region))
                .endpoint_url(endpoint)
                .credentials_provider(aws_sdk_sqs::config::SharedCredentialsProvider::new(credentials.clone()))
                .build()
        };
        let here = config(REGION, endpoint);
        Self {
            sqs: aws_sdk_sqs::Client::new(&here),
            groups: aws_sdk_autoscaling::Client::new(&here),
            here: aws_sdk_cloudwatch::Client::new(&config(REGION, metrics_endpoint)),
            cdn: aws_sdk_cloudwatch::Client::new(&config("us-east-1", metrics_endpoint)),
        }
    }

    async fn queue(&self, name: &str, messages: usize) -> String {
        let url = self.sqs.create_queue().queue_name(name).send().await.unwrap().queue_url.unwrap();
        for _ in 0..messages {
            self.sqs.send_message().queue_url(&url).message_body("a job").send().await.unwrap();
        }
        url
    }

    pub(crate) async fn group(&self, name: &str, size: i32) {
        let configuration = self.groups.create_launch_configuration().launch_configuration_name("workers");
        configuration.image_id("ami-12c6146b").instance_type("c7g.large").send().await.unwrap();
        let group = self.groups.create_auto_scaling_group().auto_scaling_group_name(name);
        let group = group.launch_configuration_name("workers").availability_zones(format!("{REGION}a"));
        group.min_size(0).max_size(5).desired_capacity(size).send().await.unwrap();
    }
}

async fn publish(
    client: &aws_sdk_cloudwatch::Client,
    namespace: &str,
    name: &str,
    dimensions: &[(&str, &str)],
    value: f64,
) {
    let dimensions = dimensions.iter().map(|(name, value)| Dimension::builder().name(*name).value(*value).build());
    let minute_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
    let datum = MetricDatum::builder().metric_name(name).value(value).timestamp(DateTime::from(minute_ago));
    let datum = datum.set_dimensions(Some(dimensions.collect())).build();
    client.put_metric_data().namespace(namespace).metric_data(datum).send().await.unwrap();
}

async fn alarm(client: &aws_sdk_cloudwatch::Client, name: &str, action: &str, state: StateValue) {
    let alarm = client.put_metric_alarm().alarm_name(name).namespace("AWS/SQS").metric_name("x").period(60);
    let alarm = alarm.alarm_actions(action);
    let alarm = alarm.statistic(Statistic::Sum).evaluation_periods(1).threshold(1.0);
    alarm.comparison_operator(ComparisonOperator::GreaterThanThreshold).send().await.unwrap();
    client.set_alarm_state().alarm_name(name).state_value(state).state_reason("a test").send().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_seen_through_the_apis_of_aws() {
    // The SDK speaks CBOR with CloudWatch, which moto 5.2.5 does not understand; MiniStack has no instances in its groups.
    let tools = workspace().join(".dev");
    let moto = Moto::start(&tools, 0).await.unwrap();
    let ministack = Ministack::start_with_metrics(&tools, 0).await.unwrap();
    let site = Site::new(moto.url(), ministack.url());
    let (queue_url, dead_letter_url) = (site.queue("image-jobs", 3).await, site.queue("image-jobs-dead", 1).await);
    site.sqs.receive_message().queue_url(&queue_url).send().await.unwrap();
    site.group("image-worker", 2).await;
    publish(&site.here, "AWS/SQS", "ApproximateAgeOfOldestMessage", &[("QueueName", "image-jobs")], 42.0).await;
    publish(&site.here, "AWS/EC2", "CPUUtilization", &[("AutoScalingGroupName", "image-worker")], 61.5).await;
    let bucket = [("BucketName", "pictures"), ("FilterId", "all")];
    for (name, value) in [("AllRequests", 900.0), ("4xxErrors", 3.0), ("5xxErrors", 1.0)] {
        publish(&site.here, "AWS/S3", name, &bucket, value).await;
    }
    let distribution = [("Region", "Global"), ("DistributionId", "E1")];
    publish(&site.cdn, "AWS/CloudFront", "Requests", &distribution, 5000.0).await;
    publish(&site.cdn, "AWS/CloudFront", "CacheHitRate", &distribution, 88.0).await;
    let topic = |region: &str, name: &str| format!("arn:aws:sns:{region}:000000000000:{name}-alarms");
    let policy = |group: &str| {
        format!("arn:aws:autoscaling:{REGION}:000000000000:scalingPolicy:u:autoScalingGroupName/{group}:policyName/out")
    };
    alarm(&site.here, "image-oldest-message", &topic(REGION, "image"), StateValue::Alarm).await;
    alarm(&site.here, "image-workers-needed", &policy("image-worker"), StateValue::Ok).await;
    alarm(&site.cdn, "image-cache-hit-rate", &topic("us-east-1", "image"), StateValue::Ok).await;
    // Those of other deployments, one of them with a name that begins like this one's.
    alarm(&site.here, "another-service", &topic(REGION, "another"), StateValue::Alarm).await;
    alarm(&site.here, "image-staging-oldest-message", &topic(REGION, "image-staging"), StateValue::Alarm).await;
    alarm(&site.here, "image-staging-workers-needed", &policy("image-staging-worker"), StateValue::Alarm).await;

    let dir = tempfile::tempdir().unwrap();
    let outputs = dir.path().join("outputs.json");
    let deployment = Outputs {
        batch_queue_url: None,
        cloudfront_url: "https://pictures.example.com".to_owned(),
        cloudfront_domain_name: "d1.cloudfront.net".to_owned(),
        cloudfront_distribution_id: "E1".to_owned(),
        s3_bucket_name: "pictures".to_owned(),
        s3_bucket_region: REGION.to_owned(),
        queue_url,
        dead_letter_queue_url: dead_letter_url,
        worker_group_name: "image-worker".to_owned(),
        api_group_name: "image-api".to_owned(),
        cloudwatch_dashboard_name: "image".to_owned(),
        sns_topic_arn: topic(REGION, "image"),
        sns_topic_arn_us_east_1: topic("us-east-1", "image"),
    };
    std::fs::write(&outputs, printed(&deployment)).unwrap();

    let mut command = loadtest("monitor --once --json --outputs");
    let output = command
        .arg(&outputs)
        .env("AWS_ENDPOINT_URL", moto.url())
        .env("AWS_ENDPOINT_URL_CLOUDWATCH", ministack.url())
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let look: Look = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(look.gaps, Vec::<String>::new());
    assert_eq!(look.target, "deployed");
    assert_eq!((look.queue.visible, look.queue.in_flight, look.queue.dead_letters), (Some(2), Some(1), Some(1)));
    assert_eq!((look.queue.age_seconds, look.worker_cpu_percent), (Some(42.0), Some(61.5)));
    assert_eq!(look.group, GroupLook { desired: Some(2), in_service: Some(2), healthy: Some(2) });
    assert_eq!(look.storage, RequestsLook { requests: Some(900.0), errors: Some(1.0), refusals: Some(3.0) });
    assert_eq!(look.cdn, CdnLook { requests: Some(5000.0), hit_percent: Some(88.0) });
    let named = |name: &str, state: &str| AlarmLook { name: name.to_owned(), state: state.to_owned() };
    let ours = [named("oldest-message", "ALARM"), named("workers-needed", "OK"), named("cache-hit-rate", "OK")];
    assert_eq!(look.alarms, ours);
    moto.stop().await.unwrap();
    ministack.stop().await.unwrap();
}

#[tokio::test]
async fn a_deployment_that_does_not_answer_is_told_and_not_hidden() {
    let dir = tempfile::tempdir().unwrap();
    let outputs = dir.path().join("outputs.json");
    let everywhere = || "https://d1.cloudfront.net".to_owned();
    let deployment = Outputs {
        batch_queue_url: None,
        cloudfront_url: everywhere(),
        cloudfront_domain_name: everywhere(),
        cloudfront_distribution_id: everywhere(),
        s3_bucket_name: everywhere(),
        s3_bucket_region: everywhere(),
        queue_url: everywhere(),
        dead_letter_queue_url: everywhere(),
        worker_group_name: everywhere(),
        api_group_name: everywhere(),
        cloudwatch_dashboard_name: everywhere(),
        sns_topic_arn: everywhere(),
        sns_topic_arn_us_east_1: everywhere(),
    };
    std::fs::write(&outputs, printed(&deployment)).unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut command = loadtest("monitor --once --outputs");
    let output = command
        .arg(&outputs)
        .env("AWS_ENDPOINT_URL", format!("http://127.0.0.1:{port}"))
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .output()
        .await
        .unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("nothing of it answers"), "{text}");
    for what in ["queue", "Auto Scaling group", "metrics", "alarms"] {
        assert!(text.contains(&format!("not seen: {what}")), "{text}");
    }
}
