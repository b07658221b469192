# The job queue, the queue of batches where there are two lanes, and their dead-letter queue.

resource "aws_sqs_queue" "jobs" {
  #checkov:skip=CKV_AWS_27:encrypted with the keys of SQS itself (sqs_managed_sse_enabled); a KMS key adds a price to each request and no reader that the queue policy would not stop
  name                       = local.queue_name
  visibility_timeout_seconds = var.queue_visibility_timeout_seconds
  message_retention_seconds  = var.queue_retention_days * 86400
  receive_wait_time_seconds  = var.receive_wait_seconds
  max_message_size           = 262144
  sqs_managed_sse_enabled    = true

  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.jobs_dead_letter.arn
    maxReceiveCount     = var.queue_max_receive_count
  })
}

# The second lane: docs/adr/0025-lanes.md.
resource "aws_sqs_queue" "batches" {
  #checkov:skip=CKV_AWS_27:encrypted with the keys of SQS itself, as the job queue
  count = var.batch_lane ? 1 : 0

  name                       = local.batch_queue_name
  visibility_timeout_seconds = var.queue_visibility_timeout_seconds
  message_retention_seconds  = var.queue_retention_days * 86400
  receive_wait_time_seconds  = var.receive_wait_seconds
  max_message_size           = 262144
  sqs_managed_sse_enabled    = true

  # One for both lanes: a dead letter tells from which queue it came (DeadLetterQueueSourceArn), and goes back there.
  redrive_policy = jsonencode({
    deadLetterTargetArn = aws_sqs_queue.jobs_dead_letter.arn
    maxReceiveCount     = var.queue_max_receive_count
  })
}

locals {
  # Where jobs wait for a worker.
  job_queue_arns = concat([aws_sqs_queue.jobs.arn], aws_sqs_queue.batches[*].arn)
}

resource "aws_sqs_queue" "jobs_dead_letter" {
  #checkov:skip=CKV_AWS_27:encrypted with the keys of SQS itself, as the job queue
  name = local.dead_letter_name
  # A message keeps its age when it moves here: what is left of 14 days is the time to look and redrive.
  message_retention_seconds = 14 * 86400
  receive_wait_time_seconds = var.receive_wait_seconds
  max_message_size          = 262144
  sqs_managed_sse_enabled   = true
}

# Only the queues of jobs may put messages there.
resource "aws_sqs_queue_redrive_allow_policy" "jobs_dead_letter" {
  queue_url = aws_sqs_queue.jobs_dead_letter.id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = local.job_queue_arns
  })
}

# Who may use the queues is in the roles (iam.tf). This refuses whatever comes without TLS.
resource "aws_sqs_queue_policy" "tls_only" {
  for_each = merge(
    {
      jobs        = { url = aws_sqs_queue.jobs.id, arn = aws_sqs_queue.jobs.arn }
      dead_letter = { url = aws_sqs_queue.jobs_dead_letter.id, arn = aws_sqs_queue.jobs_dead_letter.arn }
    },
    { for queue in aws_sqs_queue.batches : "batches" => { url = queue.id, arn = queue.arn } },
    { for queue in aws_sqs_queue.webhooks : "webhooks" => { url = queue.id, arn = queue.arn } },
    { for queue in aws_sqs_queue.webhooks_dead_letter : "webhooks_dead_letter" => { url = queue.id, arn = queue.arn } },
  )

  queue_url = each.value.url

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "TlsOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "sqs:*"
      Resource  = each.value.arn
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}
