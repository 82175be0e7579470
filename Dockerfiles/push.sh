#!/usr/bin/env bash
# push.sh REGISTRY FILE: pushes every image to a registry, and writes a line `component image@digest` per image.
set -euo pipefail
cd "$(dirname "$0")/.."

registry=${1%/} file=$2
mkdir -p "$(dirname "$file")"
.venv/bin/python -m components.images | while read -r component image; do
  pushed=$registry/${image##*/}
  docker tag "$image" "$pushed"
  docker push --quiet "$pushed" </dev/null >/dev/null
  digest=$(docker image inspect --format '{{range .RepoDigests}}{{println .}}{{end}}' "$pushed" | grep -F "${pushed%:*}@" | tail -n 1)
  echo "$component $digest"
done >"$file.new"
mv "$file.new" "$file"
cat "$file"
