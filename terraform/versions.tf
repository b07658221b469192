# Versions, providers, and the names that every file shares.

terraform {
  # Write-only arguments and ephemeral resources keep secrets out of the state: both need 1.11.
  required_version = ">= 1.11.0"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 5.100"
    }
  }
}

provider "aws" {
  region = var.region

  default_tags {
    tags = local.tags
  }
}

# CloudFront publishes its metrics in us-east-1 alone, so its alarms and their topic have to live there.
provider "aws" {
  alias  = "us_east_1"
  region = "us-east-1"

  default_tags {
    tags = local.tags
  }
}

# For ephemeral resources alone (secrets.tf). Of its own, because a provider that is mocked in tests knows none.
provider "aws" {
  alias  = "ephemeral"
  region = var.region
}

locals {
  tags = merge({ Project = var.name }, var.tags)

  # Fixed names, not prefixes: alarms, policies and the worker's settings refer to them before anything exists.
  queue_name         = "${var.name}-jobs"
  batch_queue_name   = "${var.name}-batches"
  dead_letter_name   = "${var.name}-jobs-dead-letter"
  worker_group_name  = "${var.name}-worker"
  webhook_queue_name = "${var.name}-webhooks"
  api_group_name     = "${var.name}-api"
  worker_hook_name   = "drain"

  webhook_dead_letter_name = "${var.name}-webhooks-dead-letter"

  availability_zones = coalesce(var.availability_zones, [for zone in ["a", "b"] : "${var.region}${zone}"])
}
