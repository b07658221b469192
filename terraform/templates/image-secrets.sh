#!/bin/bash
# Writes the secrets of a service to a file that only root can read, before each start: for each NAME_SECRET, the ARN that
# the unit has, a line NAME.
set -euo pipefail
umask 077
export HOME=/root

lines=
for setting in $(compgen -e | grep '_SECRET$' | sort); do
  value=$(aws secretsmanager get-secret-value --secret-id "${!setting}" --query SecretString --output text)
  # systemd would give quotes, backslashes, spaces and line ends a meaning of its own.
  case $value in
    '' | *[!A-Za-z0-9:,._~+/=@%^*!#\&-]*)
      echo "image-secrets: a secret, ${setting%_SECRET}, is empty or has a character other than A-Z a-z 0-9 : , . _ ~ + / = @ % ^ * ! # & -" >&2
      exit 1
      ;;
  esac
  lines+="${setting%_SECRET}='$value'"$'\n'
done

mkdir -p /run/image-pipeline
printf '%s' "$lines" >/run/image-pipeline/secrets.env.new
mv /run/image-pipeline/secrets.env.new /run/image-pipeline/secrets.env
