// The dashboard of a fleet: all jobs and routes. It reads only recorded series (deploy/prometheus/recording.yaml), so its
// cost does not depend on the number of sidecars.

import { DashboardCursorSync, type Dashboard } from "@grafana/schema";

import { arrange, bands, heatmap, lines, stat, table, type Row } from "./panels.js";
import { choice, variables } from "./variables.js";

const routed = 'job=~"$job", route=~"$route"';

const burn = [
  { color: "orange", value: 0.12 },
  { color: "red", value: 0.288 },
];

const endings: Row = {
  title: "Endings",
  panels: [
    stat(
      { title: "Instances", description: "Instances of closewatch in the chosen jobs.", unit: "short", width: 6 },
      { instances: 'sum(job:closewatch_instances:count{job=~"$job"})' },
    ),
    stat(
      { title: "Open sessions", description: "Sessions that are open now.", unit: "short", width: 6 },
      { open: `sum(job_route:websocket_sessions_active:sum{${routed}})` },
    ),
    stat(
      { title: "Ended unclean, last hour", description: "The largest share of unclean endings of a job and route in the last hour.", unit: "percentunit", width: 6 },
      { "{{job}} {{route}}": `topk(1, job_route:websocket_abnormal_closes:ratio_rate1h{${routed}} >= 0)` },
      { steps: burn, decimals: 1, name: true },
    ),
    stat(
      { title: "Ended unclean, last six hours", description: "The same over six hours.", unit: "percentunit", width: 6 },
      { "{{job}} {{route}}": `topk(1, job_route:websocket_abnormal_closes:ratio_rate6h{${routed}} >= 0)` },
      { steps: burn, decimals: 1, name: true },
    ),
    bands(
      { title: "Since when", description: "Share of unclean endings over five minutes, one band for each job and route. Orange and red are the limits of the alert WebSocketAbnormalCloses.", unit: "percentunit" },
      { "{{job}} {{route}}": `job_route:websocket_abnormal_closes:ratio_rate5m{${routed}}` },
      burn,
    ),
    table(
      { title: "Worst now", description: "Unclean endings per second, by job, route, endpoint at fault and cause. For details choose the job in closewatch / Sessions.", unit: "cps" },
      `topk(20, sum by (namespace, job, route, endpoint, cause) (job_route_cause:websocket_abnormal_closes:rate5m{${routed}}) > 0)`,
      { namespace: "Namespace", job: "Job", route: "Route", endpoint: "Endpoint", cause: "Cause", Value: "Sessions/s" },
    ),
    lines(
      { title: "Endings by code", description: "Sessions that ended, by code.", unit: "cps" },
      { "{{code}}": `sum by (code) (job_route_code:websocket_closes:rate5m{${routed}})` },
      { stacked: true },
    ),
    lines(
      { title: "Upgrade failures", description: "Upgrade requests that did not become a session, by cause.", unit: "cps" },
      { "{{cause}}": `sum by (cause) (job_route_cause:websocket_handshake_failures:rate5m{job=~"$job", route=~"$route|"})` },
      { stacked: true },
    ),
    heatmap(
      { title: "Idle before a 1006", description: "Endings without a Close frame, by the silence before. A stripe is an idle timeout on the way.", unit: "s" },
      `sum by (le) (job_route_code:websocket_idle_before_close_seconds_bucket:rate5m{${routed}, code="1006"})`,
    ),
    heatmap(
      { title: "Lifetime", description: "Sessions that ended, by their duration.", unit: "s" },
      `sum by (le) (job_route:websocket_session_duration_seconds_bucket:rate5m{${routed}})`,
    ),
  ],
};

const cost: Row = {
  title: "Traffic and cost",
  panels: [
    lines(
      { title: "Bytes", description: "Bytes per second, by sender.", unit: "Bps", width: 8 },
      { "from {{from}}": `sum by (from) (job_route_from:websocket_bytes:rate5m{${routed}})` },
    ),
    lines(
      { title: "CPU", description: "CPU seconds per second of all instances of a job: 1 is one core.", unit: "short", width: 8 },
      { "{{job}}": 'sum by (job) (job:process_cpu_seconds:rate5m{job=~"$job"})' },
    ),
    lines(
      { title: "Memory", description: "Resident memory of all instances of a job.", unit: "bytes", width: 8 },
      { "{{job}}": 'sum by (job) (job:process_resident_memory_bytes:sum{job=~"$job"})' },
    ),
  ],
};

/** See fleet.ts. */
export const fleet: Dashboard = {
  uid: "closewatch-fleet",
  title: "closewatch / Fleet",
  description: "How the WebSocket connections of all jobs end, from recorded series.",
  tags: ["closewatch", "websocket"],
  schemaVersion: 39,
  editable: true,
  graphTooltip: DashboardCursorSync.Crosshair,
  time: { from: "now-24h", to: "now" },
  refresh: "1m",
  timezone: "browser",
  templating: {
    list: [
      ...variables.map((variable) =>
        variable.name === "job" ? choice("job", "Job", "label_values(job:closewatch_instances:count, job)") : variable,
      ),
      {
        ...choice("route", "Route", 'label_values(job_route:websocket_sessions_active:sum{job=~"$job"}, route)'),
        description: "Without sessions of health checks (route probe).",
        regex: "/^(?!probe$).+$/",
      },
    ],
  },
  panels: arrange([endings, cost]),
};
