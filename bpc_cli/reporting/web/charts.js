// A report's charts, drawn again whenever a reader chooses something else.
"use strict";
const MOST_CURVES = 24, MOST_IN_TIP = 10, MOST_AXES = 12;
const VIRIDIS = ["#440154", "#414487", "#2a788e", "#22a884", "#7ad151", "#fde725"];
let brushed = null; // the configurations that are chosen on the parallel coordinates

function described(each, metric) {
  const spread = each.spreads[metric.name];
  if (!spread) return `${metric.title}: –`;
  const [mean, std, low, high] = spread;
  const interval = std === null ? "" : ` ± ${written(std, metric)} ` +
    `[${written(low, metric)}, ${written(high, metric)}]`;
  return `${metric.title}: ${written(mean, metric)}${interval}`;
}

const tip = each => [each.dataSet, each.label, ...metrics.filter(m => m.isCompared).map(m => described(each, m)),
  `seeds: ${each.nSeeds}`].join("\n");

const bars = (points, colour) => ({
  type: "custom", silent: true, tooltip: { show: false }, z: 1,
  data: points.flatMap(({ x, y, xs, ys }) => [...(ys ? [[x, ys[0], x, ys[1]]] : []),
    ...(xs ? [[xs[0], y, xs[1], y]] : [])]),
  encode: { x: [0, 2], y: [1, 3] },
  renderItem: (_, api) => {
    const [x1, y1] = api.coord([api.value(0), api.value(1)]);
    const [x2, y2] = api.coord([api.value(2), api.value(3)]);
    return { type: "line", shape: { x1, y1, x2, y2 }, style: { stroke: colour, lineWidth: 1.5 } };
  },
});

function points(members, xOf, metric) {
  return members.flatMap(each => {
    const x = xOf(each), spread = each.spreads[metric.name];
    return x === null || !spread ? [] : [{ each, x, y: spread[0], ys: spread[2] === null ? null
      : [spread[2], spread[3]] }];
  });
}

const series = (found, { colour, symbol }, isJoined) => [{
  type: isJoined ? "line" : "scatter", symbol, symbolSize: 8, color: colour, z: 2,
  data: found.map(({ each, x, y }) => ({ value: [x, y], tip: tip(each) })),
}, bars(found, colour)];

function byFamily(shown, x) {
  const families = new Map();
  for (const each of shown) {
    const key = JSON.stringify(each.places.map((place, number) => (number === x ? null : place)));
    families.set(key, [...(families.get(key) ?? []), each]);
  }
  return [...families.values()];
}

function drawTradeOff(shown, groups) {
  const x = chosen("x"), option = options[x], families = byFamily(shown, x);
  const isJoined = option.scale !== "words";
  for (const metric of directed) {
    const drawn = families.flatMap(members => {
      const found = points(members, each => placeOn(option, x, each), metric).sort((a, b) => a.x - b.x);
      return found.length ? series(found, groups.look(groups.nameOf(members[0])), isJoined) : [];
    });
    draw(`trade-off/${metric.name}`, metric.title, `${metric.title} against ${option.name}`, {
      xAxis: optionAxis(option), yAxis: metricAxis(metric, valuesOf(shown, metric)), series: drawn,
      dataZoom: [{ type: "inside", xAxisIndex: 0, zoomOnMouseWheel: "shift" }],
    });
  }
  drawAgainst(families, shown, groups, x, isJoined);
}

const valuesOf = (shown, metric) => shown.flatMap(each => each.spreads[metric.name]?.[0] ?? []);

function drawAgainst(families, shown, groups, x, isJoined) {
  const upwards = metrics[chosen("upwards")], along = metrics[chosen("along")];
  if (!upwards || !along) return;
  const drawn = families.flatMap(members => {
    const found = points(members, each => each.spreads[along.name]?.[0] ?? null, upwards);
    for (const point of found) {
      const spread = point.each.spreads[along.name];
      point.xs = spread[2] === null ? null : [spread[2], spread[3]];
    }
    found.sort((a, b) => (placeOn(options[x], x, a.each) ?? 0) - (placeOn(options[x], x, b.each) ?? 0));
    return found.length ? series(found, groups.look(groups.nameOf(members[0])), isJoined) : [];
  });
  draw("trade-off/against", upwards.title, `${upwards.title} against ${along.title}`, {
    xAxis: metricAxis(along, valuesOf(shown, along), along.title),
    yAxis: metricAxis(upwards, valuesOf(shown, upwards)), series: drawn,
  });
}

