// The panels of the dashboards, each with a title, a description, a unit and queries.

import {
  AxisPlacement,
  BarGaugeDisplayMode,
  BarGaugeNamePlacement,
  BarGaugeSizing,
  BarGaugeValueMode,
  BigValueColorMode,
  BigValueGraphMode,
  BigValueJustifyMode,
  BigValueTextMode,
  FieldColorModeId,
  HeatmapCellLayout,
  LegendDisplayMode,
  PercentChangeColorMode,
  ScaleDistribution,
  SortOrder,
  StackingMode,
  TableCellHeight,
  ThresholdsMode,
  TooltipDisplayMode,
  VisibilityMode,
  VizOrientation,
  type DataQuery,
  type DataSourceRef,
  type DataTransformerConfig,
  type FieldConfig,
  type Panel,
  type RowPanel,
  type Threshold,
  type VizLegendOptions,
} from "@grafana/schema";
import type { Options as BarGaugeOptions } from "@grafana/schema/dist/esm/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen";
import type {
  FieldConfig as HeatmapFieldConfig,
  HeatmapColorMode,
  Options as HeatmapOptions,
} from "@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen";
import type { Options as StatOptions } from "@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen";
import type {
  FieldConfig as StateTimelineFieldConfig,
  Options as StateTimelineOptions,
} from "@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen";
import type { Options as TableOptions } from "@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen";
import type {
  FieldConfig as TimeSeriesFieldConfig,
  Options as TimeSeriesOptions,
} from "@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen";

export const dataSource: DataSourceRef = { type: "prometheus", uid: "${datasource}" };

/** A query of Grafana's Prometheus data source. The schema does not have its type. */
export interface PrometheusQuery extends DataQuery {
  expr: string;
  format?: "time_series" | "table" | "heatmap";
  instant?: boolean;
  legendFormat?: string;
  range?: boolean;
}

/** Grafana's ids of units. */
type Unit = "short" | "percentunit" | "s" | "bytes" | "Bps" | "cps" | "dateTimeAsIso";

const legend: VizLegendOptions = { calcs: [], displayMode: LegendDisplayMode.List, placement: "bottom", showLegend: true };

/** The common parts of every panel. */
interface Subject {
  title: string;
  /** What it shows, how to read it, and the next step. */
  description: string;
  unit: Unit;
  /** The width; a row has 24 columns. */
  width?: number;
  height?: number;
}

/** Queries by the legend of their series. */
type Queries = Record<string, string>;

/** A panel without a position. */
export type UnplacedPanel = Panel & { gridPos: { w: number; h: number; x: number; y: number } };

/** Lines over time; `stacked` if their sum is meaningful. */
export function lines(subject: Subject, queries: Queries, { stacked = false } = {}): UnplacedPanel {
  const options: TimeSeriesOptions = {
    legend: { ...legend, calcs: ["mean", "max"], displayMode: LegendDisplayMode.Table },
    tooltip: { mode: TooltipDisplayMode.Multi, sort: SortOrder.Descending, hideZeros: true },
  };
  const custom: TimeSeriesFieldConfig = {
    axisPlacement: AxisPlacement.Auto,
    axisSoftMin: 0,
    fillOpacity: stacked ? 30 : 8,
    lineWidth: 1,
    stacking: { mode: stacked ? StackingMode.Normal : StackingMode.None },
  };
  return panel("timeseries", subject, series(queries), options, { custom: { ...custom }, color: { mode: FieldColorModeId.PaletteClassicByName } });
}

/** One number over the whole time range, with optional thresholds for its colour. */
export function stat(subject: Subject, queries: Queries, { steps = [] as Threshold[], decimals = 0, name = false } = {}): UnplacedPanel {
  const options: StatOptions = {
    colorMode: steps.length ? BigValueColorMode.Background : BigValueColorMode.Value,
    graphMode: BigValueGraphMode.None,
    justifyMode: BigValueJustifyMode.Auto,
    orientation: VizOrientation.Auto,
    percentChangeColorMode: PercentChangeColorMode.Standard,
    reduceOptions: { calcs: ["lastNotNull"], values: false },
    showPercentChange: false,
    textMode: name ? BigValueTextMode.ValueAndName : BigValueTextMode.Value,
    wideLayout: true,
  };
  return panel("stat", { width: 4, height: 4, ...subject }, instants(queries), options, {
    decimals,
    color: { mode: FieldColorModeId.Thresholds },
    thresholds: thresholds(steps),
  });
}

/** A bar for each series, over the whole time range. */
export function bars(subject: Subject, queries: Queries, { buckets = false } = {}): UnplacedPanel {
  const options: BarGaugeOptions = {
    displayMode: BarGaugeDisplayMode.Basic,
    legend,
    maxVizHeight: 300,
    minVizHeight: 10,
    minVizWidth: 8,
    namePlacement: BarGaugeNamePlacement.Auto,
    orientation: buckets ? VizOrientation.Vertical : VizOrientation.Horizontal,
    reduceOptions: { calcs: ["lastNotNull"], values: false },
    showUnfilled: false,
    sizing: BarGaugeSizing.Auto,
    valueMode: BarGaugeValueMode.Color,
  };
  const targets = instants(queries).map((query) => (buckets ? { ...query, format: "heatmap" as const } : query));
  return panel("bargauge", subject, targets, options, { decimals: 0, min: 0, color: { mode: FieldColorModeId.ContinuousBlPu } });
}

