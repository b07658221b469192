# The bucket is private and its rules free storage; pictures and API have one HTTPS host.

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

run "storage" {
  assert {
    condition     = startswith(aws_s3_bucket.images.bucket_prefix, "education-portal-images-") && aws_s3_bucket_versioning.images.versioning_configuration[0].status == "Enabled" && one(one(aws_s3_bucket_server_side_encryption_configuration.images.rule).apply_server_side_encryption_by_default).sse_algorithm == "AES256"
    error_message = "bucket: a unique name, versioning and AES-256."
  }

  assert {
    condition     = aws_s3_bucket_public_access_block.images.block_public_acls && aws_s3_bucket_public_access_block.images.block_public_policy && aws_s3_bucket_public_access_block.images.ignore_public_acls && aws_s3_bucket_public_access_block.images.restrict_public_buckets
    error_message = "not_public: all four kinds of public access are blocked."
  }

  assert {
    condition     = [for statement in jsondecode(aws_s3_bucket_policy.images.policy).Statement : statement if statement.Effect == "Allow"] == [{ Sid = "CloudFrontReadsImages", Effect = "Allow", Principal = { Service = "cloudfront.amazonaws.com" }, Action = "s3:GetObject", Resource = "arn:aws:s3:::images-bucket/images/*", Condition = { StringEquals = { "AWS:SourceArn" = "arn:aws:cloudfront::111111111111:distribution/EDIST" } } }]
    error_message = "read_through_cloudfront_only: this distribution, GetObject, images/*. ListBucket would list the bucket at the root of the CDN."
  }

  assert {
    condition     = anytrue([for statement in jsondecode(aws_s3_bucket_policy.images.policy).Statement : statement.Effect == "Deny" && statement.Principal == "*" && statement.Action == "s3:*" && try(statement.Condition.Bool["aws:SecureTransport"], "") == "false"])
    error_message = "tls_only_bucket: requests without TLS are denied."
  }

  # ---- lifecycle

  assert {
    condition     = jsonencode({ for transition in [for rule in aws_s3_bucket_lifecycle_configuration.images.rule : rule if rule.id == "images"][0].transition : transition.storage_class => transition.days }) == jsonencode({ GLACIER_IR = 270, STANDARD_IA = 90 })
    error_message = "delivery_from_glacier: days count from creation, 90 and 90 + 180; GLACIER and DEEP_ARCHIVE cannot be read, so an old picture would be an error."
  }

  assert {
    condition     = [for rule in aws_s3_bucket_lifecycle_configuration.images.rule : one(rule.expiration).days if rule.id == "images"][0] == 635
    error_message = "expiration_is_absolute: 90 + 180 + 365 days after creation."
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.images.rule : rule.id == "images" ? one(one(rule.filter).and).prefix == "images/" && one(one(rule.filter).and).tags == tomap({ retention = "standard" }) : true])
    error_message = "permanent_pictures_stay: filters are positive only and deletion wins, so what expires pictures must ask for retention=standard."
  }

  assert {
    condition     = alltrue([for rule in aws_s3_bucket_lifecycle_configuration.images.rule : length([for expiration in rule.expiration : expiration if coalesce(expiration.days, 0) > 0]) == 0 || rule.id == "images" || contains(["records/", "index/", "sources/"], try(coalesce(one(rule.filter).prefix, ""), ""))])
    error_message = "nothing_expires_everything: a rule that expires must be for the tagged pictures, records/, index/ or sources/; a bucket-wide one deletes permanent pictures."
  }

  assert {
    condition     = alltrue([for prefix in ["images/", "records/", "index/", "sources/", "control/"] : anytrue([for rule in aws_s3_bucket_lifecycle_configuration.images.rule : rule.status == "Enabled" && length(rule.noncurrent_version_expiration) == 1 && try(coalesce(one(rule.filter).prefix, ""), "") == prefix])])
    error_message = "storage_shrinks: with versioning an expiration only hides; noncurrent versions must expire under every prefix."
  }

  assert {
    condition     = anytrue([for rule in aws_s3_bucket_lifecycle_configuration.images.rule : length(rule.abort_incomplete_multipart_upload) == 1 && try(one(rule.expiration).expired_object_delete_marker, false) && try(coalesce(one(rule.expiration).days, 0), 0) == 0 && try(length(one(rule.filter).and), 0) == 0 && try(length(one(rule.filter).tag), 0) == 0])
    error_message = "leftovers: delete markers and unfinished uploads are removed by a rule without a tag and without days; S3 refuses them elsewhere."
  }

  assert {
    condition     = aws_s3_bucket_lifecycle_configuration.images.transition_default_minimum_object_size == "all_storage_classes_128K"
    error_message = "small_pictures_stay_on_purpose: below 128 KB nothing moves; that has to be said and not stumbled upon."
  }

  assert {
    condition     = [for rule in aws_s3_bucket_lifecycle_configuration.images.rule : one(rule.expiration).days if rule.id == "sources"][0] * 86400 > aws_sqs_queue.jobs_dead_letter.message_retention_seconds && [for rule in aws_s3_bucket_lifecycle_configuration.images.rule : one(rule.expiration).days if rule.id == "records"][0] == 635 && [for rule in aws_s3_bucket_lifecycle_configuration.images.rule : one(rule.expiration).days if rule.id == "index"][0] == 635
    error_message = "sources_outlive_the_dead_letter_queue: otherwise a redrive pays again. Records and lists live as long as pictures."
  }

  # ---- CDN

  assert {
    condition     = [for origin in aws_cloudfront_distribution.main.origin : origin.origin_access_control_id if origin.origin_id == "images"] == ["EOAC"] && alltrue([for origin in aws_cloudfront_distribution.main.origin : length(origin.s3_origin_config) == 0 && length(origin.custom_origin_config) == 0]) && aws_cloudfront_origin_access_control.images.signing_behavior == "always" && aws_cloudfront_origin_access_control.images.signing_protocol == "sigv4"
    error_message = "origin_access_control: not the legacy identity."
  }

  assert {
    condition     = [for origin in aws_cloudfront_distribution.main.origin : origin.domain_name if origin.origin_id == "images"] == ["images-bucket.s3.ap-south-1.amazonaws.com"]
    error_message = "regional_origin: the global name of a new bucket redirects."
  }

  assert {
    condition     = aws_cloudfront_distribution.main.price_class == "PriceClass_200"
    error_message = "price_class: PriceClass_100 has no edge in India."
  }

  assert {
    condition     = alltrue([for code in [403, 404] : anytrue([for response in aws_cloudfront_distribution.main.custom_error_response : response.error_code == code && response.error_caching_min_ttl == 0 && response.response_page_path == null])]) && alltrue([for response in aws_cloudfront_distribution.main.custom_error_response : response.error_caching_min_ttl == 0])
    error_message = "errors_are_not_cached: a picture asked for too early would stay missing."
  }

  assert {
    condition     = aws_cloudfront_cache_policy.images.default_ttl == 86400 && aws_cloudfront_cache_policy.images.min_ttl == 0 && aws_cloudfront_cache_policy.images.max_ttl == 31536000 && aws_cloudfront_distribution.main.default_cache_behavior[0].cache_policy_id == "cache-policy-of-ours" && length(aws_cloudfront_distribution.main.default_cache_behavior[0].forwarded_values) == 0
    error_message = "cache_policy: 24 hours by default, a year for what says so; a minimum above 0 would overrule no-store, and forwarded_values cannot stand beside a policy."
  }

  assert {
    condition     = alltrue([for behavior in concat(aws_cloudfront_distribution.main.default_cache_behavior, aws_cloudfront_distribution.main.ordered_cache_behavior) : behavior.compress == false]) && one(aws_cloudfront_cache_policy.images.parameters_in_cache_key_and_forwarded_to_origin).enable_accept_encoding_gzip == false && one(aws_cloudfront_cache_policy.images.parameters_in_cache_key_and_forwarded_to_origin).enable_accept_encoding_brotli == false
    error_message = "no_compression_of_webp: it has no effect, and Accept-Encoding in the key splits the cache."
  }

  assert {
    condition     = aws_cloudfront_distribution.main.default_cache_behavior[0].response_headers_policy_id == "headers-policy-of-ours" && contains(one(one(aws_cloudfront_response_headers_policy.images.cors_config).access_control_allow_origins).items, "*") && length(one(aws_cloudfront_response_headers_policy.images.security_headers_config).strict_transport_security) == 1
    error_message = "cors_at_the_edge: CORS of the bucket has no effect, for the Origin header never gets there."
  }

  assert {
    condition     = aws_cloudfront_distribution.main.http_version == "http2and3" && aws_cloudfront_distribution.main.default_cache_behavior[0].viewer_protocol_policy == "redirect-to-https" && aws_cloudfront_distribution.main.ordered_cache_behavior[0].viewer_protocol_policy == "https-only"
    error_message = "https: HTTP/3, redirect for pictures, and no key in the clear to the API."
  }

  # ---- the API behind it

  assert {
    condition     = aws_cloudfront_distribution.main.ordered_cache_behavior[0].path_pattern == "/v1/*" && aws_cloudfront_distribution.main.ordered_cache_behavior[0].cache_policy_id == "4135ea2d-6df8-44a3-9df3-4b5a84be39ad" && aws_cloudfront_distribution.main.ordered_cache_behavior[0].origin_request_policy_id == "b689b0a8-53d0-40ab-baf2-68738e2966ac" && contains(aws_cloudfront_distribution.main.ordered_cache_behavior[0].allowed_methods, "POST")
    error_message = "api_is_not_cached: /v1/* with every header but Host, POST among the methods."
  }

  assert {
    condition     = aws_lb.api.internal && [for origin in aws_cloudfront_distribution.main.origin : one(origin.vpc_origin_config).vpc_origin_id if origin.origin_id == "api"] == ["vo_1"] && one(aws_cloudfront_vpc_origin.api.vpc_origin_endpoint_config).arn == aws_lb.api.arn
    error_message = "private_origin: the load balancer is internal and reached by the VPC origin."
  }

  assert {
    condition     = aws_vpc_security_group_ingress_rule.load_balancer_from_cloudfront.prefix_list_id == "pl-cloudfront" && aws_vpc_security_group_ingress_rule.load_balancer_from_cloudfront.cidr_ipv4 == null && alltrue([for rule in aws_vpc_security_group_ingress_rule.api_from_load_balancer : rule.cidr_ipv4 == null])
    error_message = "nothing_open: no rule lets an address range in."
  }

  assert {
    condition     = [for origin in aws_cloudfront_distribution.main.origin : one(origin.vpc_origin_config).origin_read_timeout if origin.origin_id == "api"][0] > 20 && aws_lb.api.idle_timeout > 20
    error_message = "held_requests: Prefer: wait holds an answer for 20 s."
  }
}

run "a_custom_domain" {
  variables {
    custom_domain_name  = "images.example.com"
    acm_certificate_arn = "arn:aws:acm:us-east-1:111111111111:certificate/c"
    web_acl_arn         = "arn:aws:wafv2:us-east-1:111111111111:global/webacl/w/1"
  }

  assert {
    condition     = aws_cloudfront_distribution.main.aliases == toset(["images.example.com"]) && aws_cloudfront_distribution.main.viewer_certificate[0].minimum_protocol_version == "TLSv1.2_2021" && aws_cloudfront_distribution.main.web_acl_id == var.web_acl_arn && output.api_environment.PUBLIC_BASE_URL == "https://images.example.com" && output.api_environment.CLOUDFRONT_DOMAIN == "images.example.com" && output.cloudfront_url == "https://images.example.com"
    error_message = "custom_domain: the name must reach the distribution and the API's own URLs."
  }
}
