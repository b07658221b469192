# Workers are scaled on queue depth, from zero and to zero, out in less than five minutes.

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
  target = aws_autoscaling_policy.workers_out
  values = { arn = "arn:aws:autoscaling:ap-south-1:111111111111:scalingPolicy:uuid:autoScalingGroupName/g:policyName/out" }
}

override_resource {
  target = aws_autoscaling_policy.workers_in
  values = { arn = "arn:aws:autoscaling:ap-south-1:111111111111:scalingPolicy:uuid:autoScalingGroupName/g:policyName/in" }
}

override_resource {
  target = aws_autoscaling_policy.workers_idle
  values = { arn = "arn:aws:autoscaling:ap-south-1:111111111111:scalingPolicy:uuid:autoScalingGroupName/g:policyName/idle" }
}

variables {
  generate_secrets     = false
  artifact_bucket_name = "releases-bucket"
  release_version      = "1.2.3"
  api_sha256           = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
  worker_sha256        = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
  alarm_emails         = ["ops@example.com"]
}

run "scaling" {
  # ---- what is measured

  assert {
    condition     = alltrue([for policy in [aws_autoscaling_policy.workers_out, aws_autoscaling_policy.workers_in, aws_autoscaling_policy.workers_idle] : policy.policy_type == "StepScaling" && length(policy.target_tracking_configuration) == 0])
    error_message = "cpu_never_fires: workers wait for the model, so their CPU says nothing; and target tracking needs three datapoints of three, which is more than five minutes."
  }

  assert {
    condition     = alltrue([for alarm in [aws_cloudwatch_metric_alarm.workers_needed, aws_cloudwatch_metric_alarm.workers_surplus] : toset(flatten([for query in alarm.metric_query : query.metric[*].metric_name])) == toset(["ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible", "GroupDesiredCapacity"])])
    error_message = "busy_workers_count: the backlog must be visible + in flight: without what is in flight, busy workers look idle."
  }

  assert {
    condition     = alltrue([for query in flatten([for alarm in [aws_cloudwatch_metric_alarm.workers_needed, aws_cloudwatch_metric_alarm.workers_surplus, aws_cloudwatch_metric_alarm.queue_idle, aws_cloudwatch_metric_alarm.fleet_at_maximum] : [for query in alarm.metric_query : query.metric]]) : query.period == 60 && query.stat != "Sum"])
    error_message = "sixty_seconds: metrics of SQS and of the group are one a minute: a shorter period lapses into INSUFFICIENT_DATA, a longer one is late, and a sum multiplies."
  }

  assert {
    condition     = alltrue([for alarm in [aws_cloudwatch_metric_alarm.workers_needed, aws_cloudwatch_metric_alarm.workers_surplus, aws_cloudwatch_metric_alarm.queue_idle] : length([for query in alarm.metric_query : query if query.return_data == true]) == 1 && alltrue([for query in alarm.metric_query : can(regex("^[a-z][a-zA-Z0-9_]*$", query.id)) && (query.expression == null || query.expression == "") != (length(query.metric) == 0)])])
    error_message = "metric_math_form: exactly one returned query, ids that begin in lower case, and either an expression or a metric: 'validate' checks none of it."
  }

  assert {
    condition     = alltrue([for metric in flatten([for alarm in [aws_cloudwatch_metric_alarm.workers_needed, aws_cloudwatch_metric_alarm.workers_surplus, aws_cloudwatch_metric_alarm.queue_idle] : [for query in alarm.metric_query : query.metric]]) : metric.namespace == "AWS/SQS" ? metric.dimensions == tomap({ QueueName = aws_sqs_queue.jobs.name }) : metric.dimensions == tomap({ AutoScalingGroupName = aws_autoscaling_group.worker.name })])
    error_message = "scaling_dimensions: metrics must be those of this queue and this group."
  }

  assert {
    condition     = toset([for group_metric in distinct(flatten([for alarm in [aws_cloudwatch_metric_alarm.workers_needed, aws_cloudwatch_metric_alarm.fleet_at_maximum] : [for query in alarm.metric_query : [for metric in query.metric : metric.metric_name if metric.namespace == "AWS/AutoScaling"]]])) : group_metric if !contains(aws_autoscaling_group.worker.enabled_metrics, group_metric)]) == toset([])
    error_message = "group_metrics_enabled: a group publishes only the metrics of enabled_metrics; without them the scaling alarm has no data for ever."
  }

  # ---- zero workers, and metrics that come late

  assert {
    condition     = alltrue([for expression in concat([for query in aws_cloudwatch_metric_alarm.workers_needed.metric_query : coalesce(query.expression, "-")], [for query in aws_cloudwatch_metric_alarm.workers_surplus.metric_query : coalesce(query.expression, "-")], [for query in aws_cloudwatch_metric_alarm.queue_idle.metric_query : coalesce(query.expression, "-")]) : !can(regex("/ *(desired|inservice|FILL)", expression))])
    error_message = "no_division_by_the_fleet: at zero workers it gives no data, and the fleet never leaves zero."
  }

  assert {
    condition     = alltrue([for expression in concat([for query in aws_cloudwatch_metric_alarm.workers_needed.metric_query : coalesce(query.expression, "-")], [for query in aws_cloudwatch_metric_alarm.workers_surplus.metric_query : coalesce(query.expression, "-")], [for query in aws_cloudwatch_metric_alarm.queue_idle.metric_query : coalesce(query.expression, "-")]) : !can(regex("FILL\\([a-z]+, *[0-9]", expression)) && !can(regex("FILL\\((visible|inflight)", expression))])
    error_message = "no_fill_with_a_number: the newest minute is always filled, so the alarm would be stuck in one state. REPEAT, and for the group's size alone."
  }

  assert {
    condition     = [for query in aws_cloudwatch_metric_alarm.workers_needed.metric_query : query.expression if query.return_data == true][0] == "IF(CEIL((visible + inflight) / 20) > FILL(desired, REPEAT), CEIL((visible + inflight) / 20), 0)" && [for query in aws_cloudwatch_metric_alarm.workers_surplus.metric_query : query.expression if query.return_data == true][0] == "IF(CEIL((visible + inflight + 1) / 3) < FILL(desired, REPEAT), CEIL((visible + inflight + 1) / 3), 1000)" && [for query in aws_cloudwatch_metric_alarm.queue_idle.metric_query : query.expression if query.return_data == true][0] == "visible + inflight"
    error_message = "scaling_expressions: Terraform does not evaluate them; a change here needs a look at the simulation of the scaling."
  }

  assert {
    condition     = aws_autoscaling_group.worker.min_size == 0 && one(aws_autoscaling_policy.workers_idle.step_adjustment).scaling_adjustment == 0
    error_message = "to_zero: an idle queue needs no worker."
  }

  assert {
    condition     = strcontains(local.api_user_data, "OnUnitActiveSec=5min") && strcontains(local.api_user_data, "sqs get-queue-attributes") && strcontains(local.api_user_data, "systemctl enable --now --no-block image-api.service image-queue-touch.timer") && contains(jsondecode(aws_iam_role_policy.api.policy).Statement[*].Action, ["sqs:GetQueueAttributes", "sqs:SendMessage"]) && aws_autoscaling_group.api.min_size >= 1
    error_message = "queue_stays_active: SQS stops the metrics of a queue untouched for six hours and takes up to 15 minutes to begin again; with no worker the API has to touch it."
  }

  # ---- out: 120 s + 60 s + 15 s + 75 s = 270 s

  assert {
    condition     = aws_cloudwatch_metric_alarm.workers_needed.evaluation_periods == 1 && aws_cloudwatch_metric_alarm.workers_needed.datapoints_to_alarm == 1 && aws_cloudwatch_metric_alarm.workers_needed.threshold == 1 && 120 + 60 * aws_cloudwatch_metric_alarm.workers_needed.evaluation_periods + 15 + 75 < 300
    error_message = "out_in_five_minutes: publishing takes up to two minutes and a start 75 s, so one datapoint of one has to be enough."
  }

  assert {
    condition     = aws_cloudwatch_metric_alarm.workers_needed.alarm_actions == toset([aws_autoscaling_policy.workers_out.arn]) && aws_cloudwatch_metric_alarm.workers_needed.actions_enabled != false && aws_cloudwatch_metric_alarm.queue_idle.alarm_actions == toset([aws_autoscaling_policy.workers_idle.arn]) && aws_cloudwatch_metric_alarm.workers_surplus.alarm_actions == toset([aws_autoscaling_policy.workers_in.arn])
    error_message = "alarms_act: each scaling alarm must invoke its policy."
  }

  assert {
    condition     = tomap({ for step in aws_autoscaling_policy.workers_out.step_adjustment : step.scaling_adjustment => "${step.metric_interval_lower_bound}..${coalesce(step.metric_interval_upper_bound, "-")}" }) == tomap({ 1 = "0..0.5", 2 = "0.5..1.5", 3 = "1.5..-" })
    error_message = "steps_out: needing n workers must set n, without a gap, and the last step must be open."
  }

  assert {
    condition     = alltrue([for policy in [aws_autoscaling_policy.workers_out, aws_autoscaling_policy.workers_in, aws_autoscaling_policy.workers_idle] : policy.adjustment_type == "ExactCapacity"])
    error_message = "exact_capacity: alarms repeat their action every minute and the metrics lag; only an exact size can be set twice."
  }

  # ---- in: slow, and never the last worker while anything is held

  assert {
    condition     = aws_cloudwatch_metric_alarm.queue_idle.evaluation_periods == 15 && aws_cloudwatch_metric_alarm.queue_idle.datapoints_to_alarm == 15 && aws_cloudwatch_metric_alarm.workers_surplus.evaluation_periods == 10 && aws_cloudwatch_metric_alarm.workers_surplus.datapoints_to_alarm == 10
    error_message = "slow_in: workers go after ten minutes in a row with some to spare, and the last one later than that: acting in the same minute, surplus would start what idle stops."
  }

  assert {
    condition     = min([for step in aws_autoscaling_policy.workers_in.step_adjustment : step.scaling_adjustment]...) == 1 && tomap({ for step in aws_autoscaling_policy.workers_in.step_adjustment : step.scaling_adjustment => "${coalesce(step.metric_interval_lower_bound, "-")}..${step.metric_interval_upper_bound}" }) == tomap({ 1 = "-..-998.5", 2 = "-998.5..-997.5", 3 = "-997.5..0" })
    error_message = "steps_in: only an idle queue lets the last worker go."
  }

  assert {
    condition     = alltrue([for alarm in [aws_cloudwatch_metric_alarm.workers_needed, aws_cloudwatch_metric_alarm.workers_surplus, aws_cloudwatch_metric_alarm.queue_idle] : alarm.treat_missing_data == "notBreaching"])
    error_message = "missing_is_nothing: without metrics nothing may be scaled."
  }

  assert {
    condition     = aws_autoscaling_group.worker.default_instance_warmup == 120 && aws_autoscaling_group.worker.wait_for_capacity_timeout == "0"
    error_message = "warmup: while a worker starts, steps downwards are ignored: it must be longer than an alarm's repetition and than the start."
  }

  # ---- the bound

  assert {
    condition     = aws_autoscaling_group.worker.max_size * var.worker_slots <= ceil(1.5 * var.model_requests_per_minute * var.model_seconds_per_call / 60)
    error_message = "max_within_quota: workers beyond the model's quota are throttled."
  }

  assert {
    condition     = aws_autoscaling_group.worker.max_size == 3 && output.worker_environment.MODEL_REQUESTS_PER_MINUTE == "90"
    error_message = "max_follows_quota: 90 requests a minute keep three workers busy, and the workers must be told what they share."
  }
}

