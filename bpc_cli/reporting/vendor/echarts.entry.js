// The parts of Apache ECharts that a report's charts need; `make vendor` bundles them.
import * as core from "echarts/core";
import { CustomChart, HeatmapChart, LineChart, ParallelChart, ScatterChart } from "echarts/charts";
import {
  DataZoomInsideComponent, GridComponent, ParallelComponent, TitleComponent, TooltipComponent,
  VisualMapContinuousComponent,
} from "echarts/components";
import { SVGRenderer } from "echarts/renderers";

core.use([
  CustomChart, HeatmapChart, LineChart, ParallelChart, ScatterChart,
  DataZoomInsideComponent, GridComponent, ParallelComponent, TitleComponent, TooltipComponent,
  VisualMapContinuousComponent, SVGRenderer,
]);
export const init = core.init;
