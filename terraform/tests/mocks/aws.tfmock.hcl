# Values that AWS would make. What goes into a policy, a unit or an alarm must be recognisable there.

mock_resource "aws_s3_bucket" {
  defaults = {
    arn                         = "arn:aws:s3:::images-bucket"
    bucket                      = "images-bucket"
    id                          = "images-bucket"
    bucket_regional_domain_name = "images-bucket.s3.ap-south-1.amazonaws.com"
    bucket_domain_name          = "images-bucket.s3.amazonaws.com"
  }
}

mock_resource "aws_sqs_queue" {
  defaults = {
    arn = "arn:aws:sqs:ap-south-1:111111111111:image-pipeline-jobs"
    id  = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-jobs"
    url = "https://sqs.ap-south-1.amazonaws.com/111111111111/image-pipeline-jobs"
  }
}

mock_resource "aws_cloudfront_distribution" {
  defaults = {
    arn         = "arn:aws:cloudfront::111111111111:distribution/EDIST"
    id          = "EDIST"
    domain_name = "d111.cloudfront.net"
  }
}

mock_resource "aws_cloudfront_cache_policy" {
  defaults = { id = "cache-policy-of-ours" }
}

mock_resource "aws_cloudfront_response_headers_policy" {
  defaults = { id = "headers-policy-of-ours" }
}

mock_resource "aws_cloudfront_origin_access_control" {
  defaults = { id = "EOAC" }
}

mock_resource "aws_cloudfront_vpc_origin" {
  defaults = { id = "vo_1" }
}

mock_resource "aws_cloudwatch_log_group" {
  defaults = { arn = "arn:aws:logs:ap-south-1:111111111111:log-group:group" }
}

mock_resource "aws_autoscaling_group" {
  defaults = { arn = "arn:aws:autoscaling:ap-south-1:111111111111:autoScalingGroup:uuid:autoScalingGroupName/image-pipeline-worker" }
}

mock_resource "aws_autoscaling_policy" {
  defaults = { arn = "arn:aws:autoscaling:ap-south-1:111111111111:scalingPolicy:uuid:autoScalingGroupName/image-pipeline-worker:policyName/p" }
}

mock_resource "aws_launch_template" {
  defaults = {
    id             = "lt-0123456789abcdef0"
    latest_version = 7
  }
}

mock_resource "aws_lb" {
  defaults = {
    arn        = "arn:aws:elasticloadbalancing:ap-south-1:111111111111:loadbalancer/app/image-pipeline-api/1"
    arn_suffix = "app/image-pipeline-api/1"
    dns_name   = "internal-api.ap-south-1.elb.amazonaws.com"
  }
}

mock_resource "aws_lb_target_group" {
  defaults = {
    arn        = "arn:aws:elasticloadbalancing:ap-south-1:111111111111:targetgroup/image-pipeline-api/1"
    arn_suffix = "targetgroup/image-pipeline-api/1"
  }
}

mock_resource "aws_sns_topic" {
  defaults = { arn = "arn:aws:sns:ap-south-1:111111111111:alarms" }
}

mock_resource "aws_secretsmanager_secret" {
  defaults = { arn = "arn:aws:secretsmanager:ap-south-1:111111111111:secret:s" }
}

mock_resource "aws_iam_role" {
  defaults = { arn = "arn:aws:iam::111111111111:role/r" }
}

mock_data "aws_ec2_managed_prefix_list" {
  defaults = { id = "pl-cloudfront" }
}
