#!/usr/bin/env bash
# Writes the lock of each runtime, at the versions of requirements.lock: small.lock, and the packages that gpu and
# trigger have in addition. kfp runs a component without any of its own dependencies, so small.lock has kfp alone.
set -euo pipefail
cd "$(dirname "$0")/.."

resolve() { # extra, overrides -> its packages and their dependencies
  .venv/bin/uv pip compile pyproject.toml --extra "$1" --constraint requirements.lock --override "$2" --universal \
    --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet
}
beyond() { # lock -> the entries of standard input that are not in it
  awk 'NR == FNR { if (/^[^ ]/) known[$0]; next } /^[^ ]/ { fresh = !($0 in known) } fresh' "$1" -
}

# the library's one heavy dependency, which small and trigger leave out
without_torch=$(mktemp)
trap 'rm -f "$without_torch"' EXIT
echo "torch ; python_version < '3'" >"$without_torch"

{
  resolve small "$without_torch"
  awk '/^[^ ]/ { wanted = /^kfp==/ } wanted' requirements.lock
} >Dockerfiles/small.lock
resolve images /dev/null | beyond Dockerfiles/small.lock >Dockerfiles/gpu.lock
resolve trigger "$without_torch" | beyond Dockerfiles/small.lock >Dockerfiles/trigger.lock