function drawHeatMap(shown) {
  const across = chosen("x"), up = chosen("over"), metric = metrics[chosen("heated")];
  if (up < 0 || !metric || up === across) return drop("heat-map", new Set());
  const cells = new Map();
  for (const each of shown) {
    const [x, y, spread] = [each.places[across], each.places[up], each.spreads[metric.name]];
    if (x === null || y === null || !spread) continue;
    const cell = cells.get(`${x} ${y}`) ?? { x, y, members: [], sum: 0 };
    cell.members.push(each);
    cell.sum += spread[0];
    cells.set(`${x} ${y}`, cell);
  }
  const found = [...cells.values()].map(({ x, y, members, sum }) => ({
    value: [x, y, sum / members.length],
    tip: members.length === 1 ? tip(members[0]) : `${options[across].name}=${options[across].words[x]}, ` +
      `${options[up].name}=${options[up].words[y]}\n${metric.title}: ` +
      `${written(sum / members.length, metric)}, mean of ${members.length} configurations`,
  }));
  if (!found.length) return drop("heat-map", new Set());
  const values = found.map(cell => cell.value[2]);
  const words = option => axis(option.name, { type: "category", data: option.words,
    axisLabel: { color: css("--quiet") }, nameGap: option === options[up] ? 56 : 34 });
  const width = document.getElementById("heat-map").clientWidth - 180; // of the cells
  const [least, most] = [Math.min(...values), Math.max(...values)];
  for (const cell of found) { // bright is better
    const share = (cell.value[2] - least) / (most - least || 1);
    const isBright = (metric.better === "lower" ? 1 - share : share) > 0.6;
    cell.label = { color: isBright ? "#000" : "#fff" };
  }
  const alt = `${metric.title} over ${options[across].name} and ${options[up].name}`;
  return draw("heat-map/all", metric.title, alt, {
    grid: { left: 84, right: 96, top: 32, bottom: 52 },
    xAxis: words(options[across]), yAxis: words(options[up]),
    visualMap: { type: "continuous", min: least, max: most, right: 0,
      top: "middle", calculable: true, precision: metric.decimals, textStyle: { color: css("--text") },
      inRange: { color: metric.better === "lower" ? [...VIRIDIS].reverse() : VIRIDIS } },
    series: [{ type: "heatmap", data: found, label: { show: options[across].words.length * 44 < width,
      formatter: item => written(item.value[2], metric) } }],
  });
}

function drawParallel(shown, groups) {
  const axes = [...swept.slice(0, MOST_AXES), ...directed];
  if (!document.getElementById("parallel")) return;
  const at = (each, what) => (what.words ? placeOn(what, options.indexOf(what), each)
    : each.spreads[what.name]?.[0] ?? null);
  const width = Math.min(150, document.getElementById("parallel").clientWidth / axes.length - 8);
  const line = { nameLocation: "start", nameGap: 14,
    nameTextStyle: { color: css("--text"), width, overflow: "break" } };
  const chart = draw("parallel/all", "", "Parallel coordinates of options and metrics", {
    parallel: { left: width / 2 + 8, right: width / 2 + 8, top: 14, bottom: 44 },
    parallelAxis: axes.map((what, dim) => ({ dim, realtime: false,
      ...(what.words ? optionAxis(what, line)
        : { ...metricAxis(what, valuesOf(all, what)), ...line }), name: what.short })),
    series: [{ type: "parallel", smooth: false, inactiveOpacity: 0.05, activeOpacity: 1,
      data: shown.map(each => ({ value: axes.map(what => at(each, what) ?? "-"), tip: tip(each),
        lineStyle: { color: groups.look(groups.nameOf(each)).colour, width: 1.5, opacity: 0.8 } })) }],
  });
  chart.off("axisareaselected");
  chart.on("axisareaselected", () => {
    const kept = chart.getModel().getSeriesByIndex(0).getRawIndicesByActiveState("active");
    brushed = kept.length === shown.length ? null : new Set(kept.map(number => shown[number].number));
    update({ isBrushed: true });
  });
}

