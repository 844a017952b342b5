// The dashboard for the engineer on call: how bad is it, whose fault is it, since when, and the details.

import type { AnnotationQuery, Dashboard, Threshold } from "@grafana/schema";
import { DashboardCursorSync } from "@grafana/schema";

import { arrange, bands, bars, dataSource, heatmap, lines, stat, table, type PrometheusQuery, type Row } from "./panels.js";
import { instance, instanceVariables, routed, variables } from "./variables.js";

/** The limits of the burn-rate alert: 6 and 14.4 times the allowed 2 % of unclean endings. */
const burn: Threshold[] = [
  { color: "orange", value: 0.12 },
  { color: "red", value: 0.288 },
];
const any: Threshold[] = [{ color: "red", value: 1 }];
const failing: Threshold[] = [
  { color: "orange", value: 0.02 },
  { color: "red", value: 0.1 },
];

/** Requests without a route have an empty label; the panels show them, too. */
const requests = `${instance}, route=~"$route|"`;

const rate = (metric: string, labels = routed) => `rate(${metric}{${labels}}[$__rate_interval])`;
const increase = (metric: string, labels = routed) => `increase(${metric}{${labels}}[$__range])`;

const quantile = (q: number, by: string, metric: string) =>
  `histogram_quantile(${q}, sum by (le${by && `, ${by}`}) (${rate(`${metric}_bucket`)}))`;

const buckets = (metric: string, labels = routed) => `sum by (le) (increase(${metric}_bucket{${labels}}[$__rate_interval]))`;

/** Adds the registered name to series by code. Private codes have none, and stay unchanged. */
const withName = (expr: string) => {
  const names = `max by (code, name) (websocket_close_code_info{${instance}})`;
  return `${expr} * on (code) group_left (name) ${names} or ${expr} unless on (code) ${names}`;
};

/** Sessions by the codes that the endpoints saw, if these differ. */
const views = `sum by (client, server) (${increase("websocket_close_views_total")})`;
const agreeing = `label_replace(sum by (client) (${increase("websocket_close_views_total")}), "server", "$1", "client", "(.*)")`;
const disagreeing = `${views} unless on (client, server) ${agreeing}`;

