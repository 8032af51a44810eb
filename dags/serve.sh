#!/usr/bin/env bash
# A whole Airflow for one person on this machine: the DAGs beside this file, on 127.0.0.1 only, all of it in AIRFLOW_HOME.
#
#   dags/serve.sh [PORT]      8080; 0 takes any that is free. Ctrl-C stops it.
#
# `airflow standalone` would do nearly the same, but it also serves logs on all addresses, and SIGTERM orphans its parts.
set -euo pipefail

dags="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
bin="${AIRFLOW_BIN:-$dags/../.venv/bin}"
export AIRFLOW_HOME="${AIRFLOW_HOME:-$(dirname "$dags")/.airflow}"
mkdir -p "$AIRFLOW_HOME/logs"

port=$("$bin/python" - "${1:-8080}" <<'PYTHON'
import socket, sys
with socket.socket() as probe:
    probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        probe.bind(("127.0.0.1", int(sys.argv[1])))
    except (OSError, ValueError, OverflowError) as error:
        sys.exit(f"port {sys.argv[1]}: {error}; name another one: dags/serve.sh PORT")
    print(probe.getsockname()[1])
PYTHON
)
address="http://127.0.0.1:$port"

export AIRFLOW__API__HOST=127.0.0.1 AIRFLOW__API__PORT="$port" AIRFLOW__API__BASE_URL="$address"
export AIRFLOW__CORE__EXECUTION_API_SERVER_URL="$address/execution/"
export AIRFLOW__CORE__DAGS_FOLDER="$dags" AIRFLOW__CORE__LOAD_EXAMPLES=False
export AIRFLOW__CORE__DAGS_ARE_PAUSED_AT_CREATION=False AIRFLOW__CORE__PARALLELISM="${AIRFLOW__CORE__PARALLELISM:-4}"
export AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL=5 AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL=5
# On a busy machine the API server's first answers take longer than the default of 5 s, which fails healthy tasks.
export AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT="${AIRFLOW__WORKERS__EXECUTION_API_TIMEOUT:-120}"
export AIRFLOW__USAGE_DATA_COLLECTION__ENABLED=False
export PERFNET_PYTHON="${PERFNET_PYTHON:-$bin/python}"

log() { echo "$AIRFLOW_HOME/logs/$1.txt"; }
"$bin/airflow" db migrate >"$(log db)" 2>&1 || { tail -n 5 "$(log db)"; exit 1; }
"$bin/airflow" pools import "$dags/pools.json" >>"$(log db)" 2>&1 || { tail -n 5 "$(log db)"; exit 1; }

parts=()
stop() {
  trap - EXIT INT TERM
  [ ${#parts[@]} -eq 0 ] || kill "${parts[@]}" 2>/dev/null || true
  wait
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
for part in "api-server" "scheduler --skip-serve-logs" "triggerer --skip-serve-logs" "dag-processor"; do
  "$bin/airflow" $part >"$(log "${part%% *}")" 2>&1 &
  parts+=($!)
done

# Ready when every part reports itself healthy; the DAGs appear a few seconds later.
ready() {
  "$bin/python" - "$address" <<'PYTHON'
import json, sys, urllib.request
try:
    with urllib.request.urlopen(sys.argv[1] + "/api/v2/monitor/health", timeout=2) as answer:
        parts = json.load(answer)
except (OSError, ValueError):
    sys.exit(1)
sys.exit(any(parts[part]["status"] != "healthy" for part in ("scheduler", "triggerer", "dag_processor")))
PYTHON
}
until ready; do
  for part in "${parts[@]}"; do
    kill -0 "$part" 2>/dev/null || { echo "Airflow did not start; see $AIRFLOW_HOME/logs"; tail -n 3 "$AIRFLOW_HOME"/logs/*.txt; exit 1; }
  done
  sleep 2
done

echo "Airflow    $address"
echo "login      $("$bin/python" -c 'import json, sys; print(*next(iter(json.load(open(sys.argv[1])).items())))' \
  "$AIRFLOW_HOME/simple_auth_manager_passwords.json.generated")"
echo "DAGs       perfnet_prepare, perfnet_train from $dags"
echo "logs       $AIRFLOW_HOME/logs"
wait -n  # until a signal comes, or a part ends by itself
