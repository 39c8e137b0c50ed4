#!/usr/bin/env bash
# Server and agent on this machine, over mTLS, with the agent's status page on,
# and a stream of what the server keeps. Everything lives in demo/ and everything
# that this starts it stops, on Ctrl-C or after DEMO_SECONDS.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 077

# A port that nobody listens on, from the one wanted.
free_port() {
  local port=$1
  while (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do port=$((port + 1)); done
  echo "$port"
}

# Waits up to ten seconds until the command succeeds.
wait_for() {
  for _ in $(seq 100); do
    "$@" >/dev/null 2>&1 && return
    sleep 0.1
  done
  return 1
}

answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

server= agent= stream=
stop() {
  trap '' INT TERM
  [ -n "$stream" ] && kill "$stream" 2>/dev/null
  [ -n "$agent" ] && kill "$agent" 2>/dev/null && wait "$agent"
  [ -n "$server" ] && kill "$server" 2>/dev/null && wait "$server"
  wait
  return 0
}
trap 'stop; echo; echo "Stopped. What the server keeps is in demo/data, the logs are demo/*.log."; exit "${failed:-0}"' EXIT
trap 'exit' INT TERM

fail() {
  failed=1
  echo "demo: $1" >&2
  tail -n 5 demo/*.log >&2
  exit 1
}

rm -rf demo
mkdir demo
ingest=$(free_port "${DEMO_PORT:-8443}")
status=$(free_port "${DEMO_STATUS_PORT:-9100}")

bin/rea-server certs --dns 127.0.0.1 --dir demo/certs >demo/certs.log

cat >demo/server.toml <<TOML
[server]
listen = "127.0.0.1:$ingest"
data_dir = "data"

[tls]
cert_file = "certs/server.crt"
key_file = "certs/server.key"
client_ca_file = "certs/ca.crt"
TOML

cat >demo/agent.toml <<TOML
[logging]
mode = "none"

[status]
enabled = true
port = $status

[networking]
enabled = true
endpoint = "https://127.0.0.1:$ingest"
queue_dir = "queue"
queue_max_bytes = "64MiB"

[tls]
ca_file = "certs/ca.crt"
client_cert = "certs/agent.crt"
client_key = "certs/agent.key"

[collectors.cpu]
interval_ms = 2000
[collectors.memory]
interval_ms = 2000
[collectors.disk]
interval_ms = 10000
[collectors.network]
interval_ms = 2000
[collectors.process]
interval_ms = 5000
[collectors.host]
interval_ms = 30000
TOML

bin/rea-server --config demo/server.toml 2>demo/server.log &
server=$!
wait_for answers "$ingest" || fail "the server did not start"

bin/rea-agent --config demo/agent.toml 2>demo/agent.log &
agent=$!
wait_for answers "$status" || fail "the agent did not start"

cat <<TEXT

  REA is running: the agent reads this machine and sends to the server over mTLS.

    server      https://127.0.0.1:$ingest   (log: demo/server.log)
    agent       health   http://127.0.0.1:$status/healthz
                metrics  http://127.0.0.1:$status/metrics   (log: demo/agent.log)

  In another terminal:

    bin/rea-server hosts --config demo/server.toml
    bin/rea-server events --config demo/server.toml --kind process --limit 1 --json
    bin/rea-agent once --config demo/agent.toml
    bin/rea-agent schema events

  Ctrl-C stops everything. What the server keeps, as it arrives:

TEXT

bin/rea-server events --config demo/server.toml --follow &
stream=$!
if [ -n "${DEMO_SECONDS:-}" ]; then
  sleep "$DEMO_SECONDS"
  kill -0 "$server" 2>/dev/null || fail "the server ended"
  kill -0 "$agent" 2>/dev/null || fail "the agent ended"
else
  wait -n "$server" "$agent" "$stream" || true
  fail "something ended that should not have"
fi
