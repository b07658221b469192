# Queue, hosts and fleets: what the instances are started with, and that each time-out is shorter than the next.

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

run "queue" {
  assert {
    condition     = jsondecode(aws_sqs_queue.jobs.redrive_policy) == { deadLetterTargetArn = "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-jobs-dead-letter", maxReceiveCount = 5 } && output.worker_environment.MAX_RECEIVE_COUNT == "5"
    error_message = "max_receive_count: queue and worker must have the same number, or jobs reach the dead-letter queue without a word in their record."
  }

  assert {
    condition     = jsondecode(aws_sqs_queue_redrive_allow_policy.jobs_dead_letter.redrive_allow_policy) == { redrivePermission = "byQueue", sourceQueueArns = ["arn:aws:sqs:ap-south-1:111111111111:image-pipeline-jobs"] }
    error_message = "redrive_allow: only the job queue may use the dead-letter queue."
  }

  assert {
    condition     = aws_sqs_queue.jobs.visibility_timeout_seconds == tonumber(output.worker_environment.LEASE_SECONDS) && aws_sqs_queue.jobs.receive_wait_time_seconds == tonumber(output.worker_environment.RECEIVE_WAIT_SECONDS) && aws_sqs_queue.jobs.receive_wait_time_seconds > 0 && aws_sqs_queue.jobs.receive_wait_time_seconds <= 20
    error_message = "visibility_and_long_poll: queue and worker must have the same numbers; a wait above 20 s is refused by SQS and not by 'validate'."
  }

  assert {
    condition     = aws_sqs_queue.jobs_dead_letter.message_retention_seconds == 14 * 86400 && aws_sqs_queue.jobs.message_retention_seconds == tonumber(output.api_environment.QUEUE_RETENTION_DAYS) * 86400 && aws_sqs_queue.jobs.message_retention_seconds < aws_sqs_queue.jobs_dead_letter.message_retention_seconds
    error_message = "retention: the API must know the queue's, and the dead-letter queue must keep longer, for a message keeps its age."
  }

  assert {
    condition     = alltrue([for queue in [aws_sqs_queue.jobs, aws_sqs_queue.jobs_dead_letter] : queue.sqs_managed_sse_enabled && queue.max_message_size == 262144]) && alltrue([for policy in aws_sqs_queue_policy.tls_only : anytrue([for statement in jsondecode(policy.policy).Statement : statement.Effect == "Deny" && statement.Principal == "*" && statement.Action == "sqs:*" && statement.Condition.Bool["aws:SecureTransport"] == "false"])]) && length(aws_sqs_queue_policy.tls_only) == 2
    error_message = "queue_is_protected: encrypted, TLS only, 256 KiB."
  }
}

