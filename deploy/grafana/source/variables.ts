// The variables of a dashboard, and the selectors that use them.

import { VariableRefresh, VariableSort, type VariableModel } from "@grafana/schema";

import { dataSource } from "./panels.js";

/** Selects the series of the chosen instances. */
export const instance = 'job=~"$job", instance=~"$instance"';
/** Selects the series of the chosen instances and routes. */
export const routed = `${instance}, route=~"$route"`;

/** The data source, and the jobs in it. */
export const variables: VariableModel[] = [
  { type: "datasource", name: "datasource", label: "Data source", query: "prometheus", refresh: VariableRefresh.onDashboardLoad },
  choice("job", "Job", "label_values(closewatch_build_info, job)"),
];

/** Instances of the chosen jobs, and their routes. */
export const instanceVariables: VariableModel[] = [
  choice("instance", "Instance", 'label_values(closewatch_build_info{job=~"$job"}, instance)'),
  {
    ...choice("route", "Route", `label_values(websocket_sessions_active{${instance}}, route)`),
    description: "Without sessions of health checks (route probe).",
    regex: "/^(?!probe$).+$/",
  },
];

/** A choice of any number of label values. Initially all are chosen. */
export function choice(name: string, label: string, query: string): VariableModel {
  return {
    type: "query",
    name,
    label,
    datasource: dataSource,
    query: { query, refId: `variable-${name}` },
    refresh: VariableRefresh.onTimeRangeChanged,
    sort: VariableSort.naturalAsc,
    multi: true,
    includeAll: true,
    current: { text: ["All"], value: ["$__all"] },
    options: [],
  };
}
