#!/bin/sh
# Says where the pages of docker-compose.yml are, as .env and the defaults have it.
set -eu
cd "$(dirname "$0")/.."
value() { sed -n "s/^$1=//p" .env | tail -n 1; }
page() {  # page TITLE URL_VARIABLE PORT_VARIABLE DEFAULT_PORT
  url=$(value "$2")
  port=$(value "$3")
  printf '%-8s %s\n' "$1" "${url:-http://127.0.0.1:${port:-$4}}"
}
page Airflow AIRFLOW_URL AIRFLOW_PORT 8080
page MLflow MLFLOW_URL MLFLOW_PORT 5000
page Ray RAY_URL RAY_PORT 8265
user=$(value AIRFLOW_USER)
echo "Airflow's user is ${user:-admin}; its password and Ray's token: AIRFLOW_PASSWORD and RAY_AUTH_TOKEN in .env"
