// What the console's pictures share, and bars of latencies.

import { h, s } from "./dom.js";

export const WIDTH = 640;
export const HEIGHT = 266;

// Text in a picture; near an edge it grows away from it.
export function label(x, y, text, className, anchor) {
  const near = anchor ?? (x < 90 ? "start" : x > WIDTH - 90 ? "end" : "middle");
  return s("text", { x, y, class: className, "text-anchor": near }, text);
}

// Latencies {name, ms} of models as bars, and the study's as a line across them.
export function bars(rows, study) {
  const left = 140;
  const top = 1.15 * Math.max(study, ...rows.map((row) => row.ms));
  const tall = 34;
  const height = rows.length * tall + 46;
  const x = (value) => left + ((WIDTH - left - 100) * value) / top;
  const parts = rows.map((row, i) => [
    label(left - 10, i * tall + 44, row.name, "tick strong", "end"),
    s("rect", { x: left, y: i * tall + 28, width: Math.max(1, x(row.ms) - left), height: 22, rx: 4, class: "bar-fill" }),
    label(WIDTH, i * tall + 44, `${row.ms.toFixed(1)} ms`, "tick strong", "end"),
  ]);
  parts.push(
    s("line", { x1: x(study), x2: x(study), y1: 20, y2: height - 8, class: "threshold" }),
    label(x(study), 14, `the study: ${study.toFixed(1)} ms`, "threshold-label"));
  const spoken = rows.map((row) => `${row.name} ${row.ms.toFixed(1)} ms`).join(", ");
  return h("figure", { className: "chart" },
    s("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${spoken}; the study ${study.toFixed(1)} ms.` }, ...parts.flat()));
}
