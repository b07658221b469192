# Keys of clients and of job ids. Their values pass through ephemeral resources and write-only arguments: neither plan nor
# state holds one. The format is that of API_KEYS and JOB_ID_KEYS (docs/operations.md). Rotation: README.md.

ephemeral "aws_secretsmanager_random_password" "api_key" {
  count    = var.generate_secrets ? 1 : 0
  provider = aws.ephemeral

  password_length     = 48
  exclude_punctuation = true
}

ephemeral "aws_secretsmanager_random_password" "job_id_key" {
  count    = var.generate_secrets ? 1 : 0
  provider = aws.ephemeral

  password_length     = 64
  exclude_punctuation = true
}

resource "aws_secretsmanager_secret" "api_keys" {
  #checkov:skip=CKV_AWS_149:encrypted with the account's key of Secrets Manager; a key of its own would have the same readers
  #checkov:skip=CKV2_AWS_57:a key changes when its client can change, which no schedule knows; README.md says how
  name                    = "${var.name}/api-keys"
  description             = "API_KEYS: comma-separated tenant:key"
  recovery_window_in_days = var.force_destroy ? 0 : 7
}

resource "aws_secretsmanager_secret" "job_id_keys" {
  #checkov:skip=CKV_AWS_149:as above
  #checkov:skip=CKV2_AWS_57:rotated in three deploys, by hand (docs/operations.md): a schedule would make issued ids unknown
  name                    = "${var.name}/job-id-keys"
  description             = "JOB_ID_KEYS: comma-separated secrets, newest first"
  recovery_window_in_days = var.force_destroy ? 0 : 7
}

# The version stays 1: later values are put by hand, and an apply must not overwrite them.
resource "aws_secretsmanager_secret_version" "api_keys" {
  count = var.generate_secrets ? 1 : 0

  secret_id                = aws_secretsmanager_secret.api_keys.id
  secret_string_wo         = "${var.first_tenant}:${ephemeral.aws_secretsmanager_random_password.api_key[0].random_password}"
  secret_string_wo_version = 1
}

resource "aws_secretsmanager_secret_version" "job_id_keys" {
  count = var.generate_secrets ? 1 : 0

  secret_id                = aws_secretsmanager_secret.job_id_keys.id
  secret_string_wo         = ephemeral.aws_secretsmanager_random_password.job_id_key[0].random_password
  secret_string_wo_version = 1
}
