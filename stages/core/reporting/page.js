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

const known = (cell) => "value" in cell.dataset || cell.textContent.trim() !== "";

function compare(one, other) {
  if ("value" in one.dataset && "value" in other.dataset) return one.dataset.value - other.dataset.value;
  return one.textContent.localeCompare(other.textContent, undefined, { numeric: true });
}

function order(table, column, head) {
  const rising = head.getAttribute("aria-sort") !== "ascending";
  for (const body of table.tBodies) {
    const rows = [...body.rows], cells = (row) => row.cells[column];
    const numbers = rows.some((row) => "value" in cells(row).dataset);
    const told = (row) => numbers ? "value" in cells(row).dataset : known(cells(row));
    const sorted = rows.filter(told).sort((a, b) => compare(cells(a), cells(b)) * (rising ? 1 : -1));
    body.append(...sorted, ...rows.filter((row) => !told(row)));
  }
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", rising ? "ascending" : "descending");
}

for (const table of document.querySelectorAll("main table")) {
  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    if (!head.textContent.trim()) button.setAttribute("aria-label", "Order by this column");
    button.append(...head.childNodes);
    button.addEventListener("click", () => order(table, column, head));
    head.append(button);
  });
}
