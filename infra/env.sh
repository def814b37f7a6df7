#!/bin/sh
# Writes .env for docker-compose.yml: fresh secrets, readable by you alone.
# usage: infra/env.sh [FILE]            FILE: .env (default)
#
# What stands in the file is never changed: its passwords are those of databases that exist. Secrets that it lacks, as
# after an upgrade, are added.
set -eu
cd "$(dirname "$0")/.."
file=${1:-.env}
umask 077

hex() { od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'; }
fernet() { head -c 32 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'; }

if [ ! -e "$file" ]; then
  cat > "$file" <<'TEXT'
# Settings of docker-compose.yml; docs/compose.md tells all. Keep this file: databases have its passwords.

# Servers that compose starts. With servers of your own, take their word away and name their addresses.
COMPOSE_PROFILES=postgres,s3
# POSTGRES_HOST=db.internal
# S3_ENDPOINT_URL=https://s3.internal

# Who may open the pages. 0.0.0.0 means everybody on the network: put a proxy with TLS before it.
# BIND_ADDRESS=127.0.0.1
# AIRFLOW_URL=http://127.0.0.1:8080
# MLFLOW_URL=http://127.0.0.1:5000
# RAY_URL=http://127.0.0.1:8265

# Sizes.
# RAY_WORKERS=1
# RAY_WORKER_CPUS=4
# RAY_WORKER_MEMORY=8g

TEXT
  echo "env: wrote $file"
fi
chmod 600 "$file"

add() {  # add NAME GENERATOR...: unless the file has it
  name=$1
  shift
  ! grep -q "^$name=..*" "$file" || return 0
  printf '%s=%s\n' "$name" "$("$@")" >> "$file"
  echo "env: added $name"
}
add POSTGRES_PASSWORD hex 24
add AIRFLOW_DB_PASSWORD hex 24
add MLFLOW_DB_PASSWORD hex 24
add AIRFLOW_PASSWORD hex 12
add AIRFLOW_FERNET_KEY fernet
add AIRFLOW_SECRET_KEY hex 32
add AIRFLOW_JWT_SECRET hex 32
add RAY_AUTH_TOKEN hex 32
add S3_ACCESS_KEY hex 10
add S3_SECRET_KEY hex 32

# Where the images' packages come from, when not from the public index; and the folder for your files and recipes.
[ -e infra/docker/mirror.env ] || : > infra/docker/mirror.env
umask 022
mkdir -p data
