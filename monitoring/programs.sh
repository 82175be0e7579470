#!/usr/bin/env bash
# Installs Debian's Prometheus and Pushgateway, for the checks of the rules and for `make e2e-monitoring`.
set -euo pipefail

missing=()
for program in prometheus promtool prometheus-pushgateway; do
    command -v "$program" >/dev/null || missing+=("$program")
done
if ((${#missing[@]} == 0)); then
    exit 0
fi
# where systemd runs, installing them would start them as services, which only the owner of the machine should decide
if [[ $EUID -ne 0 || -d /run/systemd/system ]] || ! command -v apt-get >/dev/null; then
    echo "missing: ${missing[*]}; install prometheus and prometheus-pushgateway (Debian: apt-get install --no-install-recommends prometheus prometheus-pushgateway)" >&2
    exit 2
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -qq --no-install-recommends prometheus prometheus-pushgateway >/dev/null