run "the_largest_size_follows_the_quota" {
  variables {
    model_requests_per_minute = 600
  }

  assert {
    condition     = aws_autoscaling_group.worker.max_size == 18 && max([for step in aws_autoscaling_policy.workers_out.step_adjustment : step.scaling_adjustment]...) == 18
    error_message = "max_follows_quota: 600 requests a minute of 5 s are 75 slots, 18 workers of 4."
  }
}

run "a_large_fleet_has_twenty_steps" {
  variables {
    model_requests_per_minute = 3000
    worker_max_size           = 50
  }

  assert {
    condition     = length(aws_autoscaling_policy.workers_out.step_adjustment) == 20 && max([for step in aws_autoscaling_policy.workers_out.step_adjustment : step.scaling_adjustment]...) == 50 && min([for step in aws_autoscaling_policy.workers_out.step_adjustment : step.scaling_adjustment]...) == 3
    error_message = "twenty_steps: a policy may have 20 steps, and the last must reach the largest size."
  }
}

run "a_fleet_that_never_sleeps" {
  variables {
    worker_min_size = 2
  }

  assert {
    condition     = one(aws_autoscaling_policy.workers_idle.step_adjustment).scaling_adjustment == 2 && min([for step in aws_autoscaling_policy.workers_in.step_adjustment : step.scaling_adjustment]...) == 2
    error_message = "min_size: no step may go below worker_min_size."
  }
}

