# The dashboard: jobs and workers, the model, storage, delivery. A widget shows the region its metrics are published in.

locals {
  sqs         = "AWS/SQS"
  queue       = ["QueueName", local.queue_name]
  dead_letter = ["QueueName", local.dead_letter_name]
  group       = ["AutoScalingGroupName", local.worker_group_name]
  fleet       = ["fleet", "image-worker"]
  s3_requests = ["BucketName", aws_s3_bucket.images.bucket, "FilterId", one(aws_s3_bucket_metric.all[*].name)]
  s3_storage  = ["BucketName", aws_s3_bucket.images.bucket, "StorageType"]
  cloudfront  = ["Region", "Global", "DistributionId", aws_cloudfront_distribution.main.id]
  model       = ["ModelId", var.bedrock_model_id]

  # Three widgets a row, in this order.
  widgets = [
    {
      title = "Jobs in the queue", region = var.region, stat = "Maximum", period = 60
      metrics = concat(
        [
          concat([local.sqs, "ApproximateNumberOfMessagesVisible"], local.queue, [{ label = "waiting" }]),
          concat([local.sqs, "ApproximateNumberOfMessagesNotVisible"], local.queue, [{ label = "in flight" }]),
        ],
        [for queue in aws_sqs_queue.batches : [local.sqs, "ApproximateNumberOfMessagesVisible", "QueueName", queue.name, { label = "batches waiting" }]],
        [for queue in aws_sqs_queue.batches : [local.sqs, "ApproximateNumberOfMessagesNotVisible", "QueueName", queue.name, { label = "batches in flight" }]],
      )
    },
    {
      title = "Age of the oldest job, s", region = var.region, stat = "Maximum", period = 60
      metrics = concat(
        [concat([local.sqs, "ApproximateAgeOfOldestMessage"], local.queue)],
        [for queue in aws_sqs_queue.batches : [local.sqs, "ApproximateAgeOfOldestMessage", "QueueName", queue.name]],
      )
    },
    {
      title   = "Dead-letter queue", region = var.region, stat = "Maximum", period = 60
      metrics = [concat([local.sqs, "ApproximateNumberOfMessagesVisible"], local.dead_letter)]
    },
    {
      title = "Workers", region = var.region, stat = "Maximum", period = 60
      metrics = [
        concat(["AWS/AutoScaling", "GroupDesiredCapacity"], local.group, [{ label = "wanted" }]),
        concat(["AWS/AutoScaling", "GroupInServiceInstances"], local.group, [{ label = "in service" }]),
        concat(["AWS/AutoScaling", "GroupTerminatingInstances"], local.group, [{ label = "draining" }]),
        concat(["AWS/AutoScaling", "GroupMaxSize"], local.group, [{ label = "maximum" }]),
      ]
    },
    {
      title = "Backlog per worker", region = var.region, stat = "Maximum", period = 60
      metrics = concat([for id, metric in local.queue_metrics : concat([metric.namespace, metric.name], flatten([for name, value in metric.dimensions : [name, value]]), [{ id = id, visible = false }])],
        [for id, sum in local.queue_sums : [{ id = id, expression = sum, visible = false }]], [
          concat(["AWS/AutoScaling", "GroupInServiceInstances"], local.group, [{ id = "inservice", visible = false }]),
          [{ id = "backlog", label = "jobs per worker", expression = "IF(inservice > 0, (visible + inflight) / inservice, visible + inflight)" }],
      ])
    },
    {
      title = "Deliveries by outcome", region = var.region, stat = "Sum", period = 300
      metrics = [for outcome in ["published", "failed", "blocked", "expired", "retried", "exhausted", "poison"] :
      concat([local.metric_namespace, "worker_jobs_total"], local.fleet, ["outcome", outcome])]
    },
    {
      title = "Model: latency, ms", region = var.bedrock_region, stat = "Average", period = 300
      metrics = [
        concat(["AWS/Bedrock", "InvocationLatency"], local.model, [{ label = "average" }]),
        concat(["AWS/Bedrock", "InvocationLatency"], local.model, [{ label = "p95", stat = "p95" }]),
      ]
    },
    {
      title = "Model: calls and throttles", region = var.bedrock_region, stat = "Sum", period = 60
      metrics = [
        concat(["AWS/Bedrock", "Invocations"], local.model),
        concat(["AWS/Bedrock", "InvocationThrottles"], local.model),
        concat(["AWS/Bedrock", "InvocationClientErrors"], local.model),
        concat(["AWS/Bedrock", "InvocationServerErrors"], local.model),
      ]
    },
    {
      title = "Circuit open, errors to mend", region = var.region, stat = "Maximum", period = 60
      metrics = concat(
        [concat([local.metric_namespace, "worker_circuit_open"], local.fleet)],
        [for kind in local.misconfigured_kinds : concat([local.metric_namespace, "worker_errors_total"], local.fleet, ["kind", kind, { stat = "Sum" }])],
      )
    },
    {
      title = "Bucket: bytes", region = var.region, stat = "Average", period = 86400
      metrics = [for id, type in local.storage_types :
      concat(["AWS/S3", "BucketSizeBytes"], local.s3_storage, [type])]
    },
    {
      title   = "Bucket: objects", region = var.region, stat = "Average", period = 86400
      metrics = [concat(["AWS/S3", "NumberOfObjects"], local.s3_storage, ["AllStorageTypes"])]
    },
    {
      title = "Bucket: requests", region = var.region, stat = "Sum", period = 300
      metrics = [for metric in ["GetRequests", "PutRequests", "AllRequests"] :
      concat(["AWS/S3", metric], local.s3_requests)]
    },
    {
      title = "Bucket: errors (4xx: polls of queued jobs, lost claims)", region = var.region, stat = "Sum", period = 300
      metrics = [for metric in ["4xxErrors", "5xxErrors"] :
      concat(["AWS/S3", metric], local.s3_requests)]
    },
    {
      title   = "CDN: requests", region = "us-east-1", stat = "Sum", period = 300
      metrics = [concat(["AWS/CloudFront", "Requests"], local.cloudfront)]
    },
    {
      title   = "CDN: cache hit rate, %", region = "us-east-1", stat = "Average", period = 300
      metrics = [concat(["AWS/CloudFront", "CacheHitRate"], local.cloudfront)]
    },
    {
      title = "CDN: error rates, %", region = "us-east-1", stat = "Average", period = 300
      metrics = [for metric in ["4xxErrorRate", "5xxErrorRate"] :
      concat(["AWS/CloudFront", metric], local.cloudfront)]
    },
    {
      title = "API: requests and errors", region = var.region, stat = "Sum", period = 60
      metrics = [for metric in ["RequestCount", "HTTPCode_Target_4XX_Count", "HTTPCode_Target_5XX_Count"] :
      ["AWS/ApplicationELB", metric, "LoadBalancer", aws_lb.api.arn_suffix]]
    },
    {
      title   = "API: p99, s", region = var.region, stat = "p99", period = 60
      metrics = [["AWS/ApplicationELB", "TargetResponseTime", "LoadBalancer", aws_lb.api.arn_suffix]]
    },
  ]
}

resource "aws_cloudwatch_dashboard" "main" {
  dashboard_name = var.name

  dashboard_body = jsonencode({
    widgets = [
      for index, widget in local.widgets : {
        type   = "metric"
        x      = index % 3 * 8
        y      = floor(index / 3) * 6
        width  = 8
        height = 6
        properties = {
          view    = "timeSeries"
          title   = widget.title
          region  = widget.region
          stat    = widget.stat
          period  = widget.period
          metrics = widget.metrics
        }
      }
    ]
  })
}
