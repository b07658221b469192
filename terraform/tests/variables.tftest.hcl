# Each setting that cannot work is refused before anything is made, by name.

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

run "a_retired_model" {
  command = plan

  variables {
    bedrock_model_id = "amazon.nova-canvas-v1:0"
  }

  expect_failures = [var.bedrock_model_id]
}

run "a_model_region_without_the_model" {
  command = plan

  variables {
    bedrock_region = "ap-south-1"
  }

  expect_failures = [var.bedrock_region]
}

run "price_class_without_india" {
  command = plan

  variables {
    cloudfront_price_class = "PriceClass_100"
  }

  expect_failures = [var.cloudfront_price_class]
}

run "long_poll_above_20" {
  command = plan

  variables {
    receive_wait_seconds = 21
  }

  expect_failures = [var.receive_wait_seconds]
}

run "long_poll_above_a_third_of_the_grace" {
  command = plan

  variables {
    receive_wait_seconds          = 20
    worker_shutdown_grace_seconds = 50
    model_timeout_seconds         = 40
  }

  expect_failures = [var.receive_wait_seconds]
}

run "call_longer_than_the_grace" {
  command = plan

  variables {
    model_timeout_seconds = 95
  }

  expect_failures = [var.model_timeout_seconds]
}

run "call_too_long_for_the_attempt" {
  command = plan

  variables {
    model_timeout_seconds   = 80
    attempt_timeout_seconds = 140
  }

  expect_failures = [var.model_timeout_seconds]
}

run "systemd_default_of_90_seconds" {
  command = plan

  variables {
    worker_shutdown_grace_seconds = 95
    worker_stop_timeout_seconds   = 90
  }

  expect_failures = [var.worker_shutdown_grace_seconds]
}

run "grace_longer_than_a_spot_notice" {
  command = plan

  variables {
    worker_shutdown_grace_seconds = 110
  }

  expect_failures = [var.worker_shutdown_grace_seconds]
}

run "stop_longer_than_the_hook" {
  command = plan

  variables {
    worker_stop_timeout_seconds   = 150
    termination_heartbeat_seconds = 170
  }

  expect_failures = [var.worker_stop_timeout_seconds]
}

run "hook_beyond_its_range" {
  command = plan

  variables {
    termination_heartbeat_seconds = 7201
  }

  expect_failures = [var.termination_heartbeat_seconds]
}

run "lease_too_short" {
  command = plan

  variables {
    queue_visibility_timeout_seconds = 19
  }

  expect_failures = [var.queue_visibility_timeout_seconds]
}

run "lease_beyond_twelve_hours" {
  command = plan

  variables {
    queue_visibility_timeout_seconds = 43201
  }

  expect_failures = [var.queue_visibility_timeout_seconds]
}

run "one_hand_over" {
  command = plan

  variables {
    queue_max_receive_count = 1
  }

  expect_failures = [var.queue_max_receive_count]
}

run "queue_keeps_as_long_as_the_dead_letter_queue" {
  command = plan

  variables {
    queue_retention_days = 14
  }

  expect_failures = [var.queue_retention_days]
}

run "infrequent_access_too_early" {
  command = plan

  variables {
    image_lifecycle_ia_days = 29
  }

  expect_failures = [var.image_lifecycle_ia_days]
}

run "sources_gone_before_the_redrive" {
  command = plan

  variables {
    source_retention_days = 14
  }

  expect_failures = [var.source_retention_days]
}

run "deleted_pictures_kept_for_ever" {
  command = plan

  variables {
    noncurrent_version_days = 0
  }

  expect_failures = [var.noncurrent_version_days]
}

run "a_moving_release" {
  command = plan

  variables {
    release_version = "latest"
  }

  expect_failures = [var.release_version]
}

run "a_checksum_that_is_none" {
  command = plan

  variables {
    worker_sha256 = "latest"
  }

  expect_failures = [var.worker_sha256]
}

run "arm_types_with_an_x86_binary" {
  command = plan

  variables {
    worker_instance_types = ["c7g.large"]
  }

  expect_failures = [var.worker_instance_types]
}

run "a_domain_without_a_certificate" {
  command = plan

  variables {
    custom_domain_name = "images.example.com"
  }

  expect_failures = [var.custom_domain_name]
}

run "a_certificate_in_the_wrong_region" {
  command = plan

  variables {
    acm_certificate_arn = "arn:aws:acm:ap-south-1:111111111111:certificate/c"
    custom_domain_name  = "images.example.com"
  }

  expect_failures = [var.acm_certificate_arn]
}

run "one_zone_twice" {
  command = plan

  variables {
    availability_zones = ["ap-south-1a", "ap-south-1a"]
  }

  expect_failures = [var.availability_zones]
}

run "an_api_that_sleeps" {
  command = plan

  variables {
    api_min_size = 0
  }

  expect_failures = [var.api_min_size]
}

run "a_worker_that_asks_for_another_as_soon_as_it_is_busy" {
  command = plan

  variables {
    worker_backlog_per_instance = 3
  }

  expect_failures = [var.worker_backlog_per_instance]
}

run "scale_in_too_fast" {
  command = plan

  variables {
    worker_scale_in_minutes = 1
  }

  expect_failures = [var.worker_scale_in_minutes]
}

# Without Spot a longer grace is fine.
run "a_longer_grace_without_spot" {
  command = plan

  variables {
    worker_spot_percentage        = 0
    model_timeout_seconds         = 95
    worker_shutdown_grace_seconds = 110
  }
}

run "second_source_use" {
  command = plan
  variables {
    second_source = { use = "sometimes", base_url = "https://api.example.com", model = "m" }
  }
  expect_failures = [var.second_source]
}

run "second_source_base_url" {
  command = plan
  variables {
    second_source = { use = "alone", base_url = "https://user:password@api.example.com", model = "m" }
  }
  expect_failures = [var.second_source]
}

run "second_source_size" {
  command = plan
  variables {
    second_source = { use = "alone", base_url = "https://api.example.com", model = "m", size = "large" }
  }
  expect_failures = [var.second_source]
}
