#!/usr/bin/env bash
# Server and agent on this machine, over mTLS, with the agent's status page on,
# and a stream of what the server keeps. Everything lives in demo/ and everything
# that this starts it stops, on Ctrl-C or after DEMO_SECONDS.
set -euo pipefail
cd "$(dirname "$0")/.."
umask 077

if [ -f demo/pid ] && kill -0 "$(<demo/pid)" 2>/dev/null; then
  echo "demo: one runs in this folder already, as process $(<demo/pid); stop that one first" >&2
  exit 1
fi

server='' agent='' stream=''
stop() {
  trap '' INT TERM HUP
  set +e # what is gone already must not keep the others alive
  for pid in $stream $agent $server; do
    kill "$pid" 2>/dev/null
    wait "$pid"
  done
  rm -f demo/pid
}
trap 'stop; echo; echo "Stopped. What the server keeps is in demo/data, the logs are demo/*.log."; exit "${failed:-0}"' EXIT
trap 'exit' INT TERM HUP

fail() {
  failed=1
  echo "demo: $1" >&2
  tail -n 5 demo/server.log demo/agent.log 2>/dev/null >&2 || true
  exit 1
}

# start NAME PORT LINE runs rea-NAME with the file that NAME_toml writes, on that
# port or, where somebody has it, on the next, until LINE is in its log. It sets
# $NAME to the process and $NAME_port to the port.
start() {
  local name=$1 port=$2 line=$3 code
  while :; do
    "${name}_toml" "$port" >"demo/$name.toml"
    "bin/rea-$name" --config "demo/$name.toml" 2>"demo/$name.log" &
    printf -v "$name" %s "$!"
    for _ in $(seq 100); do
      if grep -qs "$line" "demo/$name.log"; then
        printf -v "${name}_port" %s "$port"
        return
      fi
      kill -0 "${!name}" 2>/dev/null || break
      sleep 0.1
    done
    kill "${!name}" 2>/dev/null || true
    code=0
    wait "${!name}" || code=$?
    printf -v "$name" %s ''
    [ "$code" = 69 ] || fail "the $name did not start" # 69: the port is taken
    port=$((port + 1))
  done
}

server_toml() {
  cat <<TOML
[server]
listen = "127.0.0.1:$1"
data_dir = "data"

[tls]
cert_file = "certs/server.crt"
key_file = "certs/server.key"
client_ca_file = "certs/ca.crt"
TOML
}

agent_toml() {
  cat <<TOML
[logging]
mode = "none"

[status]
enabled = true
port = $1

[networking]
enabled = true
endpoint = "https://127.0.0.1:$server_port"
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
}

rm -rf demo
mkdir demo
echo $$ >demo/pid
bin/rea-server certs --dns 127.0.0.1 --dir demo/certs >demo/certs.log
start server "${DEMO_PORT:-8443}" '"msg":"listening"'
start agent "${DEMO_STATUS_PORT:-9100}" '"msg":"status page"'

cat <<TEXT

  REA is running: the agent reads this machine and sends to the server over mTLS.

    server      https://127.0.0.1:$server_port   (log: demo/server.log)
    agent       health   http://127.0.0.1:$agent_port/healthz
                metrics  http://127.0.0.1:$agent_port/metrics   (log: demo/agent.log)

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
