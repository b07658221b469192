# What an operator may set outside of the pipeline itself: place, network, storage, delivery, releases, alarms.

variable "name" {
  description = "Prefix of every name. Names of roles and of CloudFront's policies are one set for the account: a second region needs another name."
  type        = string
  default     = "image-pipeline"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{2,23}$", var.name))
    error_message = "name must be 3 to 24 characters of a-z, 0-9 and '-', starting with a letter: load balancers allow 32 in all."
  }

  validation {
    condition     = !startswith(var.name, "internal-")
    error_message = "name must not begin with 'internal-', which load balancers keep for themselves."
  }
}

variable "region" {
  description = "Region of everything but the model, CloudFront and CloudFront's alarms."
  type        = string
  default     = "ap-south-1"
}

variable "tags" {
  description = "Tags of every resource, besides Project."
  type        = map(string)
  default     = {}
}

# ---- network

variable "vpc_cidr" {
  description = "Address range of the VPC; split into four subnets."
  type        = string
  default     = "10.40.0.0/16"

  validation {
    condition     = can(cidrnetmask(var.vpc_cidr)) && can(regex("/(1[6-9]|2[0-3])$", var.vpc_cidr))
    error_message = "vpc_cidr must be an IPv4 range of /16 to /23, such as 10.40.0.0/16: a subnet is a sixteenth of it, and a load balancer needs /27."
  }
}

variable "availability_zones" {
  description = "The two zones. Default: a and b of the region; where an account has not both, name them (aws ec2 describe-availability-zones)."
  type        = list(string)
  default     = null

  validation {
    condition     = var.availability_zones == null ? true : length(distinct(var.availability_zones)) == 2
    error_message = "availability_zones must name two different zones: the load balancer needs two."
  }
}

variable "egress" {
  description = "How instances reach SQS and the model: 'nat' (private subnets) or 'public' (public addresses, nothing inbound). The model is in another region, so an interface endpoint cannot replace either."
  type        = string
  default     = "nat"

  validation {
    condition     = contains(["nat", "public"], var.egress)
    error_message = "egress must be 'nat' or 'public'."
  }
}

variable "nat_gateway_per_zone" {
  description = "A NAT gateway in each zone instead of one for both. Only with egress = 'nat'."
  type        = bool
  default     = false
}

variable "cloudfront_prefix_list_id" {
  description = "Managed prefix list com.amazonaws.global.cloudfront.origin-facing of the region. Default: looked up."
  type        = string
  default     = null
}

# ---- storage (the names are those of the seed document)

variable "s3_bucket_prefix" {
  description = "Beginning of the bucket's name; AWS makes the rest unique."
  type        = string
  default     = "education-portal-images"

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{1,34}[a-z0-9]$", var.s3_bucket_prefix))
    error_message = "s3_bucket_prefix must be 3 to 36 characters of a-z, 0-9 and '-': 26 more are added to make it unique."
  }
}

variable "image_lifecycle_ia_days" {
  description = "Age at which a picture moves to STANDARD_IA, in days."
  type        = number
  default     = 90

  validation {
    condition     = var.image_lifecycle_ia_days >= 30
    error_message = "image_lifecycle_ia_days must be 30 or more: S3 refuses an earlier transition to STANDARD_IA."
  }
}

variable "image_lifecycle_glacier_days" {
  description = "Days in STANDARD_IA before GLACIER_IR."
  type        = number
  default     = 180

  validation {
    condition     = var.image_lifecycle_glacier_days >= 30
    error_message = "image_lifecycle_glacier_days must be 30 or more: S3 wants 30 days in STANDARD_IA first."
  }
}

variable "image_lifecycle_expiration_days" {
  description = "Days in GLACIER_IR before deletion."
  type        = number
  default     = 365

  validation {
    condition     = var.image_lifecycle_expiration_days >= 90
    error_message = "image_lifecycle_expiration_days must be 90 or more: GLACIER_IR charges for 90 days in any case."
  }
}

variable "source_retention_days" {
  description = "Days to keep what the model returned. A redrive from the dead-letter queue later than this pays again."
  type        = number
  default     = 21

  validation {
    condition     = var.source_retention_days > 14
    error_message = "source_retention_days must be above 14, the retention of the dead-letter queue: a redrive must find the paid source."
  }
}

variable "noncurrent_version_days" {
  description = "Days to keep an overwritten or deleted version of a picture."
  type        = number
  default     = 30

  validation {
    condition     = var.noncurrent_version_days >= 1
    error_message = "noncurrent_version_days must be 1 or more: without it, deleted pictures are billed for ever."
  }
}

