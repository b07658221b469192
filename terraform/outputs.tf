# What operators, clients and tools need. The first group has the names of the seed document.

output "s3_bucket_name" {
  description = "Bucket of pictures, records and sources."
  value       = aws_s3_bucket.images.bucket
}

output "s3_bucket_arn" {
  description = "ARN of the bucket."
  value       = aws_s3_bucket.images.arn
}

output "s3_bucket_region" {
  description = "Region of the bucket."
  value       = aws_s3_bucket.images.region
}

output "cloudfront_distribution_id" {
  description = "Distribution in front of pictures and API."
  value       = aws_cloudfront_distribution.main.id
}

output "cloudfront_domain_name" {
  description = "Its host name at CloudFront; what a custom domain's CNAME points to."
  value       = aws_cloudfront_distribution.main.domain_name
}

output "cloudfront_url" {
  description = "Where clients fetch pictures and call the API."
  value       = "https://${local.public_host}"
}

output "cloudwatch_dashboard_name" {
  description = "Dashboard."
  value       = aws_cloudwatch_dashboard.main.dashboard_name
}

output "sns_topic_arn" {
  description = "Topic of the alarms in this region."
  value       = aws_sns_topic.alarms.arn
}

# ---- for tools and runbooks

output "sns_topic_arn_us_east_1" {
  description = "Topic of CloudFront's alarms."
  value       = aws_sns_topic.alarms_us_east_1.arn
}

output "queue_url" {
  description = "Job queue."
  value       = aws_sqs_queue.jobs.url
}

output "batch_queue_url" {
  description = "Queue of batches; null without batch_lane."
  value       = one(aws_sqs_queue.batches[*].url)
}

output "webhook_queue_url" {
  description = "Queue of notices that jobs have ended; null without webhooks_enabled."
  value       = one(aws_sqs_queue.webhooks[*].url)
}

output "webhook_dead_letter_queue_url" {
  description = "Notices that no receiver has taken for a day; null without webhooks_enabled."
  value       = one(aws_sqs_queue.webhooks_dead_letter[*].url)
}

output "dead_letter_queue_url" {
  description = "Dead-letter queue."
  value       = aws_sqs_queue.jobs_dead_letter.url
}

output "dead_letter_queue_arn" {
  description = "Dead-letter queue, for start-message-move-task."
  value       = aws_sqs_queue.jobs_dead_letter.arn
}

output "worker_group_name" {
  description = "Auto Scaling group of the workers."
  value       = aws_autoscaling_group.worker.name
}

output "api_group_name" {
  description = "Auto Scaling group of the API."
  value       = aws_autoscaling_group.api.name
}

output "log_group_names" {
  description = "Log group of each service."
  value       = { for service, group in aws_cloudwatch_log_group.service : service => group.name }
}

output "api_keys_secret_arn" {
  description = "Secret with the clients' keys, tenant:key."
  value       = aws_secretsmanager_secret.api_keys.arn
}

output "job_id_keys_secret_arn" {
  description = "Secret with the keys of job ids."
  value       = aws_secretsmanager_secret.job_id_keys.arn
}

output "api_environment" {
  description = "What the launch template sets for image-api; its two secrets are fetched at each start."
  value       = local.api_environment
}

output "worker_environment" {
  description = "What the launch template sets for image-worker."
  value       = local.worker_environment
}

output "user_data" {
  description = "User data of each service, as the launch template carries it."
  value       = { image-api = local.api_user_data, image-worker = local.worker_user_data }
}

output "second_source_key_secret_arn" {
  description = "Where to put the key of second_source; null without one."
  value       = one(aws_secretsmanager_secret.second_source_key[*].arn)
}
