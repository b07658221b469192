# The job queue and its dead-letter queue.

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

resource "aws_sqs_queue" "jobs_dead_letter" {
  #checkov:skip=CKV_AWS_27:encrypted with the keys of SQS itself, as the job queue
  name = local.dead_letter_name
  # A message keeps its age when it moves here: what is left of 14 days is the time to look and redrive.
  message_retention_seconds = 14 * 86400
  receive_wait_time_seconds = var.receive_wait_seconds
  max_message_size          = 262144
  sqs_managed_sse_enabled   = true
}

# Only the job queue may put messages there.
resource "aws_sqs_queue_redrive_allow_policy" "jobs_dead_letter" {
  queue_url = aws_sqs_queue.jobs_dead_letter.id

  redrive_allow_policy = jsonencode({
    redrivePermission = "byQueue"
    sourceQueueArns   = [aws_sqs_queue.jobs.arn]
  })
}

# Who may use the queues is in the roles (iam.tf). This refuses whatever comes without TLS.
resource "aws_sqs_queue_policy" "tls_only" {
  for_each = {
    jobs        = { url = aws_sqs_queue.jobs.id, arn = aws_sqs_queue.jobs.arn }
    dead_letter = { url = aws_sqs_queue.jobs_dead_letter.id, arn = aws_sqs_queue.jobs_dead_letter.arn }
  }

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
