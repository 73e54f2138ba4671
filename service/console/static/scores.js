// A score among the trials that set its threshold: the picture, and what it says in words.
// This module alone reads scores and thresholds out of an answer; the others only pass answers to it.

import { h, percent, s, score } from "./dom.js";
import { HEIGHT, label, WIDTH } from "./chart.js";

const FRAME = { left: 14, right: 14, top: 44, bottom: 56 };
const FEW_BINS = 24; // fewer are drawn as the bars they are; a line through their middles would invent a shape
const POSITIVE = ["accept", "match"];
const NEGATIVE = ["reject", "no_match"];
const KINDS = {
  accept: "accept", match: "accept", reject: "reject", no_match: "reject", inconclusive: "doubt", ambiguous: "doubt",
};

// Where a score, and the threshold, lie on the picture's axis.
const placeOf = (scored) => scored.score;
const thresholdOf = (answer) => answer.threshold.value;

// The LLR at the threshold, or null where the model's card is not known.
function thresholdLlr(answer, model) {
  const line = model?.card?.calibration?.llr;
  return line ? line.slope * thresholdOf(answer) + line.offset : null;
}

// Which colours a decision is shown in.
export const kindOf = (answer) => KINDS[answer.decision];

function scaleX(low, high) {
  const inner = WIDTH - FRAME.left - FRAME.right;
  return (value) => FRAME.left + (inner * (Math.max(low, Math.min(high, value)) - low)) / (high - low);
}

const filled = (density) => [density.findIndex((d) => d > 0), density.findLastIndex((d) => d > 0)];

// The corners [score, density] of a histogram's outline, from the axis back to the axis; none if it is empty.
export function corners(edges, density, few) {
  const [first, last] = filled(density);
  if (first < 0) return [];
  const inner = density.slice(first, last + 1).flatMap((d, i) => {
    const [from, to] = [edges[first + i], edges[first + i + 1]];
    return few ? [[from, d], [to, d]] : [[(from + to) / 2, d]];
  });
  return [[edges[first], 0], ...inner, [edges[last + 1], 0]];
}

// Three bins at a time: 80 bins of a few thousand trials are ragged, and the eye should see the shape.
function smooth(density) {
  const at = (i) => density[Math.max(0, Math.min(density.length - 1, i))];
  return density.map((_, i) => (at(i - 1) + 2 * at(i) + at(i + 1)) / 4);
}

function hill(points, x, y, name) {
  const line = points.map(([px, py], i) => `${i ? "L" : "M"}${x(px).toFixed(1)},${y(py).toFixed(1)}`).join(" ");
  return [
    s("path", { d: `${line} Z`, class: name, "data-corners": points.length }),
    s("path", { d: line, class: `outline ${name}` }),
  ];
}

// The two hills and their names. `x` maps scores; the tallest bin reaches below the threshold's label.
function hills(histogram, x, floor) {
  const both = [histogram.target, histogram.nontarget];
  const few = histogram.edges.slice(1).filter((_, i) => both.some((density) => density[i] > 0)).length < FEW_BINS;
  const [target, other] = few ? both : both.map(smooth);
  const top = Math.max(...target, ...other);
  if (!(top > 0)) return [];
  const y = (value) => floor - ((floor - FRAME.top - 16) * value) / top;
  const named = [[other, "different speakers", "nontarget"], [target, "same speaker", "target"]]
    .filter(([density]) => Math.max(...density) > 0)
    .map(([density, text, name]) => {
      const peak = density.indexOf(Math.max(...density));
      const middle = (histogram.edges[peak] + histogram.edges[peak + 1]) / 2;
      return { density, text, name, px: x(middle), py: y(density[peak]) };
    });
  const [a, b] = named;
  const close = b && Math.abs(a.px - b.px) < 170 && Math.abs(a.py - b.py) < 24;
  return [
    named.map(({ density, name }) => hill(corners(histogram.edges, density, few), x, y, name)),
    named.map(({ text, name, px, py }, i) => {
      const anchor = close ? (px <= named[1 - i].px ? "end" : "start") : undefined;
      return label(px, py - 6, text, `of-${name}`, anchor);
    }),
  ].flat(2);
}

function range(histogram, values) {
  const places = [...values];
  if (histogram) {
    for (const density of [histogram.target, histogram.nontarget]) {
      const [first, last] = filled(density);
      if (first >= 0) places.push(histogram.edges[first], histogram.edges[last + 1]);
    }
  } else {
    places.push(-0.2);
  }
  return [Math.min(...places) - 0.03, Math.max(...places, 0.98) + 0.02];
}

// The scores to mark: the candidates', or the answer's own. A key without the scope `scores` gets none.
function marksOf(answer) {
  const marks = answer.candidates?.slice(0, 5).map((c) => ({ value: placeOf(c), name: c.speaker_id }))
    ?? [{ value: placeOf(answer), name: "score" }];
  return marks.filter((mark) => mark.value !== null);
}