variable "force_destroy" {
  description = "Let 'terraform destroy' delete the bucket with everything in it, and secrets without a waiting time. Apply it before destroying."
  type        = bool
  default     = false
}

# ---- delivery

variable "cloudfront_price_class" {
  description = "Edge locations in use. PriceClass_100 has none in India."
  type        = string
  default     = "PriceClass_200"

  validation {
    condition     = contains(["PriceClass_200", "PriceClass_All"], var.cloudfront_price_class) || (var.cloudfront_price_class == "PriceClass_100" && can(regex("^(us|ca|eu|il)-", var.region)))
    error_message = "cloudfront_price_class must be PriceClass_200 or PriceClass_All: PriceClass_100 is North America, Europe and Israel only, far from the users of this region."
  }
}

variable "custom_domain_name" {
  description = "Host name of the distribution, with a DNS record of your own. Default: the cloudfront.net name."
  type        = string
  default     = null

  validation {
    condition     = (var.custom_domain_name == null) == (var.acm_certificate_arn == null)
    error_message = "custom_domain_name and acm_certificate_arn must be given together."
  }

  validation {
    condition     = var.custom_domain_name == null ? true : can(regex("^([a-z0-9]([a-z0-9-]*[a-z0-9])?[.])+[a-z]{2,}$", var.custom_domain_name))
    error_message = "custom_domain_name must be a host name in lower case, such as images.example.com: no scheme, no path, no port."
  }
}

variable "acm_certificate_arn" {
  description = "Certificate for custom_domain_name."
  type        = string
  default     = null

  validation {
    condition     = var.acm_certificate_arn == null ? true : startswith(var.acm_certificate_arn, "arn:aws:acm:us-east-1:")
    error_message = "acm_certificate_arn must be in us-east-1: CloudFront reads certificates there only."
  }
}

variable "web_acl_arn" {
  description = "WAFv2 web ACL of scope CLOUDFRONT to put in front of pictures and API. Default: none."
  type        = string
  default     = null

  validation {
    condition     = var.web_acl_arn == null ? true : startswith(var.web_acl_arn, "arn:aws:wafv2:us-east-1:")
    error_message = "web_acl_arn must be a web ACL of scope CLOUDFRONT, which exists in us-east-1 only."
  }
}

variable "cors_allowed_origins" {
  description = "Origins whose scripts may read pictures. <img> needs none of this."
  type        = list(string)
  default     = ["*"]
}

# ---- releases

variable "artifact_bucket_name" {
  description = "Existing bucket with the released binaries: releases/VERSION/image-api and releases/VERSION/image-worker."
  type        = string
}

variable "release_version" {
  description = "Release to run. Raising it replaces the instances, a few at a time."
  type        = string

  validation {
    condition     = can(regex("^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", var.release_version)) && var.release_version != "latest"
    error_message = "release_version must be a version that never changes its content (letters, digits, '.', '_', '-'), not 'latest'."
  }
}

variable "api_sha256" {
  description = "SHA-256 of releases/VERSION/image-api. An instance refuses anything else."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.api_sha256))
    error_message = "api_sha256 must be 64 hexadecimal digits: sha256sum image-api."
  }
}

variable "worker_sha256" {
  description = "SHA-256 of releases/VERSION/image-worker. An instance refuses anything else."
  type        = string

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.worker_sha256))
    error_message = "worker_sha256 must be 64 hexadecimal digits: sha256sum image-worker."
  }
}

variable "ami_id" {
  description = "Amazon Linux 2023 image, x86_64. Default: the newest at launch; with a fixed one a failed refresh rolls back by itself."
  type        = string
  default     = null
}

# ---- secrets

variable "generate_secrets" {
  description = "Make the first API key and job-id key. With false both secrets start empty: fill them before the API can start."
  type        = bool
  default     = true
}

variable "first_tenant" {
  description = "Tenant that the generated API key belongs to."
  type        = string
  default     = "portal"

  validation {
    condition     = can(regex("^[A-Za-z0-9_-]{1,64}$", var.first_tenant))
    error_message = "first_tenant must be 1 to 64 characters of a-z, A-Z, 0-9, '_' and '-'."
  }
}

# ---- alarms

variable "alarm_emails" {
  description = "Addresses told of every alarm. Each has to confirm two mails: one topic is here, one in us-east-1."
  type        = set(string)
  default     = []
}

variable "bucket_size_alarm_gb" {
  description = "Size of the bucket that raises an alarm, in GB of 10^9 bytes."
  type        = number
  default     = 80
}

variable "log_retention_days" {
  description = "Days to keep logs."
  type        = number
  default     = 30
}
