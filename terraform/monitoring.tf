# Alarms, and the topics they go to. Those of CloudFront live in us-east-1, with a topic of their own there.

resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:names and numbers of alarms; the key of SNS itself would keep CloudWatch from publishing
  name = "${var.name}-alarms"
}

resource "aws_sns_topic" "alarms_us_east_1" {
  #checkov:skip=CKV_AWS_26:as above
  provider = aws.us_east_1

  name = "${var.name}-alarms"
}

resource "aws_sns_topic_subscription" "email" {
  for_each = var.alarm_emails

  topic_arn = aws_sns_topic.alarms.arn
  protocol  = "email"
  endpoint  = each.value
}

resource "aws_sns_topic_subscription" "email_us_east_1" {
  for_each = var.alarm_emails
  provider = aws.us_east_1

  topic_arn = aws_sns_topic.alarms_us_east_1.arn
  protocol  = "email"
  endpoint  = each.value
}

check "alarms_reach_somebody" {
  assert {
    condition     = length(var.alarm_emails) > 0
    error_message = "alarm_emails is empty: alarms go to a topic that nobody reads. Set it, or subscribe to the outputs sns_topic_arn and sns_topic_arn_us_east_1."
  }
}

locals {
  queue_dimensions       = { QueueName = local.queue_name }
  dead_letter_dimensions = { QueueName = local.dead_letter_name }
  worker_fleet           = { fleet = "image-worker" }
  misconfigured_kinds    = concat(["access_denied", "bucket_not_found", "credentials_unavailable", "model_not_found", "model_retired", "model_settings_refused"], var.webhooks_enabled ? ["webhook_queue_refused"] : [])

  # Alarms on one metric. What is missing breaks no threshold: no worker, no request. But no API is never right.
  metric_alarms = merge(local.lane_alarms, local.webhook_alarms, {
    dead-letter-queue-not-empty = {
      # Not NumberOfMessagesSent, which does not count what SQS moves there.
      description = "A job ran out of attempts, or a message is no job: docs/operations.md, redrive the dead-letter queue."
      namespace   = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", dimensions = local.dead_letter_dimensions
      statistic   = "Maximum", period = 60, periods = 1, operator = "GreaterThanThreshold", threshold = 0
    }
    oldest-message = {
      description = "Jobs wait for more than ${coalesce(var.picture_within_seconds, 600)} s: too few workers, throttling, or an open circuit."
      namespace   = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", dimensions = local.queue_dimensions
      statistic   = "Maximum", period = 60, periods = 5, operator = "GreaterThanThreshold", threshold = coalesce(var.picture_within_seconds, 600)
    }
    circuit-open = {
      description = "A worker has stopped receiving because its environment is at fault: docs/operations.md, circuit open."
      namespace   = local.metric_namespace, metric = "worker_circuit_open", dimensions = local.worker_fleet
      statistic   = "Maximum", period = 60, periods = 2, operator = "GreaterThanThreshold", threshold = 0
    }
    api-unhealthy = {
      description = "An API instance does not answer /ready."
      namespace   = "AWS/ApplicationELB", metric = "UnHealthyHostCount", dimensions = local.target_group_dimensions
      statistic   = "Maximum", period = 60, periods = 5, operator = "GreaterThanThreshold", threshold = 0
    }
    api-down = {
      # Not 'api-unhealthy': where nothing is registered, nothing is unhealthy, and there is no data at all.
      description = "No API instance serves; also for some minutes after the first apply. A boot that fails: aws ec2 get-console-output."
      namespace   = "AWS/ApplicationELB", metric = "HealthyHostCount", dimensions = local.target_group_dimensions
      statistic   = "Maximum", period = 60, periods = 3, operator = "LessThanThreshold", threshold = 1, missing = "breaching"
    }
    load-balancer-errors = {
      # With LoadBalancer alone: these answers come from no target group.
      description = "The load balancer itself answers 5xx: no API instance takes the request, or it ends the connection."
      namespace   = "AWS/ApplicationELB", metric = "HTTPCode_ELB_5XX_Count", dimensions = { LoadBalancer = aws_lb.api.arn_suffix }
      statistic   = "Sum", period = 60, periods = 3, operator = "GreaterThanThreshold", threshold = 5
    }
    api-errors = {
      description = "The API answers 5xx: queue, bucket, permissions, or a bug. The log line 'request failed' has the cause."
      namespace   = "AWS/ApplicationELB", metric = "HTTPCode_Target_5XX_Count", dimensions = local.target_group_dimensions
      statistic   = "Sum", period = 60, periods = 3, operator = "GreaterThanThreshold", threshold = 5
    }
    s3-errors = {
      # The seed's 4xx would ring always: each poll of a queued job is a 404 and each lost claim a 412. What a 4xx can mean
      # for an operator, access denied and no such bucket, is in the alarm 'misconfigured'.
      description = "S3 answered more than ten requests in five minutes with 5xx."
      namespace   = "AWS/S3", metric = "5xxErrors", dimensions = { BucketName = aws_s3_bucket.images.bucket, FilterId = one(aws_s3_bucket_metric.all[*].name) }
      statistic   = "Sum", period = 300, periods = 1, operator = "GreaterThanThreshold", threshold = 10
    }
  })

  # Nobody sits and waits for a batch, and the model's quota may make a thousand jobs take an hour.
  lane_alarms = { for queue in [local.batch_queue_name] : "oldest-batch" => {
    description = "Jobs of batches wait for more than four hours: too few workers, throttling, or an open circuit."
    namespace   = "AWS/SQS", metric = "ApproximateAgeOfOldestMessage", dimensions = { QueueName = queue }
    statistic   = "Maximum", period = 60, periods = 5, operator = "GreaterThanThreshold", threshold = 14400
  } if var.batch_lane }

  target_group_dimensions = { LoadBalancer = aws_lb.api.arn_suffix, TargetGroup = aws_lb_target_group.api.arn_suffix }
}