const overview: Row = {
  title: "Overview: how bad is it, whose fault is it, since when?",
  panels: [
    stat(
      {
        title: "Ended unclean",
        description:
          "Share of the sessions in this time range that ended without a complete closing handshake. Orange and red are the limits of the alert WebSocketAbnormalCloses (12 % and 28.8 %). Without health checks.",
        unit: "percentunit",
      },
      { unclean: `sum(${increase("websocket_abnormal_closes_total")}) / sum(${increase("websocket_closes_total", `${routed}, code!="1015"`)})` },
      { steps: burn, decimals: 1 },
    ),
    stat(
      {
        title: "Upgrades failed",
        description:
          "Share of the upgrade requests in this time range that did not become a session. The row Handshakes shows the causes.",
        unit: "percentunit",
      },
      { failed: `sum(${increase("websocket_handshake_failures_total", requests)}) / (sum(${increase("websocket_handshake_failures_total", requests)}) + sum(${increase("websocket_handshakes_total", `${routed}, status="101"`)}))` },
      { steps: failing, decimals: 1 },
    ),
    stat(
      { title: "Open sessions", description: "Sessions that are open now. A drop without a drain is an outage.", unit: "short" },
      { open: `sum(websocket_sessions_active{${routed}})` },
    ),
    stat(
      {
        title: "Main cause",
        description: "The most frequent cause of unclean endings in this time range: the endpoint, its cause, and the number of sessions.",
        unit: "short",
        width: 6,
      },
      { "{{endpoint}}: {{cause}}": `topk(1, sum by (endpoint, cause) (${increase("websocket_abnormal_closes_total")}) > 0)` },
      { name: true },
    ),
    stat(
      {
        title: "Endpoints disagree",
        description:
          "Share of the sessions in this time range in which client and server saw different codes: the browser says 1006, the server says 1000. The row What each endpoint saw shows the codes.",
        unit: "percentunit",
        width: 6,
      },
      { disagree: `sum(${disagreeing}) / sum(${views})` },
      { decimals: 1 },
    ),
    bands(
      {
        title: "Since when",
        description:
          "Share of unclean endings of each route: green below 12 %, orange below 28.8 %, then red. The colour changes at the beginning; compare with the drains and starts that the other panels mark.",
        unit: "percentunit",
      },
      {
        "{{route}}": `sum by (route) (${rate("websocket_abnormal_closes_total")}) / sum by (route) (${rate("websocket_closes_total", `${routed}, code!="1015"`)})`,
      },
      burn,
    ),
    lines(
      {
        title: "Whose fault",
        description:
          "Unclean endings by the endpoint whose connection failed. client: networks, sleeping laptops, crashing apps. server: the endpoint behind closewatch. proxy: closewatch closed the session (a limit, a drain).",
        unit: "cps",
      },
      { "{{endpoint}}": `sum by (endpoint) (${rate("websocket_abnormal_closes_total")})` },
      { stacked: true },
    ),
    bars(
      {
        title: "Where: the worst instances",
        description:
          "Unclean endings in this time range on the ten instances with the most. One bar far above the others: that pod or its node. All alike: a reason that they share.",
        unit: "short",
      },
      { "{{instance}}": `topk(10, sum by (instance) (${increase("websocket_abnormal_closes_total")}) > 0)` },
    ),
    lines(
      {
        title: "Open sessions and upgrades",
        description: "Open sessions, and upgrade requests per second. If there are many requests and the sessions do not grow, the same clients connect again and again.",
        unit: "short",
      },
      { open: `sum(websocket_sessions_active{${routed}})`, "requests/s": `sum(${rate("websocket_handshakes_total", requests)})` },
    ),
  ],
};

const codes: Row = {
  title: "Codes",
  panels: [
    lines(
      {
        title: "Endings by code",
        description:
          "Sessions that ended, by the code of the first Close frame: 1005 if it has no code, 1006 if a connection ended before any Close frame.",
        unit: "cps",
      },
      { "{{code}} {{name}}": withName(`sum by (code) (${rate("websocket_closes_total")})`) },
      { stacked: true },
    ),
    lines(
      {
        title: "Who ended them, and how",
        description: "Sessions that ended, by initiator; clean=true if both Close frames were delivered.",
        unit: "cps",
      },
      { "{{initiator}} clean={{clean}}": `sum by (initiator, clean) (${rate("websocket_closes_total")})` },
      { stacked: true },
    ),
    table(
      {
        title: "All endings in this time range",
        description: "Sessions that ended, by code, registered name, initiator and clean. `closewatch explain CODE` prints the meaning of a code and the next steps.",
        unit: "short",
      },
      withName(`(sum by (code, initiator, clean) (${increase("websocket_closes_total")}) > 0)`),
      { code: "Code", name: "Name", initiator: "Initiator", clean: "Clean", Value: "Sessions" },
    ),
    lines(
      {
        title: "Close frames by sender",
        description:
          "The first Close frame of each endpoint in a session. `invalid` is a code that must not be in a frame, such as 1006; see Protocol violations.",
        unit: "cps",
      },
      { "{{from}} {{code}}": `sum by (from, code) (${rate("websocket_close_frames_total")}) > 0` },
    ),
  ],
};

