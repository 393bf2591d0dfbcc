#!/bin/sh
# Takes a machine from the image that it runs to another: `make deploy`, by hand or in deploy.yml.
#   ML_ASSETS_IMAGE      the image, by digest: name@sha256:…
#   ML_ASSETS_ENV_FILE   the secrets; by default deploy/.env. Outside of the checkout in deploy.yml
#   ML_ASSETS_BACKUPS    where the databases' backups go; by default ~/ml_assets_backups. Never in
#                        the checkout, which `actions/checkout` empties
#   REGISTRY_USER, REGISTRY_PASSWORD   the login at the image's registry; without them as you are
#                        logged in already
# It stops at the first thing that fails, and says how to go back.
set -eu
cd "$(dirname "$0")/.."

case "${ML_ASSETS_IMAGE:-}" in
  *@sha256:*) ;;
  *) echo "ML_ASSETS_IMAGE is '${ML_ASSETS_IMAGE:-}': name the image by digest, name@sha256:…" >&2; exit 2 ;;
esac
export ML_ASSETS_IMAGE
backups="$(realpath -m "${ML_ASSETS_BACKUPS:-$HOME/ml_assets_backups}")"
case "$backups/" in
  "$(pwd -P)"/*) echo "ML_ASSETS_BACKUPS is $backups: name a folder outside of the checkout, which is emptied at times" >&2; exit 2 ;;
esac
backups="$backups/$(date -u +%Y-%m-%dT%H-%M-%SZ)"

settings="${ML_ASSETS_ENV_FILE:-deploy/.env}"
compose() { docker compose --file deploy/compose.yaml --env-file "$settings" "$@"; }
trap '[ $? = 0 ] || echo "Not deployed. docs/runbook.md, \"Go back to the release before\", tells how; backups: $backups" >&2' EXIT

# The read-only webserver, if there is one: stopped too, after a deployment that failed.
if [ -n "$(compose --profile viewer ps --all --quiet viewer)" ]; then
  export COMPOSE_PROFILES="${COMPOSE_PROFILES:+$COMPOSE_PROFILES,}viewer"
  viewer=viewer
fi

if [ -n "${REGISTRY_PASSWORD:-}" ]; then
  printf '%s' "$REGISTRY_PASSWORD" |
    docker login --username "${REGISTRY_USER:-}" --password-stdin "${ML_ASSETS_IMAGE%%/*}"
fi
compose pull
compose up --detach --wait postgres
# The daemon first, so that nothing new begins; the code server waits for its runs (five minutes;
# then they are interrupted, and started again afterwards).
compose stop daemon
compose stop webserver ${viewer:-} code mlflow
mkdir -p "$backups"
chmod 700 "$backups"
for database in dagster mlflow; do
  compose exec -T postgres pg_dump --username postgres --format custom "$database" > "$backups/$database.dump"
done
# shellcheck disable=SC2016  # the variable is the container's
compose run --rm --no-deps mlflow sh -c 'exec mlflow db upgrade "$MLFLOW_BACKEND_STORE_URI"'
compose run --rm --no-deps code ml-assets migrate
compose up --detach --wait
# Or the next `compose up`, for a new password say, would bring the old image back.
sed -i "s|^ML_ASSETS_IMAGE=.*|ML_ASSETS_IMAGE=$ML_ASSETS_IMAGE|" "$settings"
echo "Deployed $ML_ASSETS_IMAGE; the databases of before are in $backups"
