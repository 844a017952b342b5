#!/bin/bash
# Runs as the only job of a systemd in a temporary copy of this host with the installed package. Each check prints its
# output, and then `ok TITLE` or `FAIL TITLE`.
set -uo pipefail

main() {
  exec 2>&1
  /usr/bin/closewatch demo --no-traffic --listen 127.0.0.1:9000 --admin 127.0.0.1:9916 >/dev/null &
  await closewatch health --admin http://127.0.0.1:9916
  check "is neither enabled nor started after its installation" is_off
  check "is active as soon as it is ready" starts
  check "relays, as nobody, without capabilities" is_confined
  check "reports its start time" reports_start_time
  check "reloads" reloads
  check "keeps running when a reload fails" refuses_bad_reload
  check "drains when it is stopped" drains
  check "is not restarted with a bad configuration" gives_up
  check "is started by its socket with the first client" is_started_by_socket
  check "refuses no connection while it is restarted behind its socket" restarts_behind_socket
}

check() {
  local title=$1 status
  # In the condition of an `if`, bash ignores `set -e`.
  (set -e; "$2")
  status=$?
  if ((status == 0)); then
    echo "ok $title"
  else
    systemctl --no-pager status closewatch.service closewatch.socket
    journalctl --no-pager -u closewatch.service | tail -n 20
    echo "FAIL $title"
  fi
}

is_off() {
  [[ $(systemctl is-enabled closewatch.service) == disabled ]]
  [[ $(systemctl is-enabled closewatch.socket) == disabled ]]
  [[ $(systemctl is-active closewatch.service) == inactive ]]
}

# With Type=notify, systemctl waits until closewatch is ready.
starts() {
  systemctl start closewatch.service
  [[ $(systemctl is-active closewatch.service) == active ]]
  closewatch health
}

is_confined() {
  echoes
  local pid
  pid=$(main_pid)
  [[ $(stat -c %u "/proc/$pid") != 0 ]]
  grep -q '^CapEff:\s*0*$' "/proc/$pid/status"
  grep -q '^NoNewPrivs:\s*1$' "/proc/$pid/status"
  grep -q '^Seccomp:\s*2$' "/proc/$pid/status"
}

reports_start_time() {
  metric process_start_time_seconds
}

reloads() {
  local pid
  pid=$(main_pid)
  systemctl reload closewatch.service
  await logged "configuration reloaded"
  [[ $(main_pid) == "$pid" ]]
}

refuses_bad_reload() {
  spoil_configuration
  systemctl reload closewatch.service
  await metric 'closewatch_config_last_reload_successful 0'
  mend_configuration
  echoes
}

drains() {
  closewatch probe ws://127.0.0.1:8080/ --send hello --wait 30s --json >/session.json &
  local session=$!
  await metric 'websocket_sessions_active{route="default"} 1'
  systemctl stop closewatch.service
  wait "$session"
  grep -q '"code":1001' /session.json
  [[ $(systemctl show -P Result closewatch.service) == success ]]
  [[ $(systemctl show -P ExecMainStatus closewatch.service) == 0 ]]
}

gives_up() {
  spoil_configuration
  systemctl start closewatch.service || true
  mend_configuration
  [[ $(systemctl show -P ExecMainStatus closewatch.service) == 2 ]]
  [[ $(systemctl is-active closewatch.service) == failed ]]
  [[ $(systemctl show -P NRestarts closewatch.service) == 0 ]]
  systemctl reset-failed closewatch.service
}

is_started_by_socket() {
  systemctl start closewatch.socket
  [[ $(systemctl is-active closewatch.service) == inactive ]]
  echoes
  [[ $(systemctl is-active closewatch.service) == active ]]
}

restarts_behind_socket() {
  local restart client answer
  for restart in {1..5}; do
    systemctl restart --no-block closewatch.service
    for client in {1..10}; do
      answer=$(closewatch probe ws://127.0.0.1:8080/ --close 1000 --json || true)
      echo "$answer"
      # 503: the drain began between the connection and the request. The client may retry at once.
      grep -qE '"status":(101|503)' <<<"$answer"
    done
  done
  echoes
  systemctl stop closewatch.socket closewatch.service
}

# --- helpers ----------------------------------------------------------------------------------------------------------

echoes() {
  closewatch probe ws://127.0.0.1:8080/ --send hello --close 1000 | grep -q hello
}

metric() {
  grep -q "^$1" <(exec 3<>/dev/tcp/127.0.0.1/9917; printf 'GET /metrics HTTP/1.0\r\n\r\n' >&3; cat <&3)
}

logged() {
  journalctl --no-pager -u closewatch.service | grep -q -- "$1"
}

main_pid() {
  systemctl show -P MainPID closewatch.service
}

spoil_configuration() {
  cp /etc/closewatch/config.yaml /good.yaml
  echo 'nonsense: true' >>/etc/closewatch/config.yaml
}

mend_configuration() {
  cp /good.yaml /etc/closewatch/config.yaml
}

# Runs the command until it succeeds, for at most 20 s.
await() {
  local end=$((SECONDS + 20))
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < end)) || { echo "not within 20 s: $*"; return 1; }
    sleep 0.05
  done
}

main