const causes: Row = {
  title: "Causes of unclean endings",
  panels: [
    lines(
      {
        title: "Endpoint and cause",
        description:
          "eof: FIN without a Close frame, the program hung up. truncated: FIN inside a frame. reset: RST, killed or closed with unread data. timeout: the link is dead. unreachable: no route. tls: an alert or a bad record. no_close_reply: no answer to a Close frame. proxy: the action of closewatch.",
        unit: "cps",
      },
      { "{{endpoint}}: {{cause}}": `sum by (endpoint, cause) (${rate("websocket_abnormal_closes_total")}) > 0` },
      { stacked: true },
    ),
    table(
      {
        title: "Causes in this time range",
        description: "Unclean endings by route, endpoint at fault and cause.",
        unit: "short",
      },
      `sum by (route, endpoint, cause) (${increase("websocket_abnormal_closes_total")}) > 0`,
      { route: "Route", endpoint: "Endpoint", cause: "Cause", Value: "Sessions" },
    ),
    lines(
      {
        title: "What closewatch did itself",
        description:
          "Sessions on which closewatch acted, clean or not, by action: idle_timeout, max_age, limit, drain, control, and Close frames that reported the loss of one endpoint to the other (server_loss, client_loss).",
        unit: "cps",
      },
      { "{{action}}": `sum by (action) (${rate("websocket_proxy_actions_total")})` },
      { stacked: true },
    ),
    lines(
      {
        title: "Protocol violations",
        description:
          "Sessions in which an endpoint violated RFC 6455, by kind. closewatch passes the bytes on; the other endpoint may close with 1002 or 1007.",
        unit: "cps",
      },
      { "{{from}}: {{kind}}": `sum by (from, kind) (${rate("websocket_protocol_violations_total")}) > 0` },
    ),
  ],
};

const bothViews: Row = {
  title: "What each endpoint saw",
  panels: [
    lines(
      {
        title: "What clients saw",
        description: "The code of the client's own close event. 1006 here and a clean code at the server: the Close frame never arrived.",
        unit: "cps",
      },
      { "{{code}} {{name}}": withName(`sum by (code) (${rate("websocket_close_events_total", `${routed}, endpoint="client"`)})`) },
      { stacked: true },
    ),
    lines(
      {
        title: "What servers saw",
        description: "The code of the server's own close event. Each session has one event here and one at the client.",
        unit: "cps",
      },
      { "{{code}} {{name}}": withName(`sum by (code) (${rate("websocket_close_events_total", `${routed}, endpoint="server"`)})`) },
      { stacked: true },
    ),
    table(
      {
        title: "Both views of the same sessions",
        description: "Sessions that ended in this time range, by the code that the client saw and the code that the server saw.",
        unit: "short",
      },
      `${views} > 0`,
      { client: "Client saw", server: "Server saw", Value: "Sessions" },
    ),
    table(
      {
        title: "Where the two disagree",
        description:
          "The same, only for sessions whose endpoints saw different codes. The endpoint that saw 1006 did not get the other one's Close frame.",
        unit: "short",
      },
      `(${disagreeing}) > 0`,
      { client: "Client saw", server: "Server saw", Value: "Sessions" },
    ),
  ],
};

const handshakes: Row = {
  title: "Handshakes",
  panels: [
    lines(
      {
        title: "Upgrade requests by status",
        description: "Upgrade requests by the status that the client got. 101 is a session, 502 and 504 a missing server, 503 a drain, 4xx usually the server's own answer.",
        unit: "cps",
      },
      { "{{status}}": `sum by (status) (${rate("websocket_handshakes_total", requests)})` },
      { stacked: true },
    ),
    lines(
      {
        title: "Failures by cause",
        description:
          "Upgrade requests that did not become a session: a server that is refused, unreachable, slow or broken (upstream_*), its own refusal (rejected), no route, a bad request, a client that left, a drain.",
        unit: "cps",
      },
      { "{{cause}}": `sum by (cause) (${rate("websocket_handshake_failures_total", requests)})` },
      { stacked: true },
    ),
    lines(
      {
        title: "Time to answer",
        description: "From the request head received to the response head sent, median and 99th percentile, by outcome. The server takes most of this time.",
        unit: "s",
        width: 8,
      },
      {
        "{{outcome}} p50": quantile(0.5, "outcome", "websocket_handshake_duration_seconds"),
        "{{outcome}} p99": quantile(0.99, "outcome", "websocket_handshake_duration_seconds"),
      },
    ),
    lines(
      {
        title: "Time to connect to the server",
        description: "Time to connect to the server for an upgrade, including TLS if TLS is used: median and 99th percentile. It grows with a full accept queue or a distant server.",
        unit: "s",
        width: 8,
      },
      {
        p50: quantile(0.5, "", "websocket_upstream_connect_duration_seconds"),
        p99: quantile(0.99, "", "websocket_upstream_connect_duration_seconds"),
      },
    ),
    lines(
      { title: "Handshakes in progress", description: "Upgrade requests that wait for the server's answer now. If it stays high, the server accepts and does not answer.", unit: "short", width: 8 },
      { "{{route}}": `sum by (route) (websocket_handshakes_in_progress{${requests}})` },
    ),
  ],
};