run "a_promise_is_one_number" {
  variables {
    picture_within_seconds = 60
  }

  assert {
    condition     = local.worker_backlog_per_instance == 48 && local.scaling_needed == "CEIL((visible + inflight) / 48)" && aws_cloudwatch_metric_alarm.metric["oldest-message"].threshold == 60 && strcontains(aws_cloudwatch_metric_alarm.metric["oldest-message"].alarm_description, "60 s") && local.api_environment.PICTURE_WITHIN_SECONDS == "60"
    error_message = "one_promise: 4 slots and calls of 5 s do 48 jobs in the 60 s that are promised: the scaling, the alarm and the API have to mean the same."
  }
}

run "a_backlog_that_is_given_wins" {
  variables {
    picture_within_seconds      = 60
    worker_backlog_per_instance = 30
  }

  assert {
    condition     = local.scaling_needed == "CEIL((visible + inflight) / 30)" && aws_cloudwatch_metric_alarm.metric["oldest-message"].threshold == 60
    error_message = "one_promise: what is set is not derived."
  }
}

run "no_promise" {
  assert {
    condition     = local.scaling_needed == "CEIL((visible + inflight) / 20)" && aws_cloudwatch_metric_alarm.metric["oldest-message"].threshold == 600 && !contains(keys(local.api_environment), "PICTURE_WITHIN_SECONDS")
    error_message = "one_promise: without it, all is as it was."
  }
}

