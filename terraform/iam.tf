# Two roles, each with what its process does and no more (docs/operations.md, Permissions). The policies are separate, so that
# one may name a group that needs the role itself.

locals {
  # No account id: foundation models belong to none. The region is the model's.
  model_arn = "arn:aws:bedrock:${var.bedrock_region}::foundation-model/${var.bedrock_model_id}"

  instance_trust = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect    = "Allow"
      Principal = { Service = "ec2.amazonaws.com" }
      Action    = "sts:AssumeRole"
    }]
  })

  # What each instance does before and beside its process: fetch the release, ship logs and metrics.
  host_statements = {
    for service in ["api", "worker"] : service => [
      {
        Sid      = "FetchRelease"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = "arn:aws:s3:::${var.artifact_bucket_name}/releases/*/image-${service}"
      },
      {
        # The agent writes metrics as log lines in embedded metric format, so it needs no cloudwatch:PutMetricData.
        Sid      = "ShipLogsAndMetrics"
        Effect   = "Allow"
        Action   = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"]
        Resource = [for group in [aws_cloudwatch_log_group.service["image-${service}"].arn, aws_cloudwatch_log_group.metrics["image-${service}"].arn] : "${group}:*"]
      },
    ]
  }

  # Single jobs of a tenant that has too many of them go to the batch lane.
  lane_statements = [for queue in aws_sqs_queue.batches : {
    Sid      = "ChangeLanes"
    Effect   = "Allow"
    Action   = ["sqs:SendMessage"]
    Resource = queue.arn
  }]

  # S3 says 404 for a missing key only to those who may list, else 403: polls of queued jobs would be 503 and the workers'
  # circuit would open. No s3:prefix condition: reading one object carries no prefix, so the answer would be 403 again.
  list_statement = {
    Sid      = "TellMissingFromForbidden"
    Effect   = "Allow"
    Action   = ["s3:ListBucket"]
    Resource = aws_s3_bucket.images.arn
  }
}

resource "aws_iam_role" "api" {
  name               = local.api_group_name
  assume_role_policy = local.instance_trust
}

resource "aws_iam_role_policy" "api" {
  name = "api"
  role = aws_iam_role.api.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.host_statements["api"], local.webhook_tell_statements, local.webhook_deliver_statements, [
      {
        # SendMessage covers batches. The attributes are read by the timer that keeps the queue's metrics alive.
        Sid      = "Enqueue"
        Effect   = "Allow"
        Action   = ["sqs:GetQueueAttributes", "sqs:SendMessage"]
        Resource = local.job_queue_arns
      },
      {
        Sid      = "ReadAndCancelJobs"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = "${aws_s3_bucket.images.arn}/records/*"
      },
      {
        Sid      = "ReadPauses"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = "${aws_s3_bucket.images.arn}/control/pause.json"
      },
      local.list_statement,
      {
        Sid      = "ReadSecrets"
        Effect   = "Allow"
        Action   = ["secretsmanager:GetSecretValue"]
        Resource = concat([aws_secretsmanager_secret.api_keys.arn, aws_secretsmanager_secret.job_id_keys.arn], aws_secretsmanager_secret.webhooks[*].arn)
      },
    ])
  })
}

resource "aws_iam_instance_profile" "api" {
  name = local.api_group_name
  role = aws_iam_role.api.name
}

locals {
  worker_secret_statements = [for arn in values(local.worker_secret_arns) : {
    Sid      = "ReadSecrets"
    Effect   = "Allow"
    Action   = ["secretsmanager:GetSecretValue"]
    Resource = [arn]
  }]
}

resource "aws_iam_role" "worker" {
  name               = local.worker_group_name
  assume_role_policy = local.instance_trust
}

