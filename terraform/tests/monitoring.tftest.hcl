# Alarms and dashboard look where the metrics are, and say something.

mock_provider "aws" {
  source = "./tests/mocks"
}

mock_provider "aws" {
  alias  = "us_east_1"
  source = "./tests/mocks_us_east_1"
}

# Ephemeral resources cannot be mocked. With generate_secrets = false this provider is configured and never called.
provider "aws" {
  alias                       = "ephemeral"
  region                      = "ap-south-1"
  access_key                  = "test"
  secret_key                  = "test"
  skip_credentials_validation = true
  skip_requesting_account_id  = true
  skip_metadata_api_check     = true
}

override_resource {
  target = aws_sqs_queue.jobs_dead_letter
  values = {
    arn = "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-jobs-dead-letter"
    id  = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-jobs-dead-letter"
    url = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-jobs-dead-letter"
  }
}

override_resource {
  target = aws_secretsmanager_secret.job_id_keys
  values = { arn = "arn:aws:secretsmanager:ap-south-1:111111111111:secret:job-id-keys" }
}

variables {
  generate_secrets     = false
  artifact_bucket_name = "releases-bucket"
  release_version      = "1.2.3"
  api_sha256           = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  worker_sha256        = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
  alarm_emails         = ["ops@example.com"]
}

