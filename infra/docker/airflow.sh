#!/bin/sh
# Starts a component of Airflow, or init.sh: writes the users' passwords where Airflow reads them, in memory, then runs.
set -eu
umask 077
# Other users than the one of .env: a JSON mapping of names to passwords in AIRFLOW_PASSWORDS.
printf '%s' "${AIRFLOW_PASSWORDS:-{\"$AIRFLOW_USER\": \"$AIRFLOW_PASSWORD\"\}}" \
  > "$AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"
umask 022
case "${1:-}" in
  init.sh | python) exec "$@" ;;
  *) exec airflow "$@" ;;
esac
