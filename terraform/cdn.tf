# One HTTPS host for clients: pictures from the bucket, /v1/* from the API through a private origin.

locals {
  # Managed by AWS, the same everywhere.
  caching_disabled_policy_id               = "4135ea2d-6df8-44a3-9df3-4b5a84be39ad"
  all_viewer_except_host_request_policy_id = "b689b0a8-53d0-40ab-baf2-68738e2966ac"
  security_headers_policy_id               = "67f7725c-6f97-4210-82d7-5512b31e9d03"
}

resource "aws_cloudfront_origin_access_control" "images" {
  name                              = "${var.name}-images"
  description                       = "Signs reads of the bucket"
  origin_access_control_origin_type = "s3"
  signing_behavior                  = "always"
  signing_protocol                  = "sigv4"
}

# A way from CloudFront into the VPC, so that the load balancer has no public address.
resource "aws_cloudfront_vpc_origin" "api" {
  vpc_origin_endpoint_config {
    name                   = local.api_group_name
    arn                    = aws_lb.api.arn
    http_port              = 80
    https_port             = 443
    origin_protocol_policy = "http-only"

    origin_ssl_protocols {
      items    = ["TLSv1.2"]
      quantity = 1
    }
  }

  # CloudFront asks for a gateway attached to the VPC.
  depends_on = [aws_internet_gateway.main]
}

# A day for what says nothing of itself; pictures say a year and immutable. A minimum of 0, so that no-store is heard. The key
# is the path alone: WebP is compressed already, so neither 'compress' nor Accept-Encoding would do anything but split the cache.
resource "aws_cloudfront_cache_policy" "images" {
  name        = "${var.name}-images"
  comment     = "Path only, 24 hours unless the object says otherwise"
  min_ttl     = 0
  default_ttl = 86400
  max_ttl     = 31536000

  parameters_in_cache_key_and_forwarded_to_origin {
    enable_accept_encoding_brotli = false
    enable_accept_encoding_gzip   = false

    cookies_config {
      cookie_behavior = "none"
    }
    headers_config {
      header_behavior = "none"
    }
    query_strings_config {
      query_string_behavior = "none"
    }
  }
}

# CORS is answered here and not by the bucket: S3 would have to see the Origin header, which is not in the cache key, and the
# first origin's answer would be served to all.
resource "aws_cloudfront_response_headers_policy" "images" {
  #checkov:skip=CKV_AWS_259:strict transport security without 'preload': a browser's preload list is for the owner of a whole domain to ask for
  name    = "${var.name}-images"
  comment = "Security headers, and CORS for scripts that read pictures"

  cors_config {
    access_control_allow_credentials = false
    origin_override                  = true
    access_control_max_age_sec       = 86400

    access_control_allow_headers {
      items = ["*"]
    }
    access_control_allow_methods {
      items = ["GET", "HEAD"]
    }
    access_control_allow_origins {
      items = var.cors_allowed_origins
    }
    access_control_expose_headers {
      items = ["ETag", "Age", "X-Cache"]
    }
  }

  security_headers_config {
    strict_transport_security {
      access_control_max_age_sec = 31536000
      include_subdomains         = true
      preload                    = false
      override                   = true
    }
    content_type_options {
      override = true
    }
    frame_options {
      frame_option = "DENY"
      override     = true
    }
    referrer_policy {
      referrer_policy = "strict-origin-when-cross-origin"
      override        = true
    }
    content_security_policy {
      content_security_policy = "default-src 'none'; frame-ancestors 'none'"
      override                = true
    }
  }
}

resource "aws_cloudfront_distribution" "main" {
  #checkov:skip=CKV_AWS_68:a web ACL is the operator's, by web_acl_arn
  #checkov:skip=CKV2_AWS_47:a web ACL is the operator's, by web_acl_arn
  #checkov:skip=CKV_AWS_86:requests are counted by the metrics below; a log of each needs a second bucket, and holds addresses of pupils
  #checkov:skip=CKV_AWS_174:TLS 1.2 is set with a custom domain; the default certificate has no such setting
  #checkov:skip=CKV2_AWS_42:a certificate comes with custom_domain_name
  #checkov:skip=CKV_AWS_305:there is no page at the root
  #checkov:skip=CKV_AWS_310:the bucket is the one copy, there is nothing to fail over to
  #checkov:skip=CKV_AWS_374:pupils travel
  comment         = var.name
  enabled         = true
  is_ipv6_enabled = true
  http_version    = "http2and3"
  price_class     = var.cloudfront_price_class
  aliases         = var.custom_domain_name == null ? [] : [var.custom_domain_name]
  web_acl_id      = var.web_acl_arn

  origin {
    origin_id = "images"
    # The regional name: the global one redirects for a bucket that is new.
    domain_name              = aws_s3_bucket.images.bucket_regional_domain_name
    origin_access_control_id = aws_cloudfront_origin_access_control.images.id
  }

  origin {
    origin_id   = "api"
    domain_name = aws_lb.api.dns_name

    dynamic "vpc_origin_config" {
      for_each = aws_cloudfront_vpc_origin.api[*].id
      content {
        vpc_origin_id = vpc_origin_config.value
        # Above the 20 s of Prefer: wait.
        origin_read_timeout      = 30
        origin_keepalive_timeout = 30
      }
    }
  }

  default_cache_behavior {
    target_origin_id           = "images"
    viewer_protocol_policy     = "redirect-to-https"
    allowed_methods            = ["GET", "HEAD", "OPTIONS"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = false
    cache_policy_id            = one(aws_cloudfront_cache_policy.images[*].id)
    response_headers_policy_id = one(aws_cloudfront_response_headers_policy.images[*].id)
  }

  # A bearer key must not travel in the clear, so here plain HTTP is refused and not redirected.
  ordered_cache_behavior {
    path_pattern               = "/v1/*"
    target_origin_id           = "api"
    viewer_protocol_policy     = "https-only"
    allowed_methods            = ["GET", "HEAD", "OPTIONS", "PUT", "POST", "PATCH", "DELETE"]
    cached_methods             = ["GET", "HEAD"]
    compress                   = false
    cache_policy_id            = local.caching_disabled_policy_id
    origin_request_policy_id   = local.all_viewer_except_host_request_policy_id
    response_headers_policy_id = local.security_headers_policy_id
  }

  # CloudFront keeps errors for 10 s unless told otherwise: a picture asked for too early would stay missing. 403 is what a
  # missing object is here, 404 what it would be with the right to list.
  dynamic "custom_error_response" {
    for_each = [400, 403, 404, 405, 414, 416, 500, 501, 502, 503, 504]
    content {
      error_code            = custom_error_response.value
      error_caching_min_ttl = 0
    }
  }

  restrictions {
    geo_restriction {
      restriction_type = "none"
    }
  }

  viewer_certificate {
    cloudfront_default_certificate = var.acm_certificate_arn == null
    acm_certificate_arn            = var.acm_certificate_arn
    ssl_support_method             = var.acm_certificate_arn == null ? null : "sni-only"
    minimum_protocol_version       = var.acm_certificate_arn == null ? null : "TLSv1.2_2021"
  }
}

# Cache hit rate, origin latency and the rate of each status exist only with it.
resource "aws_cloudfront_monitoring_subscription" "main" {
  distribution_id = aws_cloudfront_distribution.main.id

  monitoring_subscription {
    realtime_metrics_subscription_config {
      realtime_metrics_subscription_status = "Enabled"
    }
  }
}
