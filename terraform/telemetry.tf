# How logs and metrics leave the instances: the CloudWatch agent reads the log file, scrapes the admin port over loopback and
# writes what it finds as log lines in embedded metric format, of which CloudWatch makes metrics. The agent drops histograms;
# latencies on the dashboard are those that SQS, the load balancer and Bedrock measure.

locals {
  # With the name: two deployments in one account would be added up otherwise.
  metric_namespace = "ImagePipeline/${var.name}"
  services         = ["image-api", "image-worker"]

  # Metrics to keep, by the labels that become dimensions. 'fleet' is there always; instances are added up.
  emf_metrics = {
    "image-api" = concat(local.webhook_metrics, [
      { labels = ["fleet", "result"], names = ["api_jobs_enqueued_total"] },
      { labels = ["fleet", "code"], names = ["api_problems_total"] },
      { labels = ["fleet"], names = ["api_waiters", "api_streams", "api_jobs_canceled_total", "api_jobs_retried_total", "api_rate_limited_total"] },
    ])
    "image-worker" = [
      { labels = ["fleet", "outcome"], names = ["worker_jobs_total"] },
      { labels = ["fleet", "kind"], names = ["worker_errors_total"] },
      { labels = ["fleet", "result"], names = ["worker_model_calls_total", "worker_receives_total", "worker_lease_extensions_total"] },
      { labels = ["fleet", "state"], names = ["worker_cpu_tasks"] },
      { labels = ["fleet"], names = ["worker_circuit_open", "worker_deliveries_in_flight", "worker_model_rate_limit", "worker_published_bytes_total"] },
    ]
  }

  scrape_config = {
    for service in local.services : service => yamlencode({
      global = { scrape_interval = "60s", scrape_timeout = "10s" }
      scrape_configs = [{
        job_name       = service
        metrics_path   = "/metrics"
        static_configs = [{ targets = concat(["127.0.0.1:${local.admin_port}"], service == "image-api" ? local.webhook_targets : []), labels = { fleet = service } }]
      }]
    })
  }

  agent_config = {
    for service in local.services : service => jsonencode({
      agent = { region = var.region, run_as_user = "root" }
      logs = {
        logs_collected = {
          files = {
            collect_list = [{
              file_path       = "/var/log/image-pipeline/${service}.log"
              log_group_name  = aws_cloudwatch_log_group.service[service].name
              log_stream_name = "{instance_id}"
            }]
          }
        }
        metrics_collected = {
          prometheus = {
            prometheus_config_path = "/etc/image-pipeline/prometheus.yml"
            log_group_name         = aws_cloudwatch_log_group.metrics[service].name
            emf_processor = {
              metric_namespace = local.metric_namespace
              metric_declaration = [for kept in local.emf_metrics[service] : {
                source_labels    = ["fleet"]
                label_matcher    = "^${service}$"
                dimensions       = [kept.labels]
                metric_selectors = [for name in kept.names : "^${name}$"]
              }]
            }
          }
        }
      }
    })
  }
}

resource "aws_cloudwatch_log_group" "service" {
  #checkov:skip=CKV_AWS_158:encrypted by CloudWatch; prompts and keys are never logged
  #checkov:skip=CKV_AWS_338:a month is what the runbooks look back; log_retention_days keeps more
  for_each = toset(local.services)

  name              = "/${var.name}/${each.key}"
  retention_in_days = var.log_retention_days
}

# Read by CloudWatch as soon as it is written, and by nobody later.
resource "aws_cloudwatch_log_group" "metrics" {
  #checkov:skip=CKV_AWS_158:counters
  #checkov:skip=CKV_AWS_338:the metrics made of it are kept for 15 months
  for_each = toset(local.services)

  name              = "/${var.name}/${each.key}/metrics"
  retention_in_days = 3
}