resource "aws_cloudwatch_metric_alarm" "metric" {
  for_each = local.metric_alarms

  alarm_name          = "${var.name}-${each.key}"
  alarm_description   = each.value.description
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  period              = each.value.period
  evaluation_periods  = each.value.periods
  datapoints_to_alarm = each.value.periods
  comparison_operator = each.value.operator
  threshold           = each.value.threshold
  treat_missing_data  = try(each.value.missing, "notBreaching")
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]
}

# The errors that a human has to mend, added up.
resource "aws_cloudwatch_metric_alarm" "misconfigured" {
  alarm_name          = "${var.name}-misconfigured"
  alarm_description   = "Access denied, no such bucket or model, or no credentials: docs/operations.md, error kinds."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 0
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  dynamic "metric_query" {
    for_each = local.misconfigured_kinds
    content {
      id          = metric_query.value
      return_data = false
      metric {
        namespace   = local.metric_namespace
        metric_name = "worker_errors_total"
        dimensions  = merge(local.worker_fleet, { kind = metric_query.value })
        stat        = "Sum"
        period      = 300
      }
    }
  }

  metric_query {
    id          = "errors"
    label       = "errors that a human has to mend"
    expression  = "SUM(METRICS())"
    return_data = true
  }
}

# S3 knows no failed upload; the workers do. Gated, so that one failure of three at night is no alarm.
resource "aws_cloudwatch_metric_alarm" "upload_failures" {
  alarm_name          = "${var.name}-upload-failures"
  alarm_description   = "More than 5 % of the attempts to store a picture or record failed, of 20 or more in 15 minutes. When the circuit opens first there are no more attempts: see circuit-open."
  comparison_operator = "GreaterThanThreshold"
  threshold           = 5
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "failed"
    return_data = false
    metric {
      namespace   = local.metric_namespace
      metric_name = "worker_errors_total"
      dimensions  = merge(local.worker_fleet, { kind = "store_unavailable" })
      stat        = "Sum"
      period      = 900
    }
  }

  metric_query {
    id          = "published"
    return_data = false
    metric {
      namespace   = local.metric_namespace
      metric_name = "worker_jobs_total"
      dimensions  = merge(local.worker_fleet, { outcome = "published" })
      stat        = "Sum"
      period      = 900
    }
  }

  metric_query {
    id          = "rate"
    label       = "% of uploads that failed"
    expression  = "IF(failed + published >= 20, 100 * failed / (failed + published), 0)"
    return_data = true
  }
}

