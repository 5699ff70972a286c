// What a reader has chosen: which configurations are shown, and how they are told apart.
"use strict";
const data = JSON.parse(document.getElementById("chart-data").textContent);
const controls = document.getElementById("controls").elements;
const { options, metrics } = data;
const all = data.configurations.map((each, number) => ({ ...each, number }));
const directed = metrics.filter(metric => metric.better && metric.isCompared);
const swept = options.filter(option => option.words.length > 1);
const dark = matchMedia("(prefers-color-scheme: dark)");

const chosen = name => Number(controls.namedItem(name)?.value ?? -1);
const MOST_IN_LEGEND = 30;
const LIGHT = ["#440154", "#3b528b", "#21918c", "#2fa35f", "#9a9a1a"];
const DARK = ["#b79cf0", "#7fa8f0", "#4cc6c0", "#8fd866", "#f5e04a"];
const DISTINCT = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"]; // Okabe & Ito's
const SYMBOLS = ["circle", "rect", "diamond", "triangle", "pin", "arrow"];

function passes(each) {
  return [...document.querySelectorAll("#controls fieldset")].every(field => {
    const place = each.places[Number(field.dataset.option)];
    const box = field.querySelector(`input[value="${place}"]`);
    return !box || box.checked;
  });
}

function filterPage(shown) {
  const numbers = new Set(shown.map(each => each.number));
  for (const element of document.querySelectorAll("[data-configuration]")) {
    const number = Number(element.dataset.configuration);
    element.hidden = number < all.length && !numbers.has(number);
  }
  document.getElementById("n-shown").textContent =
    `${shown.length} of ${all.length} configurations are shown.`;
}

// Colours and marks: of the values of the option that runs are grouped by, or of each family.

function familyOf(each, x) {
  return options.flatMap((option, number) => (option.words.length > 1 && option !== options[x]
    ? [`${option.name}=${option.words[each.places[number]] ?? "–"}`] : [])).join(", ");
}

function groupsOf(shown) {
  const by = chosen("group"), x = chosen("x");
  const nameOf = by >= 0 ? each => options[by].words[each.places[by]] ?? "–" : each => familyOf(each, x);
  const names = by >= 0 ? options[by].words : [...new Set(shown.map(nameOf))];
  const isOrdered = by >= 0 && options[by].scale !== "words";
  const look = name => {
    const number = Math.max(0, names.indexOf(name));
    const share = number / Math.max(1, names.length - 1);
    const colour = isOrdered || names.length > DISTINCT.length
      ? mixed(dark.matches ? DARK : LIGHT, share) : DISTINCT[number];
    return { colour, symbol: SYMBOLS[number % SYMBOLS.length] };
  };
  return { names: names.filter(name => shown.some(each => nameOf(each) === name)), nameOf, look };
}

function mixed(colours, share) {
  const place = share * (colours.length - 1), left = Math.min(Math.floor(place), colours.length - 2);
  const channels = colour => [1, 3, 5].map(start => parseInt(colour.slice(start, start + 2), 16));
  const [from, to] = [channels(colours[left]), channels(colours[left + 1])];
  return `rgb(${from.map((c, k) => Math.round(c + (to[k] - c) * (place - left))).join(",")})`;
}

function showLegend({ names, look }) {
  for (const legend of document.querySelectorAll(".legend")) {
    legend.replaceChildren(...(names.length > 1 ? names.slice(0, MOST_IN_LEGEND) : []).map(name => {
      const entry = document.createElement("span"), mark = document.createElement("i");
      mark.style.background = look(name).colour;
      entry.append(mark, name);
      return entry;
    }));
  }
}
