// The variables at a dashboard's top, and the selectors that apply them.

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
    description: "Sessions of health checks (route probe) are left out.",
    regex: "/^(?!probe$).+$/",
  },
];

/** Any number of a label's values; all of them at first. */
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