run "worker" {
  assert {
    condition     = output.worker_environment.BEDROCK_REGION == "us-west-2" && output.worker_environment.AWS_REGION == "ap-south-1" && output.worker_environment.BEDROCK_MODEL_ID == "stability.stable-image-core-v1:1"
    error_message = "model_region: the model is in us-west-2, wherever the rest is."
  }

  assert {
    condition     = tonumber(output.worker_environment.MODEL_TIMEOUT_SECONDS) < tonumber(output.worker_environment.SHUTDOWN_GRACE_SECONDS) && tonumber(output.worker_environment.MODEL_TIMEOUT_SECONDS) + 60 < tonumber(output.worker_environment.ATTEMPT_TIMEOUT_SECONDS) && tonumber(output.worker_environment.SHUTDOWN_GRACE_SECONDS) + 25 < tonumber(regex("TimeoutStopSec=([0-9]+)", local.worker_user_data)[0]) && tonumber(regex("TimeoutStopSec=([0-9]+)", local.worker_user_data)[0]) + 30 <= aws_autoscaling_lifecycle_hook.worker_drain.heartbeat_timeout
    error_message = "ladder: model call < grace < TimeoutStopSec < heartbeat of the hook. systemd's own 90 s would kill jobs."
  }

  assert {
    condition     = aws_autoscaling_lifecycle_hook.worker_drain.lifecycle_transition == "autoscaling:EC2_INSTANCE_TERMINATING" && aws_autoscaling_lifecycle_hook.worker_drain.default_result == "CONTINUE" && output.worker_environment.EC2_LIFECYCLE == "true" && output.worker_environment.LIFECYCLE_HOOK_NAME == aws_autoscaling_lifecycle_hook.worker_drain.name && output.worker_environment.AUTOSCALING_GROUP_NAME == aws_autoscaling_lifecycle_hook.worker_drain.autoscaling_group_name
    error_message = "drain_before_termination: SIGTERM is not sent while a hook waits, so the worker has to watch the metadata and know its hook."
  }

  assert {
    condition     = alltrue([for line in ["Restart=on-failure", "StartLimitIntervalSec=0", "KillSignal=SIGTERM", "UnsetEnvironment=AWS_BEARER_TOKEN_BEDROCK", "DynamicUser=yes", "ProtectSystem=strict", "EnvironmentFile=/etc/image-pipeline/image-worker.env", "ExecStart=/usr/local/bin/image-worker"] : can(regex("(?m)^${line}$", local.worker_user_data))])
    error_message = "worker_unit: restarts for ever, but not after a drain; unprivileged; a bearer token never replaces the role."
  }

  assert {
    condition     = strcontains(local.worker_user_data, "systemctl enable --now --no-block image-worker.service image-reconcile.timer") && strcontains(local.worker_user_data, "\nOnUnitActiveSec=5min\n") && strcontains(local.worker_user_data, "\nExecStart=/usr/local/bin/image-worker reconcile --once\n") && output.worker_environment.DEAD_LETTER_QUEUE_URL == aws_sqs_queue.jobs_dead_letter.url && tonumber(output.worker_environment.QUEUE_RETENTION_DAYS) * 86400 == aws_sqs_queue.jobs.message_retention_seconds
    error_message = "every_job_ends: the reconciler runs on the workers, with the retention that the queue has."
  }

  assert {
    condition     = alltrue([for setting, value in output.worker_environment : can(regex("(?m)^${setting}=", local.worker_user_data)) && strcontains(local.worker_user_data, "\n${setting}=${value}\n")]) && alltrue([for setting, value in output.api_environment : strcontains(local.api_user_data, "\n${setting}=${value}\n")])
    error_message = "outputs_are_what_runs: the environment outputs must be the launch templates' own."
  }

  assert {
    condition     = base64decode(aws_launch_template.worker.user_data) == local.worker_user_data && base64decode(aws_launch_template.api.user_data) == local.api_user_data && length(local.worker_user_data) < 12000 && length(local.api_user_data) < 12000
    error_message = "user_data_is_small: EC2 takes 16 KB."
  }

  assert {
    condition     = strcontains(local.worker_user_data, "s3://releases-bucket/releases/1.2.3/image-worker") && strcontains(local.worker_user_data, "echo '${var.worker_sha256}  /root/image-worker' | sha256sum --check") && strcontains(local.api_user_data, "echo '${var.api_sha256}  /root/image-api' | sha256sum --check")
    error_message = "pinned_artifact: by version and SHA-256, so that a refresh installs the same binary on every day."
  }

  assert {
    condition     = alltrue([for template in [aws_launch_template.worker, aws_launch_template.api] : template.metadata_options[0].http_tokens == "required" && template.metadata_options[0].http_put_response_hop_limit == 1 && one(template.block_device_mappings[0].ebs).encrypted == "true" && one(template.block_device_mappings[0].ebs).volume_type == "gp3" && template.key_name == null && template.network_interfaces[0].associate_public_ip_address == "false"])
    error_message = "hosts: IMDSv2 with one hop, encrypted gp3, no key pair, no public address."
  }

  assert {
    condition     = alltrue([for group in [aws_autoscaling_group.worker.mixed_instances_policy[0].launch_template[0].launch_template_specification[0].version, aws_autoscaling_group.api.launch_template[0].version] : group == "7"]) && alltrue([for group in [aws_autoscaling_group.worker, aws_autoscaling_group.api] : group.instance_refresh[0].preferences[0].scale_in_protected_instances == "Ignore" && group.instance_refresh[0].preferences[0].auto_rollback == false]) && aws_autoscaling_group.worker.instance_refresh[0].preferences[0].instance_warmup == "180"
    error_message = "instance_refresh: a boot that fails is no replacement; numbered versions, so that a change replaces instances; no wait for protected ones; no rollback with an image by parameter, which AWS refuses."
  }

  assert {
    condition     = aws_autoscaling_group.worker.mixed_instances_policy[0].instances_distribution[0].on_demand_base_capacity == 1 && aws_autoscaling_group.worker.mixed_instances_policy[0].instances_distribution[0].spot_allocation_strategy == "price-capacity-optimized" && length(aws_autoscaling_group.worker.mixed_instances_policy[0].launch_template[0].override) >= 4 && aws_autoscaling_group.worker.mixed_instances_policy[0].instances_distribution[0].on_demand_percentage_above_base_capacity == 0 && aws_autoscaling_group.worker.capacity_rebalance
    error_message = "spot: a base On-Demand, Spot above it, several types of one architecture."
  }

  assert {
    condition     = tonumber(output.worker_environment.SHUTDOWN_GRACE_SECONDS) + 25 <= 120
    error_message = "spot_notice: an instance ends two minutes after it."
  }
}

