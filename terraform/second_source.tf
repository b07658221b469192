# A second source of pictures, alone or while Bedrock is out of order: the workers' settings, its key, and the way to it.

locals {
  second_source = var.second_source == null ? [] : [var.second_source]

  second_source_environment = merge([for source in local.second_source : merge(
    { fallback = { MODEL_FALLBACK = "openai" }, alone = { MODEL_SOURCE = "openai" } }[source.use],
    {
      OPENAI_BASE_URL   = source.base_url
      OPENAI_MODEL      = source.model
      OPENAI_SIZE       = source.size
      OPENAI_DIALECT    = source.dialect
      OPENAI_ALLOW_HTTP = tostring(startswith(source.base_url, "http:"))
    },
  )]...)

  # Of a URL without one: 80 or 443.
  second_source_ports = [for source in local.second_source : tonumber(try(
    regex("^https?://(?:[^/:]+|\\[[^\\]]+\\]):([0-9]+)", source.base_url)[0],
    startswith(source.base_url, "http:") ? 80 : 443,
  ))]

  worker_secret_arns = { for secret in aws_secretsmanager_secret.second_source_key : "OPENAI_API_KEY" => secret.arn }
}

# Without a value: Terraform does not know the key. Workers start once somebody has put it (README.md).
resource "aws_secretsmanager_secret" "second_source_key" {
  #checkov:skip=CKV_AWS_149:as in secrets.tf
  #checkov:skip=CKV2_AWS_57:the key is made and changed where the pictures come from
  count = length([for source in local.second_source : source if source.has_key])

  name                    = "${var.name}/second-source-key"
  description             = "OPENAI_API_KEY: the key of the second source of pictures"
  recovery_window_in_days = var.force_destroy ? 0 : 7
}

# 443 is open already.
resource "aws_vpc_security_group_egress_rule" "worker_to_second_source" {
  for_each = toset([for port in local.second_source_ports : tostring(port) if port != 443])

  security_group_id = aws_security_group.worker.id
  description       = "Second source of pictures"
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = tonumber(each.value)
  to_port           = tonumber(each.value)
}
