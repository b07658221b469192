# Each role may do what its process does, and nothing else.

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

run "roles" {
  assert {
    condition = jsonencode({ for statement in jsondecode(aws_iam_role_policy.api.policy).Statement : statement.Sid => statement.Action }) == jsonencode({
      Enqueue                  = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
      FetchRelease             = ["s3:GetObject"]
      ReadAndCancelJobs        = ["s3:GetObject", "s3:PutObject"]
      ReadPauses               = ["s3:GetObject"]
      ReadSecrets              = ["secretsmanager:GetSecretValue"]
      ShipLogsAndMetrics       = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      TellMissingFromForbidden = ["s3:ListBucket"]
    })
    error_message = "api_actions: the list is exact; compare docs/operations.md, Permissions."
  }

  assert {
    condition = jsonencode({ for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Sid => statement.Action }) == jsonencode({
      ConsumeJobs              = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"]
      EnterJobsIntoLists       = ["s3:PutObject"]
      FetchRelease             = ["s3:GetObject"]
      Generate                 = ["bedrock:InvokeModel"]
      KeepRecordsAndSources    = ["s3:GetObject", "s3:PutObject"]
      KeepTheReconcilersLedger = ["s3:GetObject", "s3:PutObject"]
      LookAtDeadLetters        = ["sqs:ChangeMessageVisibility", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"]
      PublishImages            = ["s3:PutObject", "s3:PutObjectTagging"]
      ReadPauses               = ["s3:GetObject"]
      ShareTheModelsQuota      = ["s3:GetObject", "s3:PutObject"]
      ShipLogsAndMetrics       = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
      TellMissingFromForbidden = ["s3:ListBucket"]
      WatchTheModel            = ["bedrock:GetFoundationModel"]
    })
    error_message = "worker_actions: the list is exact; compare docs/operations.md, Permissions. Without PutObjectTagging every upload is 403."
  }

  assert {
    condition     = jsondecode(aws_iam_role_policy.worker_lifecycle.policy).Statement[*].Action == [["autoscaling:CompleteLifecycleAction"]] && jsondecode(aws_iam_role_policy.worker_lifecycle.policy).Statement[0].Resource == aws_autoscaling_group.worker.arn
    error_message = "worker_completes_its_hook: and nothing else of Auto Scaling."
  }

  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if statement.Sid == "Generate"] == ["arn:aws:bedrock:us-west-2::foundation-model/stability.stable-image-core-v1:1"]
    error_message = "model_arn: the model's region, no account id."
  }

  assert {
    condition     = alltrue([for policy in [aws_iam_role_policy.api.policy, aws_iam_role_policy.worker.policy] : anytrue([for statement in jsondecode(policy).Statement : contains(statement.Action, "s3:ListBucket") && statement.Resource == "arn:aws:s3:::images-bucket" && !can(statement.Condition)])])
    error_message = "missing_is_404: ListBucket on the bucket itself and without an s3:prefix condition; otherwise a missing object is 403, polls are 503, and the circuit opens."
  }

  assert {
    condition     = !strcontains("${aws_iam_role_policy.api.policy}${aws_iam_role_policy.worker.policy}${aws_iam_role_policy.worker_lifecycle.policy}", "aws-marketplace") && !strcontains("${aws_iam_role_policy.api.policy}${aws_iam_role_policy.worker.policy}", "DeleteObject") && alltrue(flatten([for policy in [aws_iam_role_policy.api.policy, aws_iam_role_policy.worker.policy, aws_iam_role_policy.worker_lifecycle.policy] : [for statement in jsondecode(policy).Statement : alltrue([for resource in flatten([statement.Resource]) : resource != "*"]) && alltrue([for action in statement.Action : !strcontains(action, "*")])]]))
    error_message = "no_wildcards: no subscription to models, no deletion, no action or resource at large."
  }

  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.api.policy).Statement : statement.Resource if statement.Sid == "ReadAndCancelJobs"] == ["arn:aws:s3:::images-bucket/records/*"] && [for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if statement.Sid == "PublishImages"] == ["arn:aws:s3:::images-bucket/images/*"] && jsonencode([for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if statement.Sid == "KeepRecordsAndSources"]) == jsonencode([["arn:aws:s3:::images-bucket/records/*", "arn:aws:s3:::images-bucket/sources/*"]])
    error_message = "prefixes: each role writes under its own."
  }

  assert {
    condition = jsonencode([for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if contains(["EnterJobsIntoLists", "KeepTheReconcilersLedger", "LookAtDeadLetters", "ReadPauses", "ShareTheModelsQuota"], statement.Sid)]) == jsonencode([
      "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-jobs-dead-letter",
      "arn:aws:s3:::images-bucket/control/pause.json",
      "arn:aws:s3:::images-bucket/control/model-quota.json",
      "arn:aws:s3:::images-bucket/control/reconcile.json",
      "arn:aws:s3:::images-bucket/index/*",
    ])
    error_message = "control: a worker looks at dead letters without deleting them, cannot pause the fleet, and enters jobs into lists without reading them."
  }

  assert {
    condition     = jsondecode(aws_iam_role.worker.assume_role_policy).Statement[0].Principal == { Service = "ec2.amazonaws.com" } && aws_iam_instance_profile.worker.role == "image-pipeline-worker" && aws_iam_instance_profile.api.role == "image-pipeline-api"
    error_message = "separate_roles: one for each process, assumed by EC2."
  }

  assert {
    condition = length(aws_iam_role_policy.session_manager) == 2 && alltrue([for policy in aws_iam_role_policy.session_manager : jsondecode(policy.policy).Statement[*].Action == [[
      "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage",
      "ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply",
      "ssm:UpdateInstanceInformation",
      "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
    ]]]) && length(regexall("policy_attachment|managed_policy_arns", file("${path.root}/iam.tf"))) == 0
    error_message = "session_manager: the list is exact; AWS's managed policy would let instances read every parameter of the account."
  }
}