// The picture of an answer; `model` is that of /v1/models, or undefined for a key that may not read them.
export function picture(answer, model) {
  const histogram = model?.card?.calibration?.histogram ?? null;
  const threshold = thresholdOf(answer);
  const marks = marksOf(answer);
  const [low, high] = range(histogram, [threshold, ...marks.map((mark) => mark.value)]);
  const x = scaleX(low, high);
  const floor = HEIGHT - FRAME.bottom;
  const parts = histogram ? hills(histogram, x, floor) : [];
  const names = parts.filter((part) => part.tagName === "text");
  const shapes = parts.filter((part) => part.tagName !== "text");
  shapes.push(s("line", { x1: FRAME.left, x2: WIDTH - FRAME.right, y1: floor, y2: floor, class: "axis" }));
  for (let tick = Math.ceil(low * 5) / 5; tick <= high + 1e-9; tick += 0.2) {
    const text = tick.toFixed(1).replace("-0.0", "0.0").replace("-", "−");
    shapes.push(label(x(tick), floor + 19, text, "tick", "middle"));
  }
  shapes.push(
    s("line", { x1: x(threshold), x2: x(threshold), y1: 24, y2: floor, class: "threshold" }),
    label(x(threshold), 16, `threshold ${score(threshold)}`, "threshold-label"));
  marks.toReversed().forEach((mark, i) => {
    const first = i === marks.length - 1;
    const at = x(mark.value);
    shapes.push(s("path", {
      d: `M${at},${floor - 2} l-7,-13 h14 Z M${at},${floor - 14} V${first ? 62 : floor - 30}`,
      class: first ? `mark ${kindOf(answer)}` : "mark other",
    }));
    if (first) shapes.push(label(at, HEIGHT - 9, `${mark.name} ${score(mark.value)}`, "mark-label"));
  });
  const [first] = marks;
  const spoken = first
    ? `${answer.model.name}: score ${score(first.value)}, ${first.value >= threshold ? "above" : "below"} the threshold of ${score(threshold)}.`
    : `${answer.model.name}: threshold ${score(threshold)}, no score to show.`;
  return h("figure", { className: "chart" },
    s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": spoken }, ...shapes, ...names),
    histogram ? null : h("figcaption", {}, "This model’s card holds no distributions of scores, so only the threshold is drawn."));
}

const signed = (llr) => llr.toFixed(1).replace("-", "−");

// What the LLR (a natural logarithm) says. It compares one speaker with two, and the threshold may ask for more or
// less than even odds: where decision and LLR point different ways, both are said as LLRs and no odds are named.
function weight(answer, model) {
  const { llr, decision } = answer;
  const contrary = (llr > 0 && NEGATIVE.includes(decision)) || (llr < 0 && POSITIVE.includes(decision));
  if (!contrary) {
    const ratio = Math.exp(Math.abs(llr));
    const times = ratio >= 1000 ? "more than 1,000" : ratio < 1.95 ? ratio.toFixed(1) : Math.round(ratio).toLocaleString("en");
    const [likely, unlikely] = llr >= 0 ? ["one speaker", "two"] : ["two speakers", "one"];
    return `This score is ${times} times likelier for ${likely} than for ${unlikely} (LLR ${signed(llr)}).`;
  }
  const needed = thresholdLlr(answer, model);
  const threshold = needed === null ? "the threshold" : `the threshold of LLR ${signed(needed)}`;
  if (decision === "no_match") {
    const among = answer.searched === 1 ? "one speaker" : `${answer.searched} speakers`;
    return `The best score has LLR ${signed(llr)}, below ${threshold} for a search among ${among}. `
      + "The more speakers are searched, the likelier one of them sounds alike by chance, so a search asks for more.";
  }
  return `The score has LLR ${signed(llr)}, ${llr > 0 ? "below" : "above"} ${threshold} that was chosen.`;
}

// What an answer's score and threshold say, a sentence each.
export function evidence(answer, model) {
  const { llr, threshold } = answer;
  const lines = [];
  if (llr !== null && llr !== undefined) lines.push(weight(answer, model));
  if (threshold.fpir) {
    lines.push(`In about ${percent(threshold.fpir)} of searches this threshold lets an unknown voice match somebody`
      + `${threshold.extrapolated ? ", extrapolated beyond the calibration trials" : ""}.`);
  } else if (threshold.fmr !== null && threshold.fmr !== undefined && threshold.fnmr !== undefined) {
    lines.push(`In calibration this threshold accepted ${percent(threshold.fmr)} of different-speaker trials `
      + `and rejected ${percent(threshold.fnmr)} of same-speaker trials.`);
  } else if (threshold.source === "setting") {
    lines.push("The threshold was set by hand, so its error rates are not known.");
  }
  return lines;
}
