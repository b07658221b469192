# How many workers there are: step scaling on queue depth, from zero and back to zero.
#
# needed = CEIL((visible + inflight) / worker_backlog_per_instance), to grow
# kept   = CEIL((visible + inflight + 1) / (0.75 * worker_slots)), to shrink
#
# Every policy sets an exact capacity, so an alarm that repeats its action while the metrics lag changes nothing. An alarm
# that is about to end cannot undo a start either: while new workers warm up, the group ignores steps downwards.
#
# Out: 120 s until SQS has published the depth, 60 s for one datapoint of one, 15 s until the alarm is evaluated, 75 s from
# launch to the first receive = 270 s, below 5 minutes; simulated over 100 bursts in docs/scaling.md. Target tracking would
# wait for three datapoints of three, 120 s more. CPU is no measure: a worker waits for the model.
#
# In: only after worker_scale_in_minutes datapoints in a row, and what is chosen drains first (worker.tf, the hook).
# Deliveries in flight are counted, and so a worker that is busy is needed and the last one stays while anything is held.
#
# SQS stops publishing metrics of a queue that nobody touched for six hours, and takes up to 15 minutes to begin again: the
# timer image-queue-touch on the API instances (templates/) keeps the queue active, for no worker may be there.

locals {
  # The calls that the quota lets be in flight, and half as many jobs beside them that are read, rendered and written.
  slots_within_quota = max(4, ceil(1.5 * var.model_requests_per_minute * var.model_seconds_per_call / 60))
  worker_max_size    = coalesce(var.worker_max_size, min(500, max(1, floor(local.slots_within_quota / var.worker_slots))))

  # A policy may have 20 steps; larger fleets grow by several workers a step.
  scaling_steps = [for step in range(1, min(local.worker_max_size, 20) + 1) : ceil(step * local.worker_max_size / min(local.worker_max_size, 20))]

  # One step for each size the fleet may have: (size before, size].
  scaling_intervals = [
    for index, size in local.scaling_steps : {
      above = index == 0 ? 0 : local.scaling_steps[index - 1]
      size  = size
      last  = index == length(local.scaling_steps) - 1
    }
  ]

  # Metrics of both scaling alarms. Depth is the maximum of a minute: a sum over several samples would multiply it.
  scaling_metrics = merge(local.queue_metrics, {
    desired = { namespace = "AWS/AutoScaling", name = "GroupDesiredCapacity", dimensions = { AutoScalingGroupName = local.worker_group_name } }
  })

  # What waits and what is in flight: of the one queue, or of both lanes, which queue_sums then adds up under the same ids.
  queue_metrics = merge([for lane, queue in local.lane_queues : {
    "visible${lane}"  = { namespace = "AWS/SQS", name = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = queue } }
    "inflight${lane}" = { namespace = "AWS/SQS", name = "ApproximateNumberOfMessagesNotVisible", dimensions = { QueueName = queue } }
  }]...)
  lane_queues = { for lane, queue in { "" = local.queue_name, "_jobs" = local.queue_name, "_batches" = local.batch_queue_name } : lane => queue if var.batch_lane == (lane != "") }
  queue_sums  = { for id in ["visible", "inflight"] : id => "${id}_jobs + ${id}_batches" if var.batch_lane }

  # What one worker does within the promise. Without a promise 20: 25 s with the default slots and model.
  worker_backlog_promised     = max(var.worker_slots, floor(coalesce(var.picture_within_seconds, 0) * var.worker_slots / var.model_seconds_per_call))
  worker_backlog_per_instance = coalesce(var.worker_backlog_per_instance, var.picture_within_seconds == null ? 20 : local.worker_backlog_promised)

  # No division by the fleet: at zero workers it would give no data and the fleet would never leave zero. REPEAT and not 0:
  # the newest minute often lacks one of the metrics, and a 0 in its place would decide.
  scaling_needed = "CEIL((visible + inflight) / ${local.worker_backlog_per_instance})"
  scaling_fleet  = "FILL(desired, REPEAT)"

  # What has to stay is counted in slots, three quarters of them busy, and never less than one. By the divisor of the way out
  # a fleet that has caught up would be cut below what arrives, for a busy worker holds fewer jobs than
  # worker_backlog_per_instance, and its backlog would start it again: docs/scaling.md.
  scaling_kept = "CEIL((visible + inflight + 1) / ${var.worker_slots * 0.75})"
}

resource "aws_cloudwatch_metric_alarm" "workers_needed" {
  alarm_name          = "${var.name}-workers-needed"
  alarm_description   = "More workers are needed than wanted: sets the size to what the backlog needs."
  comparison_operator = "GreaterThanOrEqualToThreshold"
  threshold           = 1
  evaluation_periods  = 1
  datapoints_to_alarm = 1
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.workers_out.arn]

  dynamic "metric_query" {
    for_each = local.scaling_metrics
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
    for_each = local.queue_sums
    content {
      id          = metric_query.key
      expression  = metric_query.value
      return_data = false
    }
  }

  metric_query {
    id          = "shortfall"
    label       = "workers needed, 0 while there are enough"
    expression  = "IF(${local.scaling_needed} > ${local.scaling_fleet}, ${local.scaling_needed}, 0)"
    return_data = true
  }
}