const traffic: Row = {
  title: "Traffic",
  panels: [
    lines(
      { title: "Bytes", description: "Bytes after the opening handshake, frame headers included, by sender.", unit: "Bps", width: 8 },
      { "from {{from}}": `sum by (from) (${rate("websocket_bytes_total")})` },
    ),
    lines(
      { title: "Messages", description: "Messages by sender and type.", unit: "cps", width: 8 },
      { "{{from}} {{type}}": `sum by (from, type) (${rate("websocket_messages_total")})` },
    ),
    lines(
      { title: "Frames", description: "Frames by sender and opcode. Pings without Pongs mean a dead or silent peer.", unit: "cps", width: 8 },
      { "{{from}} {{opcode}}": `sum by (from, opcode) (${rate("websocket_frames_total")}) > 0` },
    ),
    heatmap(
      { title: "Message sizes from clients", description: "Messages from clients by payload bytes on the wire (compressed if the endpoints compress).", unit: "bytes" },
      buckets("websocket_message_size_bytes", `${routed}, from="client"`),
    ),
    heatmap(
      { title: "Message sizes from servers", description: "Messages from servers by payload bytes on the wire (compressed if the endpoints compress).", unit: "bytes" },
      buckets("websocket_message_size_bytes", `${routed}, from="server"`),
    ),
    lines(
      {
        title: "Backlog for slow readers",
        description: "Bytes that wait in closewatch because the other endpoint does not read, by sender. limits.buffer_bytes bounds each direction of a session.",
        unit: "bytes",
      },
      { "from {{from}}": `sum by (from) (websocket_buffered_bytes{${routed}})` },
    ),
    lines(
      {
        title: "Directions that wait for a slow reader",
        description: "Average number of blocked directions, by sender (blocked seconds per second). from server: the clients are slow.",
        unit: "short",
      },
      { "from {{from}}": `sum by (from) (${rate("websocket_write_blocked_seconds_total")})` },
    ),
  ],
};

const roundTrips: Row = {
  title: "Round trips",
  panels: [
    lines(
      {
        title: "Ping round trip",
        description: "From a Ping relayed to an endpoint to its Pong: median and 99th percentile. Measured from the endpoints' own Pings; without Pings there is no data.",
        unit: "s",
        width: 8,
      },
      {
        "{{endpoint}} p50": quantile(0.5, "endpoint", "websocket_ping_rtt_seconds"),
        "{{endpoint}} p99": quantile(0.99, "endpoint", "websocket_ping_rtt_seconds"),
      },
    ),
    heatmap(
      { title: "Ping round trip of clients", description: "Pings that clients answered, by round trip. A second cloud far above is another network: mobile, or another continent.", unit: "s", width: 8 },
      buckets("websocket_ping_rtt_seconds", `${routed}, endpoint="client"`),
    ),
    lines(
      {
        title: "Closing handshake",
        description: "From the first Close frame to the Close frame that answers it, by initiator: median and 99th percentile. Seconds mean that endpoints finish other work before they answer.",
        unit: "s",
        width: 8,
      },
      {
        "{{initiator}} p50": quantile(0.5, "initiator", "websocket_close_handshake_duration_seconds"),
        "{{initiator}} p99": quantile(0.99, "initiator", "websocket_close_handshake_duration_seconds"),
      },
    ),
  ],
};

