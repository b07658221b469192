# What moto 5.2.5 cannot do. `cargo dev terraform` puts this beside a copy of the configuration.
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

# No action behind these.
resource "aws_cloudfront_cache_policy" "images" {
  count = 0
}

resource "aws_cloudfront_response_headers_policy" "images" {
  count = 0
}

resource "aws_cloudfront_vpc_origin" "api" {
  count = 0
}

resource "aws_cloudfront_monitoring_subscription" "main" {
  count = 0
}

resource "aws_s3_bucket_metric" "all" {
  count = 0
}

# The provider ends on its answer.
resource "aws_sqs_queue_redrive_allow_policy" "jobs_dead_letter" {
  count = 0
}

# It returns other rules than it was given, and the provider waits for them to be equal.
resource "aws_s3_bucket_lifecycle_configuration" "images" {
  count = 0
}
