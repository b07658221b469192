# The fleet of workers: launch template, Auto Scaling group, termination hook, and the settings the worker is started with.

locals {
  # What the launch template puts into the worker's EnvironmentFile, and the output worker_environment.
  worker_environment = merge(local.lane_environment, local.webhook_environment, local.slot_environment, local.second_source_environment, {
    AWS_REGION                = var.region
    SQS_QUEUE_URL             = aws_sqs_queue.jobs.url
    S3_BUCKET_NAME            = aws_s3_bucket.images.bucket
    DEAD_LETTER_QUEUE_URL     = aws_sqs_queue.jobs_dead_letter.url
    QUEUE_RETENTION_DAYS      = tostring(var.queue_retention_days)
    BEDROCK_MODEL_ID          = var.bedrock_model_id
    BEDROCK_REGION            = var.bedrock_region
    WORKER_SLOTS              = tostring(var.worker_slots)
    MODEL_REQUESTS_PER_MINUTE = tostring(var.model_requests_per_minute)
    LEASE_SECONDS             = tostring(var.queue_visibility_timeout_seconds)
    MAX_RECEIVE_COUNT         = tostring(var.queue_max_receive_count)
    RECEIVE_WAIT_SECONDS      = tostring(var.receive_wait_seconds)
    MODEL_TIMEOUT_SECONDS     = tostring(var.model_timeout_seconds)
    ATTEMPT_TIMEOUT_SECONDS   = tostring(var.attempt_timeout_seconds)
    SHUTDOWN_GRACE_SECONDS    = tostring(var.worker_shutdown_grace_seconds)
    EC2_LIFECYCLE             = "true"
    AUTOSCALING_GROUP_NAME    = local.worker_group_name
    LIFECYCLE_HOOK_NAME       = local.worker_hook_name
    ADMIN_ADDR                = "127.0.0.1:${local.admin_port}"
    LOG_FORMAT                = "json"
  })

  slot_environment = { for name, slots in { INTERACTIVE_SLOTS = var.worker_interactive_slots, TENANT_SLOTS = var.worker_tenant_slots } : name => tostring(slots) if var.batch_lane && slots > 0 }

  worker_user_data = templatefile("${path.module}/templates/user_data.sh.tftpl", {
    service         = "image-worker"
    artifact_bucket = var.artifact_bucket_name
    artifact_key    = "releases/${var.release_version}/image-worker"
    sha256          = var.worker_sha256
    environment     = local.worker_environment
    agent_config    = local.agent_config["image-worker"]
    scrape_config   = local.scrape_config["image-worker"]
    # The reconciler, on each worker and not on a machine of its own: docs/adr/0021-operating.md.
    extra_files = concat([
      { path = "/etc/systemd/system/image-reconcile.service", mode = "0644", text = file("${path.module}/templates/image-reconcile.service") },
      { path = "/etc/systemd/system/image-reconcile.timer", mode = "0644", text = file("${path.module}/templates/image-reconcile.timer") },
      ], [for name in keys(local.worker_secret_arns) :
      { path = "/usr/local/sbin/image-secrets", mode = "0755", text = file("${path.module}/templates/image-secrets.sh") }
    ])
    timers = ["image-reconcile.timer"]
    unit = templatefile("${path.module}/templates/service.tftpl", {
      description  = "image pipeline worker"
      service      = "image-worker"
      secret_arns  = local.worker_secret_arns
      restart      = "on-failure"
      stop_timeout = var.worker_stop_timeout_seconds
    })
  })
}

resource "aws_launch_template" "worker" {
  name                   = local.worker_group_name
  update_default_version = true
  # A group resolves the parameter at each launch; a fixed image makes a refresh reproducible and able to roll back.
  image_id  = coalesce(var.ami_id, "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")
  user_data = base64encode(local.worker_user_data)

  iam_instance_profile {
    name = aws_iam_instance_profile.worker.name
  }

  network_interfaces {
    #checkov:skip=CKV_AWS_88:a public address is given with egress = 'public' only, and the security group lets nothing in
    associate_public_ip_address = var.egress == "public"
    delete_on_termination       = true
    security_groups             = [aws_security_group.worker.id]
  }

  # Version 2 only, and one hop: nothing but the host itself reads the role's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = 10
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume"]
    content {
      resource_type = tag_specifications.value
      tags          = merge(local.tags, { Name = local.worker_group_name, Release = var.release_version })
    }
  }
}

resource "aws_autoscaling_group" "worker" {
  name                = local.worker_group_name
  min_size            = var.worker_min_size
  max_size            = local.worker_max_size
  vpc_zone_identifier = local.instance_subnet_ids
  # It asks whether the instance runs, so one whose boot failed shuts itself down (templates/user_data.sh.tftpl).
  health_check_type = "EC2"
  # Set, so that a new worker does not count as one with nothing to do while it starts.
  default_instance_warmup = 120
  capacity_rebalance      = true
  # Scaling needs GroupDesiredCapacity, the alarms and the dashboard the others: none is published unless listed.
  enabled_metrics = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupMaxSize", "GroupMinSize", "GroupPendingInstances", "GroupTerminatingInstances", "GroupTotalInstances"]
  # Workers come when there are jobs: an apply waits for none.
  wait_for_capacity_timeout = "0"

  mixed_instances_policy {
    instances_distribution {
      on_demand_base_capacity                  = var.worker_on_demand_base
      on_demand_percentage_above_base_capacity = 100 - var.worker_spot_percentage
      spot_allocation_strategy                 = "price-capacity-optimized"
    }

    launch_template {
      launch_template_specification {
        launch_template_id = aws_launch_template.worker.id
        # A number and not $Latest: otherwise a refresh cannot tell what changed, nor roll back.
        version = aws_launch_template.worker.latest_version
      }

      dynamic "override" {
        for_each = var.worker_instance_types
        content {
          instance_type = override.value
        }
      }
    }
  }

  instance_refresh {
    strategy = "Rolling"
    preferences {
      # The queue waits while workers are replaced.
      min_healthy_percentage = 50
      # Longer than a boot that fails needs to end the instance, which would be counted as replaced otherwise.
      instance_warmup              = 180
      skip_matching                = true
      auto_rollback                = var.ami_id != null
      scale_in_protected_instances = "Ignore"
      standby_instances            = "Ignore"
    }
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = local.worker_group_name })
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  lifecycle {
    # The policies' business.
    ignore_changes = [desired_capacity]
  }

  # A worker that starts before it may read or write would open its circuit; one without a way out installs nothing. And
  # the other way round: while workers drain, 'destroy' leaves both.
  depends_on = [
    aws_iam_role_policy.worker, aws_iam_role_policy.session_manager,
    aws_route.public_internet, aws_route.private_internet, aws_route_table_association.public, aws_route_table_association.private,
    aws_vpc_endpoint.s3, aws_vpc_security_group_egress_rule.instances_to_https,
  ]
}

# The worker sees the termination in the instance metadata, drains, and completes the hook. SIGTERM would come only after the
# hook. CONTINUE: when a worker cannot answer, the instance ends all the same.
resource "aws_autoscaling_lifecycle_hook" "worker_drain" {
  name                   = local.worker_hook_name
  autoscaling_group_name = aws_autoscaling_group.worker.name
  lifecycle_transition   = "autoscaling:EC2_INSTANCE_TERMINATING"
  heartbeat_timeout      = var.termination_heartbeat_seconds
  default_result         = "CONTINUE"
}