/** A table over the whole time range: the labels as columns, the largest values first. */
export function table(subject: Subject, expr: string, columns: Record<string, string>): UnplacedPanel {
  const options: TableOptions = {
    cellHeight: TableCellHeight.Sm,
    frameIndex: 0,
    showHeader: true,
    sortBy: [{ displayName: columns.Value ?? "Value", desc: true }],
  };
  const organize: DataTransformerConfig = {
    id: "organize",
    options: {
      excludeByName: { Time: true },
      indexByName: Object.fromEntries(Object.keys(columns).map((name, index) => [name, index])),
      renameByName: columns,
    },
  };
  const target: PrometheusQuery = { ...query("A", expr), format: "table", instant: true };
  return { ...panel("table", subject, [target], options, { decimals: 0 }), transformations: [organize] };
}

/** A histogram over time: time to the right, buckets upwards, colour for the count. */
export function heatmap(subject: Subject, expr: string): UnplacedPanel {
  const options: HeatmapOptions = {
    calculate: false,
    cellGap: 1,
    cellValues: { unit: "short", decimals: 1 },
    color: { mode: "scheme" as HeatmapColorMode, scheme: "Oranges", exponent: 0.5, fill: "dark-orange", reverse: false, steps: 64 },
    exemplars: { color: "rgba(255,0,255,0.7)" },
    filterValues: { le: 1e-9 },
    legend: { show: true },
    rowsFrame: { layout: HeatmapCellLayout.auto },
    showValue: VisibilityMode.Never,
    tooltip: { mode: TooltipDisplayMode.Single, yHistogram: true, showColorScale: false },
    yAxis: { axisPlacement: AxisPlacement.Left, unit: subject.unit, reverse: false },
  };
  const custom: HeatmapFieldConfig = { scaleDistribution: { type: ScaleDistribution.Linear } };
  const target: PrometheusQuery = { ...query("A", expr), format: "heatmap", legendFormat: "{{le}}", range: true };
  return panel("heatmap", subject, [target], options, { custom: { ...custom } });
}

/** A band for each series. Its colour is that of the threshold, so it shows when the series crossed one. */
export function bands(subject: Subject, queries: Queries, steps: Threshold[]): UnplacedPanel {
  const options: StateTimelineOptions = {
    legend: { ...legend, showLegend: false },
    mergeValues: true,
    rowHeight: 0.8,
    showValue: VisibilityMode.Never,
    tooltip: { mode: TooltipDisplayMode.Single, sort: SortOrder.None },
  };
  const custom: StateTimelineFieldConfig = { fillOpacity: 80, lineWidth: 0 };
  return panel("state-timeline", subject, series(queries), options, {
    custom: { ...custom },
    color: { mode: FieldColorModeId.Thresholds },
    thresholds: thresholds(steps),
  });
}

/** A row with its panels, from left to right and from top to bottom. */
export interface Row {
  title: string;
  panels: UnplacedPanel[];
  collapsed?: boolean;
}

/** Gives every row and panel its position and its id. */
export function arrange(rows: Row[]): Array<Panel | RowPanel> {
  const arranged: Array<Panel | RowPanel> = [];
  let id = 0;
  let top = 0;
  for (const { title, panels, collapsed = false } of rows) {
    const row: RowPanel = { type: "row", id: ++id, title, collapsed, panels: [], gridPos: { x: 0, y: top, w: 24, h: 1 } };
    arranged.push(row);
    const { placed, bottom } = place(panels, top + 1);
    for (const panel of placed) panel.id = ++id;
    (collapsed ? row.panels : arranged).push(...placed);
    top = collapsed ? top + 1 : bottom;
  }
  return arranged;
}

function place(panels: UnplacedPanel[], top: number): { placed: Panel[]; bottom: number } {
  let x = 0;
  let y = top;
  let bottom = top;
  const placed = panels.map((panel) => {
    const { w, h } = panel.gridPos;
    if (x + w > 24) [x, y] = [0, bottom];
    const gridPos = { x, y, w, h };
    x += w;
    bottom = Math.max(bottom, y + h);
    return { ...panel, gridPos };
  });
  return { placed, bottom };
}

function panel(
  type: string,
  { title, description, unit, width = 12, height = 8 }: Subject,
  targets: PrometheusQuery[],
  options: object,
  defaults: FieldConfig,
): UnplacedPanel {
  return {
    type,
    title,
    description,
    datasource: dataSource,
    gridPos: { x: 0, y: 0, w: width, h: height },
    targets: targets.map((target) => ({ ...target })),
    options: options as Record<string, unknown>,
    fieldConfig: { defaults: { unit, ...defaults }, overrides: [] },
  };
}

function series(queries: Queries): PrometheusQuery[] {
  return named(queries).map((target) => ({ ...target, range: true }));
}

function instants(queries: Queries): PrometheusQuery[] {
  return named(queries).map((target) => ({ ...target, instant: true }));
}

function named(queries: Queries): PrometheusQuery[] {
  return Object.entries(queries).map(([legendFormat, expr], index) => ({
    ...query(String.fromCharCode("A".charCodeAt(0) + index), expr),
    legendFormat,
  }));
}

function query(refId: string, expr: string): PrometheusQuery {
  return { refId, datasource: dataSource, expr };
}

function thresholds(steps: Threshold[]): { mode: ThresholdsMode; steps: Threshold[] } {
  return { mode: ThresholdsMode.Absolute, steps: [{ color: "green", value: null }, ...steps] };
}
