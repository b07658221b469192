# The API: internal load balancer, launch template, Auto Scaling group, and the settings the API is started with.

locals {
  api_port   = 8080
  admin_port = 9100

  public_host = coalesce(var.custom_domain_name, aws_cloudfront_distribution.main.domain_name)

  # What the launch template puts into the API's EnvironmentFile, and the output api_environment. The two secrets come
  # from Secrets Manager at each start.
  api_environment = merge(local.lane_environment, local.webhook_environment, local.promise_environment, {
    AWS_REGION             = var.region
    LISTEN_ADDR            = "0.0.0.0:${local.api_port}"
    PUBLIC_BASE_URL        = "https://${local.public_host}"
    SHUTDOWN_GRACE_SECONDS = "25"
    SQS_QUEUE_URL          = aws_sqs_queue.jobs.url
    QUEUE_RETENTION_DAYS   = tostring(var.queue_retention_days)
    S3_BUCKET_NAME         = aws_s3_bucket.images.bucket
    CLOUDFRONT_DOMAIN      = local.public_host
    # Not loopback: the load balancer asks it for /ready. The security group lets nobody else in.
    ADMIN_ADDR = "0.0.0.0:${local.admin_port}"
    LOG_FORMAT = "json"
  })

  promise_environment = { for name, seconds in { PICTURE_WITHIN_SECONDS = var.picture_within_seconds } : name => tostring(seconds) if seconds != null }

  # Of both services.
  lane_environment = { for queue in aws_sqs_queue.batches : "SQS_BATCH_QUEUE_URL" => queue.url }

  api_user_data = templatefile("${path.module}/templates/user_data.sh.tftpl", {
    service         = "image-api"
    artifact_bucket = var.artifact_bucket_name
    artifact_key    = "releases/${var.release_version}/image-api"
    sha256          = var.api_sha256
    environment     = local.api_environment
    agent_config    = local.agent_config["image-api"]
    scrape_config   = local.scrape_config["image-api"]
    extra_files = concat([
      { path = "/usr/local/sbin/image-secrets", mode = "0755", text = file("${path.module}/templates/image-secrets.sh") },
      { path = "/etc/systemd/system/image-queue-touch.service", mode = "0644", text = file("${path.module}/templates/image-queue-touch.service") },
      { path = "/etc/systemd/system/image-queue-touch.timer", mode = "0644", text = file("${path.module}/templates/image-queue-touch.timer") },
    ], local.webhook_files...)
    timers = concat(["image-queue-touch.timer"], var.webhooks_enabled ? ["image-webhooks.service"] : [])
    unit = templatefile("${path.module}/templates/service.tftpl", {
      description  = "image pipeline API"
      service      = "image-api"
      secret_arns  = { API_KEYS = aws_secretsmanager_secret.api_keys.arn, JOB_ID_KEYS = aws_secretsmanager_secret.job_id_keys.arn }
      restart      = "always"
      stop_timeout = 40
    })
  })
}

resource "aws_lb" "api" {
  #checkov:skip=CKV_AWS_91:each request is one line in the API's own log, with more in it
  #checkov:skip=CKV_AWS_150:'terraform destroy' has to work; the load balancer holds no data
  #checkov:skip=CKV2_AWS_28:the web ACL belongs to CloudFront (web_acl_arn); nothing else reaches this load balancer
  #checkov:skip=CKV2_AWS_20:plain HTTP inside the VPC origin; clients reach CloudFront, which redirects to HTTPS
  name               = local.api_group_name
  internal           = true
  load_balancer_type = "application"
  subnets            = aws_subnet.private[*].id
  security_groups    = [aws_security_group.load_balancer.id]
  # Above the 20 s of Prefer: wait.
  idle_timeout               = 60
  drop_invalid_header_fields = true
}

resource "aws_lb_target_group" "api" {
  #checkov:skip=CKV_AWS_378:plain HTTP from the load balancer to the API, inside the VPC and between two security groups
  name        = local.api_group_name
  vpc_id      = aws_vpc.main.id
  target_type = "instance"
  protocol    = "HTTP"
  port        = local.api_port
  # What the API needs to finish after it is taken out: 25 s of grace.
  deregistration_delay = 30

  health_check {
    port                = local.admin_port
    path                = "/ready"
    matcher             = "200"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 3
  }
}

resource "aws_lb_listener" "api" {
  #checkov:skip=CKV_AWS_2:reached by CloudFront's VPC origin only, which needs no certificate for an internal name
  #checkov:skip=CKV_AWS_103:no TLS here, see above
  load_balancer_arn = aws_lb.api.arn
  port              = 80
  protocol          = "HTTP"

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.api.arn
  }
}

resource "aws_launch_template" "api" {
  name                   = local.api_group_name
  update_default_version = true
  image_id               = coalesce(var.ami_id, "resolve:ssm:/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64")
  instance_type          = var.api_instance_type
  user_data              = base64encode(local.api_user_data)

  iam_instance_profile {
    name = aws_iam_instance_profile.api.name
  }

  network_interfaces {
    #checkov:skip=CKV_AWS_88:a public address is given with egress = 'public' only, and the security group lets in the load balancer alone
    associate_public_ip_address = var.egress == "public"
    delete_on_termination       = true
    security_groups             = [aws_security_group.api.id]
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # One datapoint a minute for the CPU policy instead of one in five.
  monitoring {
    enabled = true
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
      tags          = merge(local.tags, { Name = local.api_group_name, Release = var.release_version })
    }
  }
}

resource "aws_autoscaling_group" "api" {
  name                      = local.api_group_name
  min_size                  = var.api_min_size
  max_size                  = var.api_max_size
  vpc_zone_identifier       = local.instance_subnet_ids
  target_group_arns         = [aws_lb_target_group.api.arn]
  health_check_type         = "ELB"
  health_check_grace_period = 180
  default_instance_warmup   = 60
  enabled_metrics           = ["GroupDesiredCapacity", "GroupInServiceInstances", "GroupMaxSize"]
  wait_for_capacity_timeout = "0"

  launch_template {
    id      = aws_launch_template.api.id
    version = aws_launch_template.api.latest_version
  }

  instance_refresh {
    strategy = "Rolling"
    preferences {
      # The new one serves before the old one goes.
      min_healthy_percentage       = 100
      max_healthy_percentage       = 150
      instance_warmup              = 60
      skip_matching                = true
      auto_rollback                = var.ami_id != null
      scale_in_protected_instances = "Ignore"
      standby_instances            = "Ignore"
    }
  }

  dynamic "tag" {
    for_each = merge(local.tags, { Name = local.api_group_name })
    content {
      key                 = tag.key
      value               = tag.value
      propagate_at_launch = true
    }
  }

  lifecycle {
    ignore_changes = [desired_capacity]
  }

  # What a boot needs, or it fails: rights, secrets, and a way out.
  depends_on = [
    aws_iam_role_policy.api, aws_iam_role_policy.session_manager,
    aws_secretsmanager_secret_version.api_keys, aws_secretsmanager_secret_version.job_id_keys, aws_secretsmanager_secret_version.webhooks,
    aws_route.public_internet, aws_route.private_internet, aws_route_table_association.public, aws_route_table_association.private,
    aws_vpc_endpoint.s3, aws_vpc_security_group_egress_rule.instances_to_https,
  ]
}