run "metrics_reach_cloudwatch" {
  assert {
    condition     = strcontains(local.worker_user_data, "amazon-cloudwatch-agent-ctl") && strcontains(local.worker_user_data, "127.0.0.1:9100") && output.worker_environment.ADMIN_ADDR == "127.0.0.1:9100" && jsondecode(local.agent_config["image-worker"]).logs.metrics_collected.prometheus.emf_processor.metric_namespace == "ImagePipeline/image-pipeline"
    error_message = "agent_scrapes_loopback: the agent must ask the port that the worker listens on."
  }

  assert {
    condition = alltrue([for wanted in concat(
      [for alarm in [aws_cloudwatch_metric_alarm.misconfigured, aws_cloudwatch_metric_alarm.upload_failures] : flatten([for query in alarm.metric_query : [for metric in query.metric : { name = metric.metric_name, labels = keys(metric.dimensions) } if metric.namespace == "ImagePipeline/image-pipeline"]])],
      [[for alarm in aws_cloudwatch_metric_alarm.metric : { name = alarm.metric_name, labels = keys(alarm.dimensions) } if alarm.namespace == "ImagePipeline/image-pipeline"]]
      ) : alltrue([for metric in wanted : anytrue([for kept in jsondecode(local.agent_config["image-worker"]).logs.metrics_collected.prometheus.emf_processor.metric_declaration :
    contains(kept.metric_selectors, "^${metric.name}$") && contains([for dimensions in kept.dimensions : join(",", sort(dimensions))], join(",", sort(metric.labels)))])])])
    error_message = "alarms_have_metrics: each alarm on a metric of the worker needs a declaration with exactly its dimensions."
  }

  assert {
    # Compared with docs/metrics.md, which is compared with the code.
    condition     = alltrue(flatten([for service, kept in local.emf_metrics : [for group in kept : [for name in group.names : can(regex("(?m)^\\| `${name}` \\| (counter|gauge) \\|", file("${path.root}/../docs/metrics.md"))) && alltrue([for label in group.labels : label == "fleet" || can(regex("(?m)^\\| `${name}` .*`${label}`", file("${path.root}/../docs/metrics.md")))])]]]))
    error_message = "metrics_exist: every metric to keep must be a counter or a gauge of docs/metrics.md with these labels; the agent drops histograms."
  }
}