run "another_model" {
  variables {
    bedrock_model_id = "stability.sd3-5-large-v1:0"
  }

  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Resource if statement.Sid == "Generate"] == ["arn:aws:bedrock:us-west-2::foundation-model/stability.sd3-5-large-v1:0"] && output.worker_environment.BEDROCK_MODEL_ID == "stability.sd3-5-large-v1:0"
    error_message = "model_by_variable: role and worker must get the same model."
  }
}

# No value of a secret can be in state: all that makes one is ephemeral, all that takes one is write-only.
run "secrets" {
  assert {
    condition     = length(regexall("(?m)^\\s*secret_string\\s*=", join("\n", [for name in fileset(path.root, "*.tf") : file("${path.root}/${name}")]))) == 0 && length(regexall("(?m)^resource \"(random_password|random_string|tls_private_key)\"", join("\n", [for name in fileset(path.root, "*.tf") : file("${path.root}/${name}")]))) == 0 && length(regexall("(?m)^\\s*secret_string_wo\\s*=", file("${path.root}/secrets.tf"))) == 2 && length(regexall("(?m)^ephemeral ", file("${path.root}/secrets.tf"))) == 2 && length(regexall("(?m)^data \"aws_secretsmanager", join("\n", [for name in fileset(path.root, "*.tf") : file("${path.root}/${name}")]))) == 0
    error_message = "secrets_not_in_state: values come from ephemeral resources and go to secret_string_wo."
  }

  assert {
    condition     = !can(regex("(?m)^(API_KEYS|JOB_ID_KEYS)=", local.api_user_data)) && strcontains(local.api_user_data, "Environment=API_KEYS_SECRET=arn:aws:secretsmanager:ap-south-1:111111111111:secret:s") && strcontains(local.api_user_data, "Environment=JOB_ID_KEYS_SECRET=arn:aws:secretsmanager:ap-south-1:111111111111:secret:job-id-keys") && strcontains(local.api_user_data, "ExecStartPre=+/usr/local/sbin/image-secrets") && !strcontains(local.worker_user_data, "secretsmanager")
    error_message = "secrets_at_each_start: user data names the secrets, and only the API reads them."
  }

  assert {
    condition     = aws_secretsmanager_secret.api_keys.recovery_window_in_days == 7
    error_message = "recovery: a secret deleted by mistake can be restored."
  }
}

