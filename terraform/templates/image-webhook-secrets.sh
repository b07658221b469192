#!/bin/bash
# Writes the setting WEBHOOKS to a file that only root can read, before each start of image-webhooks.
set -euo pipefail
umask 077
export HOME=/root

webhooks=$(aws secretsmanager get-secret-value --secret-id "$WEBHOOKS_SECRET" --query SecretString --output text | tr -d '\r\n')

# It is JSON, between single quotes: these two would have a meaning for systemd. No URL and no secret needs either.
case $webhooks in
  '' | *[\'\\]*)
    echo "image-webhook-secrets: the secret is empty, or has a single quote or a backslash" >&2
    exit 1
    ;;
esac

mkdir -p /run/image-pipeline
printf "WEBHOOKS='%s'\n" "$webhooks" >/run/image-pipeline/webhooks.env.new
mv /run/image-pipeline/webhooks.env.new /run/image-pipeline/webhooks.env
