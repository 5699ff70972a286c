// Axes, and the room that a chart has on the page; ECharts draws it, and shows values on hover.
"use strict";
const charts = new Map();

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const format = value => (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e6)
  ? value.toExponential(1).replace(".0e", "e") : String(Number(value.toPrecision(4))));
const written = (value, metric) => value.toFixed(metric.decimals);

function axis(name, more) {
  const text = css("--text"), quiet = css("--quiet"), line = css("--line");
  return {
    name, nameLocation: "middle", nameGap: 34, nameTextStyle: { color: text },
    axisLabel: { color: quiet, formatter: format, hideOverlap: true },
    axisLine: { show: true, lineStyle: { color: quiet } },
    splitLine: { lineStyle: { color: line, opacity: 0.5 } }, ...more,
  };
}

const zeroOf = option => 10 ** (Math.floor(Math.log10(
  Math.min(...option.numbers.filter(number => number > 0)))) - 1); // a log axis has no 0

function optionAxis(option, more = {}) {
  const common = { type: "category", data: option.words,
    axisLabel: { color: css("--quiet"), hideOverlap: true, width: 90, overflow: "truncate" }, ...more };
  if (option.scale === "words") return axis(option.name, common);
  const hasZero = option.scale === "log" && option.numbers.includes(0);
  const label = value => (hasZero && value <= zeroOf(option) * 1.001 ? "0" : format(value));
  return axis(option.name, { type: option.scale === "log" ? "log" : "value", scale: true,
    axisLabel: { color: css("--quiet"), formatter: label, hideOverlap: true }, ...more });
}

function placeOn(option, number, each) {
  const place = each.places[number];
  if (place === null || option.scale === "words") return place;
  const value = option.numbers[place];
  return value === 0 && option.scale === "log" ? zeroOf(option) : value;
}

const metricAxis = (metric, values, name = "") => axis(name, {
  type: metric.isLog && Math.max(...values) >= 10 * Math.min(...values) && values.every(value => value > 0)
    ? "log" : "value", scale: true });

function tipBox(text) { // an element, whose text is never markup
  const box = document.createElement("div");
  box.className = "tip";
  box.textContent = text;
  return box;
}

const tooltip = formatter => ({
  confine: true, backgroundColor: css("--page"), borderColor: css("--line"),
  textStyle: { color: css("--text"), fontSize: 12 }, formatter,
});

function draw(id, title, alt, option) {
  const room = document.getElementById(id.split("/")[0]);
  if (!charts.has(id)) {
    const element = room.appendChild(document.createElement("div"));
    element.className = "chart";
    element.setAttribute("role", "img");
    const chart = echarts.init(element, null, { renderer: "svg" });
    new ResizeObserver(() => chart.resize()).observe(element);
    charts.set(id, chart);
  }
  charts.get(id).getDom().setAttribute("aria-label", `${alt}; the table has the values`);
  charts.get(id).setOption({
    animation: false, backgroundColor: "transparent", textStyle: { fontFamily: "inherit" },
    tooltip: tooltip(item => item.data?.tip && tipBox(item.data.tip)),
    title: { text: title, left: 0, top: 0, textStyle: { color: css("--text"), fontSize: 13 } },
    grid: { left: 52, right: 18, top: 32, bottom: 52 }, ...option,
  }, { notMerge: true });
  return charts.get(id);
}

function drop(prefix, kept) {
  for (const [id, chart] of charts) {
    if (id.startsWith(prefix) && !kept.has(id)) {
      chart.getDom().remove();
      chart.dispose();
      charts.delete(id);
    }
  }
}