run "alarms" {
  # ---- CloudFront

  assert {
    condition     = alltrue([for alarm in [aws_cloudwatch_metric_alarm.cache_hit_rate, aws_cloudwatch_metric_alarm.cloudfront_errors] : strcontains(alarm.arn, ":us-east-1:")]) && length([for alarm in aws_cloudwatch_metric_alarm.metric : alarm if alarm.namespace == "AWS/CloudFront"]) == 0
    error_message = "cloudfront_alarms_in_us_east_1: elsewhere they stay in INSUFFICIENT_DATA for ever."
  }

  assert {
    condition     = alltrue([for alarm in [aws_cloudwatch_metric_alarm.cache_hit_rate, aws_cloudwatch_metric_alarm.cloudfront_errors] : alltrue([for action in alarm.alarm_actions : strcontains(action, ":us-east-1:")]) && length(alarm.alarm_actions) == 1])
    error_message = "topic_in_us_east_1: an alarm there cannot notify a topic here."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.cloudfront_errors.dimensions == tomap({ DistributionId = "EDIST", Region = "Global" }) && alltrue(flatten([for query in aws_cloudwatch_metric_alarm.cache_hit_rate.metric_query : [for metric in query.metric : metric.dimensions == tomap({ DistributionId = "EDIST", Region = "Global" })]]))
    error_message = "cloudfront_dimensions: DistributionId and Region=Global, both."
  }

  assert {
    condition     = aws_cloudfront_monitoring_subscription.main.distribution_id == "EDIST" && one(one(aws_cloudfront_monitoring_subscription.main.monitoring_subscription).realtime_metrics_subscription_config).realtime_metrics_subscription_status == "Enabled"
    error_message = "monitoring_subscription: CacheHitRate does not exist without it."
  }

  assert {
    condition     = anytrue([for query in aws_cloudwatch_metric_alarm.cache_hit_rate.metric_query : query.expression == "IF(requests >= 1000, hits, 100)" && query.return_data == true]) && aws_cloudwatch_metric_alarm.cache_hit_rate.threshold == 70 && aws_cloudwatch_metric_alarm.cache_hit_rate.comparison_operator == "LessThanThreshold"
    error_message = "hit_rate_is_gated: a rate of few requests is noise."
  }

  # ---- S3

  assert {
    condition     = alltrue([for alarm in aws_cloudwatch_metric_alarm.metric : alarm.dimensions == tomap({ BucketName = "images-bucket", FilterId = aws_s3_bucket_metric.all.name }) if alarm.namespace == "AWS/S3"]) && aws_s3_bucket_metric.all.bucket == "images-bucket" && length([for alarm in aws_cloudwatch_metric_alarm.metric : alarm if alarm.namespace == "AWS/S3"]) == 1
    error_message = "s3_request_metrics: they exist with a bucket metric only, and carry its name as FilterId."
  }

  assert {
    condition     = length([for alarm in aws_cloudwatch_metric_alarm.metric : alarm if alarm.metric_name == "4xxErrors"]) == 0 && aws_cloudwatch_metric_alarm.metric["s3-errors"].metric_name == "5xxErrors"
    error_message = "no_alarm_on_4xx: each poll of a queued job is a 404, so it would ring always."
  }

  assert {
    condition     = alltrue(flatten([for query in aws_cloudwatch_metric_alarm.bucket_size.metric_query : [for metric in query.metric : metric.period == 86400 && keys(metric.dimensions) == tolist(["BucketName", "StorageType"])]])) && toset(flatten([for query in aws_cloudwatch_metric_alarm.bucket_size.metric_query : [for metric in query.metric : metric.dimensions.StorageType]])) == toset(["StandardStorage", "StandardIAStorage", "GlacierInstantRetrievalStorage"]) && aws_cloudwatch_metric_alarm.bucket_size.threshold == 80000000000
    error_message = "bucket_size_is_daily: a period of a day, every storage class of the lifecycle, 80 GB of 10^9 bytes."
  }

  assert {
    condition     = [for query in aws_cloudwatch_metric_alarm.bucket_size.metric_query : query.expression if query.return_data == true] == ["standard + FILL(ia, 0) + FILL(glacier, 0)"]
    error_message = "bucket_size_is_a_sum: a class that holds nothing has no data and would leave the sum without any."
  }

  assert {
    # A kind that docs/operations.md has, and not one that a human has to mend.
    condition     = toset(flatten([for query in aws_cloudwatch_metric_alarm.upload_failures.metric_query : [for metric in query.metric : "${metric.metric_name} ${try("kind=${metric.dimensions.kind}", "outcome=${metric.dimensions.outcome}")}"]])) == toset(["worker_errors_total kind=store_unavailable", "worker_jobs_total outcome=published"]) && can(regex("(?m)^\\| `store_unavailable` \\| transient", file("${path.root}/../docs/operations.md"))) && [for query in aws_cloudwatch_metric_alarm.upload_failures.metric_query : query.expression if query.return_data == true] == ["IF(failed + published >= 20, 100 * failed / (failed + published), 0)"]
    error_message = "upload_failure_kind: the kind of docs/operations.md; with a name that nothing publishes the alarm never rings."
  }

  assert {
    condition     = anytrue([for query in aws_cloudwatch_metric_alarm.upload_failures.metric_query : try(strcontains(query.expression, "IF(failed + published >= 20"), false)]) && aws_cloudwatch_metric_alarm.upload_failures.threshold == 5
    error_message = "upload_failures: S3 has no such metric, the workers have; gated."
  }

  # ---- queue and fleet

  assert {
    condition     = aws_cloudwatch_metric_alarm.metric["dead-letter-queue-not-empty"].metric_name == "ApproximateNumberOfMessagesVisible" && aws_cloudwatch_metric_alarm.metric["dead-letter-queue-not-empty"].dimensions == tomap({ QueueName = "image-pipeline-jobs-dead-letter" }) && aws_cloudwatch_metric_alarm.metric["dead-letter-queue-not-empty"].threshold == 0
    error_message = "dead_letter_alarm: on what is visible in it; NumberOfMessagesSent does not count what SQS moves there."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.metric["oldest-message"].threshold == 600 && aws_cloudwatch_metric_alarm.metric["oldest-message"].dimensions == tomap({ QueueName = "image-pipeline-jobs" }) && aws_cloudwatch_metric_alarm.metric["circuit-open"].metric_name == "worker_circuit_open" && aws_cloudwatch_metric_alarm.metric["circuit-open"].threshold == 0 && aws_cloudwatch_metric_alarm.metric["circuit-open"].statistic == "Maximum" && [for query in aws_cloudwatch_metric_alarm.fleet_at_maximum.metric_query : query.expression if query.return_data == true] == ["IF(inservice >= 3 AND visible > 0, 1, 0)"]
    error_message = "operations_alarms: oldest message, circuit open, fleet at its maximum."
  }

  assert {
    # The kinds that docs/operations.md calls misconfigured, and no other.
    condition     = toset(flatten([for query in aws_cloudwatch_metric_alarm.misconfigured.metric_query : [for metric in query.metric : metric.dimensions.kind]])) == toset(flatten(regexall("(?m)^\\| `([a-z_]+)` \\| misconfigured \\|", file("${path.root}/../docs/operations.md"))))
    error_message = "misconfigured_kinds: each kind that a human has to mend, as docs/operations.md lists them."
  }

  # ---- API

  assert {
    condition     = aws_cloudwatch_metric_alarm.metric["api-down"].metric_name == "HealthyHostCount" && aws_cloudwatch_metric_alarm.metric["api-down"].threshold == 1 && aws_cloudwatch_metric_alarm.metric["api-down"].comparison_operator == "LessThanThreshold" && aws_cloudwatch_metric_alarm.metric["api-down"].statistic == "Maximum" && aws_cloudwatch_metric_alarm.metric["api-down"].evaluation_periods == 3 && aws_cloudwatch_metric_alarm.metric["api-down"].treat_missing_data == "breaching"
    error_message = "api_down: no healthy instance, or none at all; a dead API is not unhealthy, and answers nothing that could be an error."
  }

  assert {
    condition     = keys(aws_cloudwatch_metric_alarm.metric["load-balancer-errors"].dimensions) == tolist(["LoadBalancer"]) && alltrue([for name in ["api-down", "api-unhealthy", "api-errors"] : keys(aws_cloudwatch_metric_alarm.metric[name].dimensions) == tolist(["LoadBalancer", "TargetGroup"])])
    error_message = "load_balancer_dimensions: its own errors belong to no target group."
  }

  assert {
    # As AWS spells them: a metric that nobody publishes is an alarm that never rings, and nothing else checks the name.
    condition     = toset([for alarm in aws_cloudwatch_metric_alarm.metric : "${alarm.namespace} ${alarm.metric_name}" if startswith(alarm.namespace, "AWS/")]) == toset(["AWS/ApplicationELB HTTPCode_ELB_5XX_Count", "AWS/ApplicationELB HTTPCode_Target_5XX_Count", "AWS/ApplicationELB HealthyHostCount", "AWS/ApplicationELB UnHealthyHostCount", "AWS/S3 5xxErrors", "AWS/SQS ApproximateAgeOfOldestMessage", "AWS/SQS ApproximateNumberOfMessagesVisible"])
    error_message = "names_of_aws: as AWS spells them."
  }

  # ---- they reach somebody

  assert {
    condition     = alltrue([for alarm in concat(values(aws_cloudwatch_metric_alarm.metric), [aws_cloudwatch_metric_alarm.misconfigured, aws_cloudwatch_metric_alarm.upload_failures, aws_cloudwatch_metric_alarm.fleet_at_maximum, aws_cloudwatch_metric_alarm.bucket_size]) : alarm.alarm_actions == toset(["arn:aws:sns:ap-south-1:111111111111:alarms"]) && alarm.treat_missing_data == (endswith(alarm.alarm_name, "-api-down") ? "breaching" : "notBreaching")])
    error_message = "alarms_notify: every alarm has the topic of its region; no data is no alarm, but for an API that is gone."
  }

  assert {
    condition     = [for subscription in aws_sns_topic_subscription.email : subscription.topic_arn] == ["arn:aws:sns:ap-south-1:111111111111:alarms"] && [for subscription in aws_sns_topic_subscription.email_us_east_1 : subscription.topic_arn] == ["arn:aws:sns:us-east-1:111111111111:alarms"] && aws_sns_topic_subscription.email["ops@example.com"].protocol == "email"
    error_message = "subscriptions: each address on both topics; a topic without one goes nowhere."
  }
}