const silence: Row = {
  title: "Idle and lifetime",
  panels: [
    heatmap(
      {
        title: "Idle before a 1006",
        description:
          "Sessions that ended without a Close frame, by the silence before. A stripe in one of the narrow brackets (30, 60, 100, 120, 240, 300, 350, 600, 3600 s, each ±1.5 s) is an idle timeout on the way.",
        unit: "s",
      },
      buckets("websocket_idle_before_close_seconds", `${routed}, code="1006"`),
    ),
    heatmap(
      { title: "Idle before any ending", description: "All sessions that ended, by the silence before. A stripe that the other panel does not have is a timeout with a Close frame: the server's own.", unit: "s" },
      buckets("websocket_idle_before_close_seconds"),
    ),
    bars(
      {
        title: "Idle before a 1006, in this time range",
        description: "Sums of the same brackets, each named by its upper bound in seconds. A lone bar at 31.5, 61.5, 101.5 … is an idle timeout of 30, 60, 100 s.",
        unit: "short",
      },
      { "{{le}}": `sum by (le) (${increase("websocket_idle_before_close_seconds_bucket", `${routed}, code="1006"`)})` },
      { buckets: true },
    ),
    heatmap(
      {
        title: "Lifetime",
        description: "Sessions that ended, by their duration. A stripe at a round time is a maximum age, for example of a load balancer or a token.",
        unit: "s",
      },
      buckets("websocket_session_duration_seconds"),
    ),
    lines(
      { title: "Lifetime by code", description: "The median duration of sessions, by code.", unit: "s", width: 24 },
      { "{{code}}": quantile(0.5, "code", "websocket_session_duration_seconds") },
    ),
  ],
};

