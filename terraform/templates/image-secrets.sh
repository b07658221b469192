#!/bin/bash
# Writes the secrets of image-api to a file that only root can read, before each start of the service.
set -euo pipefail
umask 077
export HOME=/root

fetch() {
  aws secretsmanager get-secret-value --secret-id "$1" --query SecretString --output text
}

api_keys=$(fetch "$API_KEYS_SECRET")
job_id_keys=$(fetch "$JOB_ID_KEYS_SECRET")

# systemd would give quotes, backslashes, spaces and line ends a meaning of its own.
for value in "$api_keys" "$job_id_keys"; do
  case $value in
    '' | *[!A-Za-z0-9:,._~+/=@%^*!#\&-]*)
      echo "image-secrets: a secret is empty or has a character other than A-Z a-z 0-9 : , . _ ~ + / = @ % ^ * ! # & -" >&2
      exit 1
      ;;
  esac
done

mkdir -p /run/image-pipeline
printf "API_KEYS='%s'\nJOB_ID_KEYS='%s'\n" "$api_keys" "$job_id_keys" >/run/image-pipeline/secrets.env.new
mv /run/image-pipeline/secrets.env.new /run/image-pipeline/secrets.env