resource "aws_autoscaling_policy" "workers_out" {
  name                    = "${var.name}-workers-out"
  autoscaling_group_name  = aws_autoscaling_group.worker.name
  policy_type             = "StepScaling"
  adjustment_type         = "ExactCapacity"
  metric_aggregation_type = "Maximum"

  # Bounds are relative to the alarm's threshold of 1, and half way between whole numbers: whichever end of an interval
  # belongs to it, needing n workers is in the interval for n.
  dynamic "step_adjustment" {
    for_each = local.scaling_intervals
    content {
      metric_interval_lower_bound = step_adjustment.key == 0 ? 0 : step_adjustment.value.above - 0.5
      metric_interval_upper_bound = step_adjustment.value.last ? null : step_adjustment.value.size - 0.5
      scaling_adjustment          = step_adjustment.value.size
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "workers_surplus" {
  alarm_name          = "${var.name}-workers-surplus"
  alarm_description   = "Fewer workers were needed than wanted, for minutes: sets the size to what is needed, and leaves one."
  comparison_operator = "LessThanThreshold"
  threshold           = 1000
  evaluation_periods  = var.worker_scale_in_minutes
  datapoints_to_alarm = var.worker_scale_in_minutes
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.workers_in.arn]

  dynamic "metric_query" {
    for_each = local.scaling_metrics
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
    for_each = local.queue_sums
    content {
      id          = metric_query.key
      expression  = metric_query.value
      return_data = false
    }
  }

  metric_query {
    id          = "surplus"
    label       = "workers needed, 1000 while none is to spare"
    expression  = "IF(${local.scaling_kept} < ${local.scaling_fleet}, ${local.scaling_kept}, 1000)"
    return_data = true
  }
}

resource "aws_autoscaling_policy" "workers_in" {
  name                    = "${var.name}-workers-in"
  autoscaling_group_name  = aws_autoscaling_group.worker.name
  policy_type             = "StepScaling"
  adjustment_type         = "ExactCapacity"
  metric_aggregation_type = "Maximum"

  # Bounds are relative to the threshold of 1000. Needing none leaves one: the last goes when the queue was idle, below.
  dynamic "step_adjustment" {
    for_each = local.scaling_intervals
    content {
      metric_interval_lower_bound = step_adjustment.key == 0 ? null : step_adjustment.value.above + 0.5 - 1000
      metric_interval_upper_bound = step_adjustment.value.last ? 0 : step_adjustment.value.size + 0.5 - 1000
      scaling_adjustment          = max(step_adjustment.value.size, var.worker_min_size)
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "queue_idle" {
  alarm_name          = "${var.name}-queue-idle"
  alarm_description   = "Nothing was waiting or in flight, for minutes: sets the size to worker_min_size. In alarm while idle."
  comparison_operator = "LessThanThreshold"
  threshold           = 1
  # Later than workers_surplus, which leaves one: acting in the same minute, the one would start what the other stops.
  evaluation_periods  = var.worker_scale_in_minutes + 5
  datapoints_to_alarm = var.worker_scale_in_minutes + 5
  treat_missing_data  = "notBreaching"
  alarm_actions       = [aws_autoscaling_policy.workers_idle.arn]

  dynamic "metric_query" {
    for_each = { for id, metric in local.scaling_metrics : id => metric if metric.namespace == "AWS/SQS" }
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
    for_each = local.queue_sums
    content {
      id          = metric_query.key
      expression  = metric_query.value
      return_data = false
    }
  }

  metric_query {
    id          = "backlog"
    label       = "jobs waiting and in flight"
    expression  = "visible + inflight"
    return_data = true
  }
}

resource "aws_autoscaling_policy" "workers_idle" {
  name                    = "${var.name}-workers-idle"
  autoscaling_group_name  = aws_autoscaling_group.worker.name
  policy_type             = "StepScaling"
  adjustment_type         = "ExactCapacity"
  metric_aggregation_type = "Maximum"

  step_adjustment {
    metric_interval_upper_bound = 0
    scaling_adjustment          = var.worker_min_size
  }
}

# The API is bound by CPU, so the ordinary policy fits it.
resource "aws_autoscaling_policy" "api" {
  name                   = "${var.name}-api-cpu"
  autoscaling_group_name = aws_autoscaling_group.api.name
  policy_type            = "TargetTrackingScaling"

  target_tracking_configuration {
    target_value = 50

    predefined_metric_specification {
      predefined_metric_type = "ASGAverageCPUUtilization"
    }
  }
}
