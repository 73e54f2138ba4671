// A score on the picture of the trials that set its threshold.

import { h, percent, s, score } from "./dom.js";

const WIDTH = 640;
const HEIGHT = 266;
const FRAME = { left: 14, right: 14, top: 44, bottom: 56 };

function scaleX(low, high) {
  const inner = WIDTH - FRAME.left - FRAME.right;
  return (value) => FRAME.left + (inner * (Math.max(low, Math.min(high, value)) - low)) / (high - low);
}

// The outline of a histogram where it holds anything, as a path.
function outline(edges, heights, x, y) {
  const first = heights.findIndex((height) => height > 0);
  const last = heights.findLastIndex((height) => height > 0);
  return heights.map((height, i) => [x((edges[i] + edges[i + 1]) / 2), y(height)])
    .slice(first, last + 1)
    .map(([px, py], i) => `${i ? "L" : "M"}${px.toFixed(1)},${py.toFixed(1)}`).join(" ");
}

function hill(edges, heights, x, y, className) {
  const line = outline(edges, heights, x, y);
  const [, from] = /^M([\d.]+),/.exec(line);
  const [, to] = /([\d.]+),[\d.]+$/.exec(line);
  return [
    s("path", { d: `${line} L${to},${y(0)} L${from},${y(0)} Z`, class: className }),
    s("path", { d: line, class: `outline ${className}` }),
  ];
}

// Three bins at a time: 80 bins of a few thousand trials are ragged, and the eye should see the shape.
function smooth(heights) {
  const at = (i) => heights[Math.max(0, Math.min(heights.length - 1, i))];
  return heights.map((_, i) => (at(i - 1) + 2 * at(i) + at(i + 1)) / 4);
}

function range(histogram, values) {
  if (!histogram) return [Math.min(-0.2, ...values), 1];
  const used = histogram.edges.filter((_, i) => (histogram.target[i] ?? 0) + (histogram.nontarget[i] ?? 0) > 0);
  return [Math.min(used[0] ?? -0.2, ...values) - 0.03, Math.max(used.at(-1) ?? 1, ...values, 0.98) + 0.02];
}

function label(x, y, text, className, anchor) {
  const near = anchor ?? (x < 90 ? "start" : x > WIDTH - 90 ? "end" : "middle");
  return s("text", { x, y, class: className, "text-anchor": near }, text);
}

// `histogram` is the card's, or null; `marks` are {value, name} of scores to show, the first one the answer's.
export function distributions({ histogram, threshold, marks, verdict, name }) {
  const values = [threshold.value, ...marks.map((mark) => mark.value)];
  const [low, high] = range(histogram, values);
  const x = scaleX(low, high);
  const floor = HEIGHT - FRAME.bottom;
  const parts = [];
  const words = [];
  if (histogram) {
    const target = smooth(histogram.target);
    const other = smooth(histogram.nontarget);
    const top = Math.max(...target, ...other);
    const y = (value) => floor - ((floor - FRAME.top - 16) * value) / top;
    parts.push(
      ...hill(histogram.edges, other, x, y, "nontarget"), ...hill(histogram.edges, target, x, y, "target"));
    for (const [heights, text, className] of [[other, "different speakers", "of-nontarget"], [target, "same speaker", "of-target"]]) {
      const peak = heights.indexOf(Math.max(...heights));
      words.push(label(x((histogram.edges[peak] + histogram.edges[peak + 1]) / 2), y(heights[peak]) - 6, text, className));
    }
  }
  parts.push(s("line", { x1: FRAME.left, x2: WIDTH - FRAME.right, y1: floor, y2: floor, class: "axis" }));
  for (let tick = Math.ceil(low * 5) / 5; tick <= high + 1e-9; tick += 0.2) {
    const text = tick.toFixed(1).replace("-0.0", "0.0").replace("-", "−");
    parts.push(label(x(tick), floor + 19, text, "tick", "middle"));
  }
  parts.push(
    s("line", { x1: x(threshold.value), x2: x(threshold.value), y1: 24, y2: floor, class: "threshold" }),
    label(x(threshold.value), 16, `threshold ${score(threshold.value)}`, "threshold-label"));
  marks.toReversed().forEach((mark, i) => {
    const first = i === marks.length - 1;
    const at = x(mark.value);
    parts.push(s("path", {
      d: `M${at},${floor - 2} l-7,-13 h14 Z M${at},${floor - 14} V${first ? 62 : floor - 30}`,
      class: first ? `mark ${verdict}` : "mark other",
    }));
    if (first) parts.push(label(at, HEIGHT - 9, `${mark.name} ${score(mark.value)}`, "mark-label"));
  });
  const first = marks[0];
  const side = first && first.value >= threshold.value ? "above" : "below";
  const said = first
    ? `${name}: score ${score(first.value)}, ${side} the threshold of ${score(threshold.value)}.`
    : `${name}: threshold ${score(threshold.value)}, no score to show.`;
  return h("figure", { className: "chart" },
    s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": said }, ...parts, ...words),
    histogram ? null : h("figcaption", {}, "This model's card holds no score distributions: only the threshold is drawn."));
}

// What a score says, in words. `llr` is a natural logarithm.
export function evidence(answer) {
  const { llr, threshold } = answer;
  const lines = [];
  if (llr !== null && llr !== undefined) {
    const ratio = Math.exp(Math.abs(llr));
    const times = ratio >= 1000 ? "more than 1,000" : ratio < 1.95 ? ratio.toFixed(1) : Math.round(ratio).toLocaleString("en");
    const [one, two] = llr >= 0 ? ["one speaker", "two"] : ["two speakers", "one"];
    lines.push(`This score is ${times} times likelier for ${one} than for ${two} (LLR ${llr.toFixed(1).replace("-", "−")}).`);
  }
  if (threshold.fpir) {
    lines.push(`The threshold lets an unknown voice match anybody in about ${percent(threshold.fpir)} of searches`
      + `${threshold.extrapolated ? ", extrapolated beyond the calibration trials" : ""}.`);
  } else if (threshold.fmr !== null && threshold.fmr !== undefined && threshold.fnmr !== undefined) {
    lines.push(`At this threshold ${percent(threshold.fmr)} of different-speaker trials were accepted `
      + `and ${percent(threshold.fnmr)} of same-speaker trials rejected.`);
  } else if (threshold.source === "setting") {
    lines.push("The threshold was set by hand: nobody measured its error rates.");
  }
  return lines;
}

// Latencies of models as bars, with the study's figure drawn through.
export function bars(rows, study) {
  const top = 1.15 * Math.max(study, ...rows.map((row) => row.ms));
  const tall = 34;
  const height = rows.length * tall + 46;
  const x = (value) => 110 + ((WIDTH - 210) * value) / top;
  const parts = rows.map((row, i) => [
    label(100, i * tall + 44, row.name, "tick strong", "end"),
    s("rect", { x: 110, y: i * tall + 28, width: Math.max(1, x(row.ms) - 110), height: 22, rx: 4, class: "bar-fill" }),
    label(WIDTH, i * tall + 44, `${row.ms.toFixed(1)} ms`, "tick strong", "end"),
  ]);
  parts.push(
    s("line", { x1: x(study), x2: x(study), y1: 20, y2: height - 8, class: "threshold" }),
    label(x(study), 14, `the study's ${study.toFixed(1)} ms`, "threshold-label"));
  const said = rows.map((row) => `${row.name} ${row.ms.toFixed(1)} ms`).join(", ");
  return h("figure", { className: "chart" },
    s("svg", { viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": `${said}; the study ${study.toFixed(1)} ms.` }, ...parts.flat()));
}