run "a_promise_that_no_worker_can_keep" {
  command = plan

  variables {
    picture_within_seconds = 9
  }

  expect_failures = [var.picture_within_seconds]
}

run "two_lanes_are_one_backlog" {
  variables {
    batch_lane = true
  }

  assert {
    condition     = alltrue([for alarm in [aws_cloudwatch_metric_alarm.workers_needed, aws_cloudwatch_metric_alarm.workers_surplus, aws_cloudwatch_metric_alarm.queue_idle] : toset([for query in flatten([for query in alarm.metric_query : query.metric]) : "${query.metric_name} ${query.dimensions.QueueName}" if query.namespace == "AWS/SQS"]) == toset(flatten([for metric in ["ApproximateNumberOfMessagesVisible", "ApproximateNumberOfMessagesNotVisible"] : ["${metric} image-pipeline-jobs", "${metric} image-pipeline-batches"]])) && { for query in alarm.metric_query : query.id => query.expression if contains(["visible", "inflight"], query.id) } == { visible = "visible_jobs + visible_batches", inflight = "inflight_jobs + inflight_batches" }])
    error_message = "lanes_are_added_up: workers are there for both queues: what waits in one of them alone would start too few, and idle would stop what is busy with the other."
  }

  assert {
    condition     = alltrue([for alarm in [aws_cloudwatch_metric_alarm.workers_needed, aws_cloudwatch_metric_alarm.workers_surplus, aws_cloudwatch_metric_alarm.queue_idle, aws_cloudwatch_metric_alarm.fleet_at_maximum] : length([for query in alarm.metric_query : query if query.return_data == true]) == 1 && length(distinct(alarm.metric_query[*].id)) == length(alarm.metric_query)])
    error_message = "metric_math_form: exactly one returned query, each id once."
  }

  assert {
    condition     = strcontains(local.api_user_data, "SQS_BATCH_QUEUE_URL") && length(regexall("sqs get-queue-attributes", local.api_user_data)) == 2
    error_message = "both_queues_stay_active: without data of one queue there is no sum, and nothing is scaled."
  }
}

run "more_workers_than_the_quota_allows" {
  command = plan

  variables {
    worker_max_size = 4
  }

  expect_failures = [var.worker_max_size]
}
