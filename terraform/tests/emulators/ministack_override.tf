# What MiniStack 1.5.33 cannot do. `cargo dev terraform` puts this beside a copy of the configuration.
#
# Endpoint and credentials come from the environment.
provider "aws" {
  skip_credentials_validation = true
  s3_use_path_style           = true
}

provider "aws" {
  alias                       = "us_east_1"
  skip_credentials_validation = true
}

provider "aws" {
  alias                       = "ephemeral"
  skip_credentials_validation = true
}

# It waits for ever for instances that are counted by metrics, and counts none of its own.
resource "aws_autoscaling_group" "worker" {
  desired_capacity = 1
  enabled_metrics  = null
}

resource "aws_autoscaling_group" "api" {
  desired_capacity = 1
  enabled_metrics  = null
}

# It ignores the names that it is asked for, and returns every policy: "too many results". moto has these.
resource "aws_autoscaling_policy" "workers_out" {
  count = 0
}

resource "aws_autoscaling_policy" "workers_in" {
  count = 0
}

resource "aws_autoscaling_policy" "workers_idle" {
  count = 0
}

resource "aws_cloudwatch_metric_alarm" "workers_needed" {
  alarm_actions = []
}

resource "aws_cloudwatch_metric_alarm" "workers_surplus" {
  alarm_actions = []
}

resource "aws_cloudwatch_metric_alarm" "queue_idle" {
  alarm_actions = []
}

# It never returns the rules, and the provider waits for them.
resource "aws_s3_bucket_lifecycle_configuration" "images" {
  count = 0
}

# It takes the request for one that creates the bucket.
resource "aws_s3_bucket_metric" "all" {
  count = 0
}

# It returns the rule without its source, and the provider then fails on its own plan.
resource "aws_vpc_security_group_ingress_rule" "load_balancer_from_cloudfront" {
  lifecycle {
    ignore_changes = all
  }
}

# It takes every request for one without TLS, CloudFront's own too, and the second statement would refuse them all.
resource "aws_s3_bucket_policy" "images" {
  policy = jsonencode({ Version = "2012-10-17", Statement = [local.cloudfront_reads_images] })
}

# It follows the viewer's protocol into a VPC origin, and its load balancer speaks no TLS. Said for a custom origin as well, it
# asks the load balancer over HTTP, as the VPC origin tells CloudFront to.
resource "aws_cloudfront_distribution" "main" {
  origin {
    origin_id                = "images"
    domain_name              = aws_s3_bucket.images.bucket_regional_domain_name
    origin_access_control_id = aws_cloudfront_origin_access_control.images.id
  }

  origin {
    origin_id   = "api"
    domain_name = aws_lb.api.dns_name

    custom_origin_config {
      http_port                = 80
      https_port               = 443
      origin_protocol_policy   = "http-only"
      origin_ssl_protocols     = ["TLSv1.2"]
      origin_read_timeout      = 30
      origin_keepalive_timeout = 30
    }
    vpc_origin_config {
      vpc_origin_id            = aws_cloudfront_vpc_origin.api.id
      origin_read_timeout      = 30
      origin_keepalive_timeout = 30
    }
  }
}
