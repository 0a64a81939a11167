"use strict";

const text = getComputedStyle(document.documentElement).fontFamily;
const quiet = { labelColor: "var(--muted)", titleColor: "var(--muted)", domainColor: "var(--rule)", tickColor: "var(--rule)", gridColor: "var(--rule)" };
const config = {
  background: "transparent",
  font: text,
  view: { stroke: null },
  axis: { ...quiet, labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal", labelPadding: 6, titlePadding: 10, tickSize: 4, gridOpacity: 0.7 },
  axisX: { grid: false },
  axisY: { domain: false, ticks: false },
};
const charts = JSON.parse(document.getElementById("charts").textContent);

for (const place of document.querySelectorAll("[data-chart]")) {
  vegaEmbed(place, charts[place.dataset.chart], {
    mode: "vega-lite", renderer: "svg", actions: false, ast: true, config, tooltip: { disableDefaultStyle: true },
  }).catch((error) => { place.textContent = `This chart could not be drawn: ${error.message}`; });
}

function order(table, column, button) {
  const rising = button.getAttribute("aria-sort") !== "ascending";
  const body = table.tBodies[0];
  const compare = ({ dataset: one, textContent: name }, { dataset: two, textContent: other }) =>
    "value" in one ? one.value - two.value : name.localeCompare(other, undefined, { numeric: true });
  const rows = [...body.rows].sort((a, b) => compare(a.cells[column], b.cells[column]));
  body.append(...(rising ? rows : rows.reverse()));
  for (const head of table.tHead.rows[0].cells) head.removeAttribute("aria-sort");
  button.setAttribute("aria-sort", rising ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("table.sortable")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => order(table, column, head));
  });
}