# What a boot needs is there before the group, and goes after it. Only the text tells: a plan has no order.
run "boots_find_a_way_out" {
  command = plan

  assert {
    condition     = alltrue([for name in ["worker", "api"] : alltrue([for needed in ["aws_iam_role_policy.${name}", "aws_iam_role_policy.session_manager", "aws_route.public_internet", "aws_route.private_internet", "aws_route_table_association.public", "aws_route_table_association.private", "aws_vpc_endpoint.s3", "aws_vpc_security_group_egress_rule.instances_to_https"] : strcontains(regex("(?s)resource \"aws_autoscaling_group\".*?depends_on = \\[(.*?)\\]", file("${path.root}/${name}.tf"))[0], needed)])])
    error_message = "way_out_first: an instance that boots before its route, endpoint or rights installs nothing; one that drains after them cannot."
  }
}

# Two deployments in one account.
run "another_name" {
  variables {
    name = "other"
  }

  assert {
    condition     = jsondecode(local.agent_config["image-worker"]).logs.metrics_collected.prometheus.emf_processor.metric_namespace == "ImagePipeline/other" && jsondecode(local.agent_config["image-api"]).logs.metrics_collected.prometheus.emf_processor.metric_namespace == "ImagePipeline/other" && aws_cloudwatch_metric_alarm.metric["circuit-open"].namespace == "ImagePipeline/other" && !strcontains(aws_cloudwatch_dashboard.main.dashboard_body, "ImagePipeline\"") && strcontains(aws_cloudwatch_dashboard.main.dashboard_body, "ImagePipeline/other")
    error_message = "own_metrics: the namespace has the name, or one deployment's circuit rings in the other."
  }
}

run "api" {
  assert {
    condition     = output.api_environment.LISTEN_ADDR == "0.0.0.0:8080" && aws_lb_target_group.api.port == 8080 && aws_lb_target_group.api.health_check[0].path == "/ready" && aws_lb_target_group.api.health_check[0].port == "9100" && output.api_environment.ADMIN_ADDR == "0.0.0.0:9100" && output.api_environment.PUBLIC_BASE_URL == "https://d111.cloudfront.net"
    error_message = "api_is_reached: on the port of the target group, with its health on the admin port."
  }

  assert {
    condition     = tonumber(output.api_environment.SHUTDOWN_GRACE_SECONDS) < tonumber(aws_lb_target_group.api.deregistration_delay) && tonumber(output.api_environment.SHUTDOWN_GRACE_SECONDS) < tonumber(regex("TimeoutStopSec=([0-9]+)", local.api_user_data)[0]) && aws_autoscaling_group.api.health_check_type == "ELB"
    error_message = "api_ladder: grace below the load balancer's delay and below TimeoutStopSec."
  }
}

run "egress_by_nat" {
  assert {
    condition     = length(aws_nat_gateway.main) == 1 && length(aws_route.private_internet) == 2 && length(aws_vpc_endpoint.s3.route_table_ids) >= 1 && aws_vpc_endpoint.s3.vpc_endpoint_type == "Gateway" && length(distinct(local.availability_zones)) == 2
    error_message = "nat: one gateway for both zones; the model is in another region, where no interface endpoint leads. S3 has its free endpoint."
  }
}

run "egress_by_public_addresses" {
  variables {
    egress = "public"
  }

  assert {
    condition     = length(aws_nat_gateway.main) == 0 && length(aws_eip.nat) == 0 && aws_launch_template.worker.network_interfaces[0].associate_public_ip_address == "true" && aws_lb.api.internal
    error_message = "public_egress: addresses of their own, no NAT gateway, and the load balancer still internal."
  }
}

run "a_fixed_image_rolls_back" {
  variables {
    ami_id = "ami-0123456789abcdef0"
  }

  assert {
    condition     = aws_autoscaling_group.worker.instance_refresh[0].preferences[0].auto_rollback && aws_launch_template.worker.image_id == "ami-0123456789abcdef0"
    error_message = "rollback: possible with a fixed image."
  }
}

