# Values that AWS or a process refuses: a plan does so first. Beside variables.tftest.hcl, which has those that break silently.

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

run "a_call_of_no_time" {
  command = plan

  variables {
    model_timeout_seconds = 0
  }

  expect_failures = [var.model_timeout_seconds]
}

run "a_call_of_half_a_second_more" {
  command = plan

  variables {
    model_timeout_seconds = 80.5
  }

  expect_failures = [var.model_timeout_seconds]
}

run "half_a_second_of_an_attempt" {
  command = plan

  variables {
    attempt_timeout_seconds = 240.5
  }

  expect_failures = [var.attempt_timeout_seconds]
}

run "half_a_second_of_grace" {
  command = plan

  variables {
    worker_shutdown_grace_seconds = 94.5
  }

  expect_failures = [var.worker_shutdown_grace_seconds]
}

run "half_a_second_to_stop" {
  command = plan

  variables {
    worker_stop_timeout_seconds = 150.5
  }

  expect_failures = [var.worker_stop_timeout_seconds]
}

run "half_a_day_of_retention" {
  command = plan

  variables {
    queue_retention_days = 1.5
  }

  expect_failures = [var.queue_retention_days]
}

run "half_a_hand_over" {
  command = plan

  variables {
    queue_max_receive_count = 2.5
  }

  expect_failures = [var.queue_max_receive_count]
}

run "half_a_slot" {
  command = plan

  variables {
    worker_slots = 2.5
  }

  expect_failures = [var.worker_slots]
}

run "more_slots_than_memory" {
  command = plan

  variables {
    worker_slots                = 101
    worker_max_size             = 1
    worker_backlog_per_instance = 200
    model_requests_per_minute   = 9000
  }

  expect_failures = [var.worker_slots]
}

run "fewer_than_no_worker_on_demand" {
  command = plan

  variables {
    worker_on_demand_base = -1
  }

  expect_failures = [var.worker_on_demand_base]
}

run "one_worker_beyond_the_quota" {
  command = plan

  variables {
    worker_max_size             = 1
    worker_slots                = 32
    worker_backlog_per_instance = 40
  }

  expect_failures = [var.worker_max_size]
}

run "a_worker_of_the_first_arm" {
  command = plan

  variables {
    worker_instance_types = ["a1.large"]
  }

  expect_failures = [var.worker_instance_types]
}

run "an_api_on_arm" {
  command = plan

  variables {
    api_instance_type = "t4g.small"
  }

  expect_failures = [var.api_instance_type]
}

run "an_api_on_the_first_arm" {
  command = plan

  variables {
    api_instance_type = "a1.medium"
  }

  expect_failures = [var.api_instance_type]
}

run "an_address_for_a_domain" {
  command = plan

  variables {
    custom_domain_name  = "https://images.example.com"
    acm_certificate_arn = "arn:aws:acm:us-east-1:111111111111:certificate/c"
  }

  expect_failures = [var.custom_domain_name]
}

run "a_range_too_small_for_a_load_balancer" {
  command = plan

  variables {
    vpc_cidr = "10.40.0.0/24"
  }

  expect_failures = [var.vpc_cidr]
}

run "a_range_too_small_for_subnets" {
  command = plan

  variables {
    vpc_cidr = "10.40.0.0/25"
  }

  expect_failures = [var.vpc_cidr]
}

run "a_range_too_large" {
  command = plan

  variables {
    vpc_cidr = "10.0.0.0/15"
  }

  expect_failures = [var.vpc_cidr]
}

run "a_name_of_internal_load_balancers" {
  command = plan

  variables {
    name = "internal-pictures"
  }

  expect_failures = [var.name]
}

run "a_quota_in_fractions" {
  command = plan

  variables {
    model_requests_per_minute = 90.5
  }

  expect_failures = [var.model_requests_per_minute]
}

# What is at the edge works: the smallest range, a domain, one worker on the smallest quota.
run "values_at_the_edge" {
  command = plan

  variables {
    vpc_cidr                  = "10.40.0.0/23"
    custom_domain_name        = "images.example.com"
    acm_certificate_arn       = "arn:aws:acm:us-east-1:111111111111:certificate/c"
    model_requests_per_minute = 1
    worker_on_demand_base     = 0
  }

  assert {
    condition     = aws_autoscaling_group.worker.max_size == 1
    error_message = "one_worker: the smallest quota keeps one."
  }

  assert {
    condition     = endswith(aws_subnet.private[1].cidr_block, "/27")
    error_message = "smallest_subnets: a load balancer needs /27."
  }
}