const health: Row = {
  title: "closewatch itself",
  panels: [
    stat(
      { title: "Instances", description: "Scraped instances of closewatch, by version.", unit: "short" },
      { "{{version}}": `count by (version) (closewatch_build_info{${instance}})` },
      { name: true },
    ),
    stat(
      { title: "Old configurations", description: "Instances whose last reload failed and that run the previous configuration (alert ClosewatchReloadFailed).", unit: "short" },
      { failed: `count(closewatch_config_last_reload_successful{${instance}}) - sum(closewatch_config_last_reload_successful{${instance}})` },
      { steps: any },
    ),
    stat(
      { title: "Log records dropped", description: "Log lines that closewatch dropped in this time range (alert ClosewatchLogRecordsDropped). Metrics are complete nevertheless.", unit: "short" },
      { dropped: `sum(${increase("closewatch_log_records_dropped_total", instance)})` },
      { steps: any },
    ),
    stat(
      {
        title: "File descriptors",
        description: "Used share of the file descriptors, of the worst instance; each session takes two (alert ClosewatchFileDescriptors above 80 %).",
        unit: "percentunit",
      },
      { used: `max(process_open_fds{${instance}} / process_max_fds{${instance}} and on (job, instance) closewatch_build_info)` },
      { steps: [{ color: "red", value: 0.8 }], decimals: 1 },
    ),
    stat(
      { title: "Oldest start", description: "Start time of the oldest instance.", unit: "dateTimeAsIso", width: 8 },
      { started: `1000 * min(process_start_time_seconds{${instance}} and on (job, instance) closewatch_build_info)` },
    ),
    lines(
      { title: "CPU", description: "CPU seconds per second by instance: 1 is one core.", unit: "short", width: 8 },
      { "{{instance}}": `${rate("process_cpu_seconds_total", instance)} and on (job, instance) closewatch_build_info` },
    ),
    lines(
      { title: "Memory", description: "Resident memory by instance: about 6 MiB, and 1.4 KiB for each idle session.", unit: "bytes", width: 8 },
      { "{{instance}}": `process_resident_memory_bytes{${instance}} and on (job, instance) closewatch_build_info` },
    ),
    lines(
      { title: "Client connections", description: "Accepted connections that are open now, by instance. Plain HTTP requests have connections, too.", unit: "short", width: 8 },
      { "{{instance}}": `closewatch_connections_active{${instance}}` },
    ),
    lines(
      {
        title: "Connections accepted and rejected",
        description: "Accepted connections per second, and those that a limit closed or that ended without a request that could be read: limit, tls, proxy_protocol, timeout, malformed, tls_on_plain, http2_on_plain, head_too_large.",
        unit: "cps",
        width: 8,
      },
      {
        accepted: `sum(${rate("closewatch_connections_accepted_total", instance)})`,
        "rejected: {{reason}}": `sum by (reason) (${rate("closewatch_connections_rejected_total", instance)})`,
      },
    ),
    lines(
      { title: "Plain HTTP requests", description: "Plain requests that passed through, by status.", unit: "cps", width: 8 },
      { "{{status}}": `sum by (status) (${rate("closewatch_http_requests_total", requests)})` },
    ),
    lines(
      {
        title: "Sums that must be zero",
        description:
          "closes − (handshakes with status 101 − open sessions), close events − 2 × closes, unclean closes − closes with clean=false. At rest exactly 0. If one exceeds a second's traffic for a while, it is a bug (alert ClosewatchSumBroken).",
        unit: "short",
        width: 8,
      },
      {
        closes: `sum(websocket_closes_total{${instance}, code!="1015"}) - sum(websocket_handshakes_total{${instance}, status="101"}) + sum(websocket_sessions_active{${instance}})`,
        "close events": `sum(websocket_close_events_total{${instance}}) - 2 * sum(websocket_closes_total{${instance}, code!="1015"})`,
        unclean: `sum(websocket_abnormal_closes_total{${instance}}) - sum(websocket_closes_total{${instance}, clean="false", code!="1015"})`,
      },
    ),
  ],
};

/** Marks the times at which the query has a value above zero. */
function mark(name: string, iconColor: string, titleFormat: string, expr: string): AnnotationQuery {
  const target: PrometheusQuery = { refId: "Anno", expr };
  const format = { titleFormat, textFormat: "", step: "30s", useValueForTime: false, expr };
  return { name, iconColor, enable: true, datasource: dataSource, target, ...format };
}

/** See sessions.ts. */
export const sessions: Dashboard = {
  uid: "closewatch",
  title: "closewatch / Sessions",
  description: "How and why WebSocket connections ended.",
  tags: ["closewatch", "websocket"],
  schemaVersion: 39,
  editable: true,
  graphTooltip: DashboardCursorSync.Crosshair,
  time: { from: "now-3h", to: "now" },
  refresh: "30s",
  timezone: "browser",
  templating: { list: [...variables, ...instanceVariables] },
  annotations: {
    list: [
      mark("Drains", "blue", "{{instance}} drains", `sum by (instance) (increase(websocket_proxy_actions_total{${instance}, action="drain"}[2m])) > 0`),
      mark("Starts", "green", "{{instance}} started", `time() - process_start_time_seconds{${instance}} < 60 and on (job, instance) closewatch_build_info`),
      mark("Reloads", "purple", "{{instance}} reloaded", `changes(closewatch_config_last_reload_success_timestamp_seconds{${instance}}[2m]) > 0`),
    ],
  },
  panels: arrange([overview, codes, causes, bothViews, handshakes, traffic, roundTrips, silence, health]),
};