run "roles_with_webhooks" {
  override_resource {
    target = aws_sqs_queue.webhooks
    values = {
      arn = "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-webhooks"
      id  = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-webhooks"
      url = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-webhooks"
    }
  }

  override_resource {
    target = aws_sqs_queue.webhooks_dead_letter
    values = {
      arn = "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-webhooks-dead-letter"
      id  = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-webhooks-dead-letter"
      url = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-webhooks-dead-letter"
    }
  }

  override_resource {
    target = aws_secretsmanager_secret.webhooks
    values = { arn = "arn:aws:secretsmanager:ap-south-1:111111111111:secret:webhooks" }
  }

  variables {
    webhooks_enabled = true
  }

  assert {
    condition     = jsonencode({ for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Sid => [statement.Action, statement.Resource] if strcontains(statement.Sid, "Webhooks") }) == jsonencode({ TellWebhooks = [["sqs:SendMessage"], "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-webhooks"] })
    error_message = "webhook_actions: a worker tells, and neither reads nor delivers."
  }

  assert {
    condition = jsonencode({ for statement in jsondecode(aws_iam_role_policy.api.policy).Statement : statement.Sid => [statement.Action, statement.Resource] if strcontains(statement.Sid, "Webhooks") || statement.Sid == "ReadSecrets" }) == jsonencode({
      DeliverWebhooks = [["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"], "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-webhooks"]
      ReadSecrets     = [["secretsmanager:GetSecretValue"], [aws_secretsmanager_secret.api_keys.arn, "arn:aws:secretsmanager:ap-south-1:111111111111:secret:job-id-keys", "arn:aws:secretsmanager:ap-south-1:111111111111:secret:webhooks"]]
      TellWebhooks    = [["sqs:SendMessage"], "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-webhooks"]
    })
    error_message = "webhook_actions: the API's instances deliver, and read one secret more."
  }

  assert {
    condition     = strcontains(local.api_user_data, "ExecStart=/usr/local/bin/image-api webhooks") && strcontains(local.api_user_data, "image-webhooks.service\n") && strcontains(local.api_user_data, "WEBHOOKS_SECRET=arn:aws:secretsmanager:ap-south-1:111111111111:secret:webhooks") && !can(regex("(?m)^WEBHOOKS=", local.api_user_data)) && output.worker_environment.SQS_WEBHOOK_QUEUE_URL == output.webhook_queue_url && output.api_environment.SQS_WEBHOOK_QUEUE_URL == output.webhook_queue_url
    error_message = "webhook_unit: beside the API, with the name of the secret alone; workers and API know the queue."
  }

  assert {
    condition     = jsondecode(aws_sqs_queue.webhooks[0].redrive_policy) == { deadLetterTargetArn = "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-webhooks-dead-letter", maxReceiveCount = 30 } && aws_sqs_queue.webhooks[0].message_retention_seconds > 86400 * 2 && contains(keys(local.metric_alarms), "webhooks-dead-letter-queue-not-empty") && contains(keys(aws_sqs_queue_policy.tls_only), "webhooks")
    error_message = "webhook_queue: what nobody takes for a day becomes a dead letter, and somebody is told."
  }
}

run "nothing_of_webhooks_by_default" {
  assert {
    condition     = length(aws_sqs_queue.webhooks) + length(aws_secretsmanager_secret.webhooks) == 0 && !strcontains("${local.api_user_data}${local.worker_user_data}", "webhook") && !strcontains("${local.api_user_data}${local.worker_user_data}", "WEBHOOK")
    error_message = "webhooks_off: a fleet that runs is not changed."
  }
}

run "roles_with_two_lanes" {
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
    condition     = { for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Sid => statement.Resource if contains(["ConsumeJobs", "ChangeLanes"], statement.Sid) } == { ConsumeJobs = ["arn:aws:sqs:ap-south-1:111111111111:image-pipeline-jobs", "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-batches"], ChangeLanes = "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-batches" } && [for statement in jsondecode(aws_iam_role_policy.worker.policy).Statement : statement.Action if statement.Sid == "ChangeLanes"] == [["sqs:SendMessage"]]
    error_message = "lane_actions: workers receive from both queues, and send to that of batches alone."
  }

  assert {
    condition     = [for statement in jsondecode(aws_iam_role_policy.api.policy).Statement : statement.Resource if statement.Sid == "Enqueue"] == [["arn:aws:sqs:ap-south-1:111111111111:image-pipeline-jobs", "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-batches"]]
    error_message = "lane_actions: the API sends to both queues."
  }
}