resource "aws_cloudwatch_metric_alarm" "fleet_at_maximum" {
  alarm_name          = "${var.name}-fleet-at-maximum"
  alarm_description   = "All workers have been running for 15 minutes and jobs still wait: raise the model's quota, then model_requests_per_minute."
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  evaluation_periods  = 15
  datapoints_to_alarm = 15
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  metric_query {
    id          = "inservice"
    return_data = false
    metric {
      namespace   = "AWS/AutoScaling"
      metric_name = "GroupInServiceInstances"
      dimensions  = { AutoScalingGroupName = local.worker_group_name }
      stat        = "Minimum"
      period      = 60
    }
  }

  dynamic "metric_query" {
    for_each = { for id, metric in local.queue_metrics : id => metric if startswith(id, "visible") }
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = metric_query.value.namespace
        metric_name = metric_query.value.name
        dimensions  = metric_query.value.dimensions
        stat        = "Maximum"
        period      = 60
      }
    }
  }

  dynamic "metric_query" {
    for_each = { for id, sum in local.queue_sums : id => sum if id == "visible" }
    content {
      id          = metric_query.key
      expression  = metric_query.value
      return_data = false
    }
  }

  metric_query {
    id          = "stuck"
    label       = "1 while the whole fleet runs and jobs wait"
    expression  = "IF(inservice >= ${local.worker_max_size} AND visible > 0, 1, 0)"
    return_data = true
  }
}

# The size is published once a day, for each storage class by itself; a class that holds nothing has no data, so it is filled.
# STANDARD is always there and not filled: without it there is no sum of that day.
resource "aws_cloudwatch_metric_alarm" "bucket_size" {
  alarm_name          = "${var.name}-bucket-size"
  alarm_description   = "The bucket is larger than ${var.bucket_size_alarm_gb} GB, noncurrent versions and sources included. Published once a day."
  comparison_operator = "GreaterThanThreshold"
  threshold           = var.bucket_size_alarm_gb * 1000000000
  evaluation_periods  = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms.arn]
  ok_actions          = [aws_sns_topic.alarms.arn]

  dynamic "metric_query" {
    for_each = local.storage_types
    content {
      id          = metric_query.key
      return_data = false
      metric {
        namespace   = "AWS/S3"
        metric_name = "BucketSizeBytes"
        dimensions  = { BucketName = aws_s3_bucket.images.bucket, StorageType = metric_query.value }
        stat        = "Average"
        period      = 86400
      }
    }
  }

  metric_query {
    id          = "total"
    label       = "bytes in all storage classes"
    expression  = "standard + FILL(ia, 0) + FILL(glacier, 0)"
    return_data = true
  }
}

locals {
  storage_types = {
    standard = "StandardStorage"
    ia       = "StandardIAStorage"
    glacier  = "GlacierInstantRetrievalStorage"
  }

  # Every metric of CloudFront has both.
  cloudfront_dimensions = { DistributionId = aws_cloudfront_distribution.main.id, Region = "Global" }
}

# Gated by the number of requests: the first view of each picture at each edge is a miss, so few requests say nothing.
resource "aws_cloudwatch_metric_alarm" "cache_hit_rate" {
  provider = aws.us_east_1

  alarm_name          = "${var.name}-cache-hit-rate"
  alarm_description   = "Less than 70 % of the requests of an hour were answered by the cache, of 1000 or more. Polls of the API count as requests and are never hits."
  comparison_operator = "LessThanThreshold"
  threshold           = 70
  evaluation_periods  = 2
  datapoints_to_alarm = 2
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms_us_east_1.arn]
  ok_actions          = [aws_sns_topic.alarms_us_east_1.arn]

  metric_query {
    id          = "requests"
    return_data = false
    metric {
      namespace   = "AWS/CloudFront"
      metric_name = "Requests"
      dimensions  = local.cloudfront_dimensions
      stat        = "Sum"
      period      = 3600
    }
  }

  # Published by the monitoring subscription only (cdn.tf).
  metric_query {
    id          = "hits"
    return_data = false
    metric {
      namespace   = "AWS/CloudFront"
      metric_name = "CacheHitRate"
      dimensions  = local.cloudfront_dimensions
      stat        = "Average"
      period      = 3600
    }
  }

  metric_query {
    id          = "gated"
    label       = "% of requests answered by the cache"
    expression  = "IF(requests >= 1000, hits, 100)"
    return_data = true
  }

  depends_on = [aws_cloudfront_monitoring_subscription.main]
}

resource "aws_cloudwatch_metric_alarm" "cloudfront_errors" {
  provider = aws.us_east_1

  alarm_name          = "${var.name}-cloudfront-5xx"
  alarm_description   = "More than 5 % of the requests of clients ended with 5xx, for 15 minutes."
  namespace           = "AWS/CloudFront"
  metric_name         = "5xxErrorRate"
  dimensions          = local.cloudfront_dimensions
  statistic           = "Average"
  period              = 300
  evaluation_periods  = 3
  datapoints_to_alarm = 3
  comparison_operator = "GreaterThanThreshold"
  threshold           = 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_sns_topic.alarms_us_east_1.arn]
  ok_actions          = [aws_sns_topic.alarms_us_east_1.arn]
}
