# Webhooks (docs/adr/0023-webhooks.md), with webhooks_enabled alone: their queue and its dead letters, the secret that says where
# they go, and the unit on the API's instances that delivers them.

resource "aws_sqs_queue" "webhooks" {
  #checkov:skip=CKV_AWS_27:encrypted with the keys of SQS itself, as the job queue
  count = var.webhooks_enabled ? 1 : 0

  name = local.webhook_queue_name
  # A record, one try and the settlement; the process asks for the same.
  visibility_timeout_seconds = 60
  # Tries go on for a day. What is not tried at all, because nothing delivers, waits so long. Below the 14 days of the dead letters: a
  # message keeps its age when it moves there.
  message_retention_seconds = 13 * 86400
  receive_wait_time_seconds = 10
  max_message_size          = 262144
  sqs_managed_sse_enabled   = true

  # Eight tries, and room for hand-overs that were none: MAX_RECEIVE_COUNT in api/src/webhooks/mod.rs.
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.webhooks_dead_letter[0].arn
    maxReceiveCount     = 30
  })
}

resource "aws_sqs_queue" "webhooks_dead_letter" {
  #checkov:skip=CKV_AWS_27:encrypted with the keys of SQS itself, as the job queue
  count = var.webhooks_enabled ? 1 : 0

  name                      = local.webhook_dead_letter_name
  message_retention_seconds = 14 * 86400
  receive_wait_time_seconds = 10
  max_message_size          = 262144
  sqs_managed_sse_enabled   = true
}

resource "aws_sqs_queue_redrive_allow_policy" "webhooks_dead_letter" {
  count = var.webhooks_enabled ? 1 : 0

  queue_url = aws_sqs_queue.webhooks_dead_letter[0].id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.webhooks[0].arn]
  })
}

resource "aws_secretsmanager_secret" "webhooks" {
  #checkov:skip=CKV_AWS_149:encrypted with the account's key of Secrets Manager; a key of its own would have the same readers
  #checkov:skip=CKV2_AWS_57:a secret changes when its receiver can change, which no schedule knows (docs/operations.md, webhooks)
  count = var.webhooks_enabled ? 1 : 0

  name                    = "${var.name}/webhooks"
  description             = "WEBHOOKS: JSON of tenants, their URLs and secrets"
  recovery_window_in_days = var.force_destroy ? 0 : 7
}

# Nobody has one at first. The version stays 1: later values are put by hand, and an apply must not overwrite them.
resource "aws_secretsmanager_secret_version" "webhooks" {
  count = var.webhooks_enabled ? 1 : 0

  secret_id                = aws_secretsmanager_secret.webhooks[0].id
  secret_string_wo         = "{}"
  secret_string_wo_version = 1
}

locals {
  # Of both services.
  webhook_environment = { for queue in aws_sqs_queue.webhooks : "SQS_WEBHOOK_QUEUE_URL" => queue.url }

  # Whoever ends a job tells: the worker and its reconciler, and the API for a cancel.
  webhook_tell_statements = [for queue in aws_sqs_queue.webhooks : {
    Sid      = "TellWebhooks"
    Effect   = "Allow"
    Action   = ["sqs:SendMessage"]
    Resource = queue.arn
  }]

  # Of the unit on the API's instances; it reads records as the API does.
  webhook_deliver_statements = [for index, queue in aws_sqs_queue.webhooks : {
    Sid      = "DeliverWebhooks"
    Effect   = "Allow"
    Action   = ["sqs:ChangeMessageVisibility", "sqs:DeleteMessage", "sqs:ReceiveMessage"]
    Resource = queue.arn
  }]

  webhook_files = [for secret in aws_secretsmanager_secret.webhooks : [
    { path = "/usr/local/sbin/image-webhook-secrets", mode = "0755", text = file("${path.module}/templates/image-webhook-secrets.sh") },
    { path = "/etc/systemd/system/image-webhooks.service", mode = "0644", text = templatefile("${path.module}/templates/image-webhooks.service.tftpl", { secret_arn = secret.arn }) },
  ]]

  # Scraped beside the API's.
  webhook_targets = var.webhooks_enabled ? ["127.0.0.1:9101"] : []
  webhook_metrics = [for queue in aws_sqs_queue.webhooks : { labels = ["fleet", "outcome"], names = ["webhook_deliveries_total"] }]

  webhook_alarms = { for queue in aws_sqs_queue.webhooks_dead_letter : "webhooks-dead-letter-queue-not-empty" => {
    description = "A receiver did not take a webhook for a day: docs/operations.md, webhooks."
    namespace   = "AWS/SQS", metric = "ApproximateNumberOfMessagesVisible", dimensions = { QueueName = local.webhook_dead_letter_name }
    statistic   = "Maximum", period = 60, periods = 1, operator = "GreaterThanThreshold", threshold = 0
  } }
}
