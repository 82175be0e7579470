#!/usr/bin/env bash
# Writes what each runtime installs, at the versions of requirements.lock: small.lock, and what gpu and trigger have
# beyond it. kfp runs a component without any of its own dependencies, so small.lock has it alone.
set -euo pipefail
cd "$(dirname "$0")/.."

resolve() { # extra, overrides -> its packages and all that they need
  .venv/bin/uv pip compile pyproject.toml --extra "$1" --constraint requirements.lock --override "$2" --universal \
    --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header --quiet
}
beyond() { # lock -> the entries of standard input that it does not have
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