run "two_lanes" {
  override_resource {
    target = aws_sqs_queue.batches
    values = {
      arn = "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-batches"
      id  = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-batches"
      url = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-batches"
    }
  }

  variables {
    batch_lane               = true
    worker_interactive_slots = 2
  }

  assert {
    condition     = jsondecode(one(aws_sqs_queue.batches[*].redrive_policy)) == jsondecode(aws_sqs_queue.jobs.redrive_policy) && one(aws_sqs_queue.batches[*].visibility_timeout_seconds) == aws_sqs_queue.jobs.visibility_timeout_seconds && one(aws_sqs_queue.batches[*].message_retention_seconds) == aws_sqs_queue.jobs.message_retention_seconds && one(aws_sqs_queue.batches[*].sqs_managed_sse_enabled) && length(aws_sqs_queue_policy.tls_only) == 3
    error_message = "lanes_are_alike: the worker has one lease, one receive count and one dead-letter queue for both."
  }

  assert {
    condition     = length(jsondecode(aws_sqs_queue_redrive_allow_policy.jobs_dead_letter.redrive_allow_policy).sourceQueueArns) == 2
    error_message = "redrive_allow: a queue that may not use the dead-letter queue keeps its poison for ever."
  }

  assert {
    condition     = local.api_environment.SQS_BATCH_QUEUE_URL == "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-batches" && local.worker_environment.SQS_BATCH_QUEUE_URL == local.api_environment.SQS_BATCH_QUEUE_URL && local.worker_environment.INTERACTIVE_SLOTS == "2" && !contains(keys(local.worker_environment), "TENANT_SLOTS")
    error_message = "lane_environment: what the API fills, the workers read."
  }
}

run "worker_with_a_second_source" {
  override_resource {
    target = aws_secretsmanager_secret.second_source_key
    values = { arn = "arn:aws:secretsmanager:ap-south-1:111111111111:secret:second-source-key" }
  }

  variables {
    second_source = { use = "fallback", base_url = "http://models.internal:8000/v1", model = "flux-2" }
  }

  assert {
    condition     = { for name, value in local.worker_environment : name => value if startswith(name, "OPENAI_") || contains(["MODEL_SOURCE", "MODEL_FALLBACK"], name) } == { MODEL_FALLBACK = "openai", OPENAI_BASE_URL = "http://models.internal:8000/v1", OPENAI_MODEL = "flux-2", OPENAI_SIZE = "1024x1024", OPENAI_DIALECT = "compatible", OPENAI_ALLOW_HTTP = "true" }
    error_message = "second_source_environment: the worker gets where, what and how, and http is allowed where it is meant."
  }

  assert {
    condition     = strcontains(local.worker_user_data, "Environment=OPENAI_API_KEY_SECRET=arn:aws:secretsmanager:ap-south-1:111111111111:secret:second-source-key") && strcontains(local.worker_user_data, "cat >/usr/local/sbin/image-secrets") && [for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if statement.Sid == "ReadSecrets"] == [["arn:aws:secretsmanager:ap-south-1:111111111111:secret:second-source-key"]]
    error_message = "second_source_key: fetched at each start of the worker, which may read this secret and no other."
  }

  assert {
    condition     = [for rule in values(aws_vpc_security_group_egress_rule.worker_to_second_source) : [rule.security_group_id == aws_security_group.worker.id, rule.from_port, rule.to_port]] == [[true, 8000, 8000]]
    error_message = "second_source_port: the workers' security group lets nothing out but 443 and the port of the second source."
  }
}

run "worker_with_a_second_source_alone" {
  variables {
    second_source = { use = "alone", base_url = "https://api.example.com", model = "gpt-image-1", dialect = "gpt-image", has_key = false }
  }

  assert {
    condition     = local.worker_environment.MODEL_SOURCE == "openai" && !contains(keys(local.worker_environment), "MODEL_FALLBACK") && local.worker_environment.OPENAI_ALLOW_HTTP == "false" && local.worker_environment.OPENAI_DIALECT == "gpt-image"
    error_message = "second_source_alone: it is the source, and not the fallback of one."
  }

  assert {
    condition     = length(aws_vpc_security_group_egress_rule.worker_to_second_source) == 0 && length(aws_secretsmanager_secret.second_source_key) == 0 && !strcontains(local.worker_user_data, "image-secrets") && output.second_source_key_secret_arn == null
    error_message = "second_source_without_a_key: no secret, no rule, nothing to fetch."
  }
}