function drawCurves(shown, groups) {
  const every = Math.max(1, Math.ceil(shown.length / MOST_CURVES));
  const few = shown.filter((_, number) => number % every === 0), isOwn = controls.namedItem("own").checked;
  const wanted = controls.namedItem("all-curves").checked ? metrics : metrics.filter(m => m.isCompared);
  const kept = new Set();
  for (const metric of wanted.filter(m => few.some(each => each.curves[m.name]))) {
    const drawn = few.filter(each => each.curves[metric.name]);
    const xOf = (each, iteration) => (isOwn ? 100 * iteration / each.nIterations : iteration);
    kept.add(`curves/${metric.name}`);
    draw(`curves/${metric.name}`, metric.title, `${metric.title} over iterations`, {
      tooltip: { ...tooltip(items => tipOfCurves(items, metric, isOwn)), trigger: "axis" },
      xAxis: axis(isOwn ? "% of a run's own iterations" : "iteration", { type: "value" }),
      yAxis: metricAxis(metric, drawn.flatMap(each => each.curves[metric.name].slice(1).flat())),
      dataZoom: [{ type: "inside", xAxisIndex: 0, zoomOnMouseWheel: "shift" }],
      series: drawn.flatMap(each => curve(each, metric, xOf, groups.look(groups.nameOf(each)))),
    });
  }
  drop("curves", kept);
  document.getElementById("n-curves").textContent =
    few.length < shown.length ? `Curves of ${few.length} of ${shown.length} configurations.` : "";
}

function tipOfCurves(items, metric, isOwn) {
  const lines = items.filter(item => item.seriesType === "line").sort((a, b) => b.value[1] - a.value[1]);
  if (!lines.length) return "";
  const at = format(lines[0].value[0]), more = lines.length - MOST_IN_TIP;
  return tipBox([isOwn ? `at ${at} %` : `iteration ${at}`,
    ...lines.slice(0, MOST_IN_TIP).map(line => `${written(line.value[1], metric)}  ${line.seriesName}`),
    ...(more > 0 ? [`and ${more} more`] : [])].join("\n"));
}

function curve(each, metric, xOf, { colour }) {
  const [iterations, means, low, high] = each.curves[metric.name];
  const xs = iterations.map(iteration => xOf(each, iteration));
  const drawn = [{ type: "line", name: each.label, showSymbol: xs.length === 1, color: colour, lineStyle: { width: 1.5 },
    emphasis: { focus: "series" }, triggerLineEvent: true, data: xs.map((x, k) => [x, means[k]]) }];
  if (low) {
    drawn.push({ type: "custom", silent: true, tooltip: { show: false }, z: 1, clip: true, data: [[xs[0], means[0]]],
      renderItem: (_, api) => ({ type: "polygon", silent: true, style: { fill: colour, opacity: 0.15 },
        shape: { points: [...xs.map((x, k) => api.coord([x, high[k]])),
          ...xs.map((x, k) => api.coord([x, low[k]])).reverse()] } }) });
  }
  return drawn;
}

function update({ isBrushed = false } = {}) {
  if (!isBrushed) brushed = null;
  const passing = all.filter(passes);
  const shown = brushed ? passing.filter(each => brushed.has(each.number)) : passing;
  const groups = groupsOf(passing);
  filterPage(shown);
  showLegend(groups);
  drawTradeOff(shown, groups);
  drawHeatMap(shown);
  if (!isBrushed) drawParallel(passing, groups);
  drawCurves(shown, groups);
}

document.documentElement.classList.add("drawn");
document.getElementById("controls").addEventListener("input", () => update());
dark.addEventListener("change", () => update());
update();