run "dashboard" {
  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : widget.properties.region == "us-east-1" if anytrue([for metric in widget.properties.metrics : try(metric[0] == "AWS/CloudFront", false)])]) && length([for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : widget if widget.properties.region == "us-east-1"]) == 3
    error_message = "cloudfront_widgets: a widget of CloudFront elsewhere is empty."
  }

  assert {
    condition     = alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : widget.properties.region == "us-west-2" if anytrue([for metric in widget.properties.metrics : try(metric[0] == "AWS/Bedrock", false)])])
    error_message = "model_widgets: Bedrock publishes in the region of the model."
  }

  assert {
    condition = alltrue([for wanted in [
      "AWS/S3/BucketSizeBytes", "AWS/S3/NumberOfObjects", "AWS/S3/GetRequests", "AWS/S3/PutRequests", "AWS/S3/AllRequests", "AWS/S3/4xxErrors", "AWS/S3/5xxErrors",
      "AWS/CloudFront/Requests", "AWS/CloudFront/CacheHitRate", "AWS/CloudFront/4xxErrorRate", "AWS/CloudFront/5xxErrorRate",
      "AWS/SQS/ApproximateNumberOfMessagesVisible", "AWS/SQS/ApproximateAgeOfOldestMessage", "AWS/Bedrock/InvocationLatency", "AWS/Bedrock/InvocationThrottles",
    ] : contains(flatten([for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : [for metric in widget.properties.metrics : try("${metric[0]}/${metric[1]}", "")]]), wanted)])
    error_message = "widgets: those of the seed, and queue depth, age, model latency and throttles."
  }

  assert {
    condition     = anytrue([for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : strcontains(jsonencode(widget.properties.metrics), "(visible + inflight) / inservice, visible + inflight)")]) && alltrue([for widget in jsondecode(aws_cloudwatch_dashboard.main.dashboard_body).widgets : widget.properties.period == 86400 if strcontains(widget.properties.title, "Bucket: bytes") || strcontains(widget.properties.title, "Bucket: objects")])
    error_message = "backlog_per_worker: guarded at zero workers; the daily metrics of the bucket with a period of a day."
  }
}

run "an_alarm_that_reaches_nobody" {
  command = plan

  variables {
    alarm_emails = []
  }

  expect_failures = [check.alarms_reach_somebody]
}