resource "aws_iam_role_policy" "worker" {
  name = "worker"
  role = aws_iam_role.worker.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = concat(local.host_statements["worker"], local.lane_statements, local.webhook_tell_statements, local.worker_secret_statements, [
      {
        Sid      = "ConsumeJobs"
        Effect   = "Allow"
        Action   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"]
        Resource = local.job_queue_arns
      },
      {
        # The reconciler looks and puts back: no DeleteMessage.
        Sid      = "LookAtDeadLetters"
        Effect   = "Allow"
        Action   = ["sqs:ChangeMessageVisibility", "sqs:ReceiveMessage"]
        Resource = aws_sqs_queue.jobs_dead_letter.arn
      },
      {
        Sid      = "ReadPauses"
        Effect   = "Allow"
        Action   = ["s3:GetObject"]
        Resource = "${aws_s3_bucket.images.arn}/control/pause.json"
      },
      {
        Sid      = "ShareTheModelsQuota"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = "${aws_s3_bucket.images.arn}/control/model-quota.json"
      },
      {
        Sid      = "KeepTheReconcilersLedger"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = "${aws_s3_bucket.images.arn}/control/reconcile.json"
      },
      {
        Sid      = "KeepRecordsAndSources"
        Effect   = "Allow"
        Action   = ["s3:GetObject", "s3:PutObject"]
        Resource = ["${aws_s3_bucket.images.arn}/records/*", "${aws_s3_bucket.images.arn}/sources/*"]
      },
      {
        # Names alone, which the API lists: nobody reads what is in them.
        Sid      = "EnterJobsIntoLists"
        Effect   = "Allow"
        Action   = ["s3:PutObject"]
        Resource = "${aws_s3_bucket.images.arn}/index/*"
      },
      {
        # Every picture is written with its retention tag: without PutObjectTagging each upload would be 403.
        Sid      = "PublishImages"
        Effect   = "Allow"
        Action   = ["s3:PutObject", "s3:PutObjectTagging"]
        Resource = "${aws_s3_bucket.images.arn}/images/*"
      },
      local.list_statement,
      {
        # No Marketplace rights: the subscription to the model is made once, by a person (README.md).
        Sid      = "Generate"
        Effect   = "Allow"
        Action   = ["bedrock:InvokeModel"]
        Resource = local.model_arn
      },
      {
        # Where the model is in its life: a warning half a year before its end.
        Sid      = "WatchTheModel"
        Effect   = "Allow"
        Action   = ["bedrock:GetFoundationModel"]
        Resource = local.model_arn
      },
    ])
  })
}

# Apart from the policy above, because the group exists only after the role.
resource "aws_iam_role_policy" "worker_lifecycle" {
  name = "lifecycle"
  role = aws_iam_role.worker.id

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "CompleteTermination"
      Effect   = "Allow"
      Action   = ["autoscaling:CompleteLifecycleAction"]
      Resource = aws_autoscaling_group.worker.arn
    }]
  })
}

resource "aws_iam_instance_profile" "worker" {
  name = local.worker_group_name
  role = aws_iam_role.worker.name
}

# Session Manager and Run Command instead of SSH: no key pair, nothing inbound. Not AmazonSSMManagedInstanceCore, which also
# lets the instance read every parameter of the account.
resource "aws_iam_role_policy" "session_manager" {
  #checkov:skip=CKV_AWS_290:the channels belong to no resource, and the agent registers before anything could name it
  #checkov:skip=CKV_AWS_355:as above
  for_each = { api = aws_iam_role.api.id, worker = aws_iam_role.worker.id }

  name = "session-manager"
  role = each.value

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid    = "SessionManager"
      Effect = "Allow"
      Action = [
        "ec2messages:AcknowledgeMessage", "ec2messages:DeleteMessage", "ec2messages:FailMessage",
        "ec2messages:GetEndpoint", "ec2messages:GetMessages", "ec2messages:SendReply",
        "ssm:UpdateInstanceInformation",
        "ssmmessages:CreateControlChannel", "ssmmessages:CreateDataChannel", "ssmmessages:OpenControlChannel", "ssmmessages:OpenDataChannel",
      ]
      Resource = "*"
    }]
  })
}
