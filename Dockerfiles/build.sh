#!/usr/bin/env bash
# Builds every image under its name in components/images.py; arguments are passed to each `docker build`.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(.venv/bin/python -c 'import alfamix_core; print(alfamix_core.__version__)')
revision=$(git rev-parse HEAD 2>/dev/null || echo unknown)
[ -z "$(git status --porcelain 2>/dev/null)" ] || revision=$revision-dirty
origin=$(git remote get-url origin 2>/dev/null || echo unknown)

.venv/bin/python -m components.images | while read -r component image; do
  output=$(docker build --quiet --file Dockerfiles/Dockerfile --target "$component" --tag "$image" \
    --label "org.opencontainers.image.title=alfamix-$component" \
    --label "org.opencontainers.image.version=$version" \
    --label "org.opencontainers.image.revision=$revision" \
    --label "org.opencontainers.image.source=${SOURCE:-$origin}" \
    ${BASE:+--build-arg "BASE=$BASE"} "$@" . </dev/null 2>&1) || { echo "$output" >&2; exit 1; }
  echo "$image"
done
