#!/usr/bin/env bash
# sbom.sh FOLDER: writes the Python packages of each runtime as CycloneDX, from its locks.
set -euo pipefail
cd "$(dirname "$0")/.."

folder=$1
mkdir -p "$folder"
describe() { # runtime, its locks
  cat "${@:2}" | .venv/bin/uv tool run --quiet --from cyclonedx-bom==7.5.0 cyclonedx-py requirements \
    --output-reproducible --output-file "$folder/$1.cdx.json" -
}
describe small Dockerfiles/small.lock
describe gpu Dockerfiles/small.lock Dockerfiles/gpu.lock
describe trigger Dockerfiles/small.lock Dockerfiles/trigger.lock
