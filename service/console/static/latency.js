// How long calls take, read out of /metrics, beside the study's figure.

import * as api from "./api.js";
import { bars } from "./chart.js";
import { fill, h, millis, table } from "./dom.js";
import { problemBox } from "./problems.js";
import { STUDY } from "./study.js";

// What people ask for, and each call's stages in the order in which they happen; `total` is all of them.
const CALLS = { verify: "Verify", identify: "Identify", enroll: "Enrol" };
const STAGES = {
  total: "Whole call", embed: "Network", decode: "Decoding", speech: "Finding speech", queue: "Waiting",
  search: "Comparing", store: "Reading and writing",
};
const ENOUGH = 20; // of so many a percentile says something; of fewer only the mean is shown
const EVERY_MS = 3000;

// Prometheus' text format: name, labels, value.
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const parts = /^([a-z_]+)(?:\{(.*)\})? ([^ ]+)$/.exec(line);
    if (!parts) continue;
    const [, name, inside, value] = parts;
    const labels = Object.fromEntries([...(inside ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map((m) => [m[1], m[2]]));
    samples.push({ name, labels, value: Number(value.replace("Inf", "Infinity")) });
  }
  return samples;
}

// A quantile of cumulative buckets [{le, count}], linear within the bucket it falls in.
export function quantile(buckets, q) {
  const all = buckets.at(-1)?.count ?? 0;
  if (!all) return null;
  const rank = q * all;
  let [below, before] = [0, 0];
  for (const { le, count } of buckets) {
    if (count >= rank) {
      if (!Number.isFinite(le)) return below;
      return below + ((le - below) * (rank - before)) / Math.max(1, count - before);
    }
    [below, before] = [le, count];
  }
  return below;
}

// The histograms of a name as {labels, buckets, sum, count}.
function histograms(samples, name) {
  const byLabels = new Map();
  for (const { name: full, labels: { le, ...labels }, value } of samples) {
    if (!full.startsWith(`${name}_`)) continue;
    const id = JSON.stringify(labels);
    if (!byLabels.has(id)) byLabels.set(id, { labels, buckets: [], sum: 0, count: 0 });
    const histogram = byLabels.get(id);
    if (le !== undefined) histogram.buckets.push({ le: Number(le.replace("+Inf", "Infinity")), count: value });
    else histogram[full.slice(name.length + 1)] = value;
  }
  for (const { buckets } of byLabels.values()) buckets.sort((a, b) => a.le - b.le);
  return [...byLabels.values()];
}

const ms = (seconds) => millis(1000 * seconds);
const mean = ({ sum, count }) => sum / count;
// The typical time: the median, or of few the mean, which the histogram holds exactly.
const typical = (histogram) => (histogram.count < ENOUGH ? mean(histogram) : quantile(histogram.buckets, 0.5));

// p50 and p95, or of few the mean.
function spread(histogram) {
  if (!histogram?.count) return ["–", "–"];
  if (histogram.count < ENOUGH) return [`${ms(mean(histogram))} (mean)`, "–"];
  return [0.5, 0.95].map((q) => ms(quantile(histogram.buckets, q)));
}

const modelsOf = (stages) => [...new Set(stages.map(({ labels }) => labels.model))].sort();
const of = (stages, model, stage) => stages.find(({ labels }) => labels.model === model && labels.stage === stage);
const nameOf = (model) => (model === "all" ? "all models" : model);

// Every call and model in a line: the whole call, and its part in the network.
function callsCard(calls) {
  const rows = calls.flatMap(([call, stages]) => modelsOf(stages).map((model) => {
    const total = of(stages, model, "total");
    return [`${CALLS[call]}, ${nameOf(model)}`, total.count.toLocaleString("en"), ...spread(total), spread(of(stages, model, "embed"))[0]];
  }));
  return h("section", { className: "card" }, h("h2", {}, "How long a call takes"),
    rows.length ? table({ name: "How long a call takes", stack: true, heads: ["Call", "Calls", "p50", "p95", "Network, p50"] }, rows)
      : h("p", { className: "hint" }, "Nobody was verified, identified or enrolled yet."),
    h("p", { className: "hint" }, `Of fewer than ${ENOUGH} calls the mean is shown: their percentiles would say nothing.`));
}

const opened = new Set(); // stages stay unfolded when the page is drawn anew

// A call's stages, a table for each model. Enrolment runs every model, so it has one table.
function stagesCard([call, stages]) {
  const toggle = ({ target }) => (target.open ? opened.add(call) : opened.delete(call));
  return h("details", { className: "card", open: opened.has(call), ontoggle: toggle },
    h("summary", {}, `${CALLS[call]}: stages`),
    h("div", { className: "tables" }, modelsOf(stages).map((model) =>
      table({ name: `${CALLS[call]}, ${nameOf(model)}`, caption: nameOf(model), heads: ["Stage", "p50", "p95"] },
        Object.entries(STAGES).filter(([stage]) => of(stages, model, stage))
          .map(([stage, name]) => [name, ...spread(of(stages, model, stage))])))));
}

// Histograms of the same buckets, added up.
function together(parts) {
  const add = (of) => parts.reduce((sum, part) => sum + of(part), 0);
  return {
    sum: add((part) => part.sum),
    count: add((part) => part.count),
    buckets: parts[0].buckets.map(({ le }, i) => ({ le, count: add((part) => part.buckets[i].count) })),
  };
}

function networkCard(stages, study) {
  const decisions = stages.filter(({ labels, count }) => labels.stage === "embed" && count && ["verify", "identify"].includes(labels.call));
  const rows = modelsOf(decisions).map((model) =>
    ({ name: model, ms: 1000 * typical(together(decisions.filter(({ labels }) => labels.model === model))) }));
  return h("section", { className: "card" }, h("h2", {}, "Time in the network"),
    rows.length ? bars(rows, 1000 * study)
      : h("p", { className: "hint" }, "No recording was embedded for a decision yet. Verify or identify something."),
    h("p", { className: "hint" }, "The line is the forward pass of ", h("a", { href: "#/study" }, STUDY),
      `: one window of 3 s, on another machine. A bar is the median of all decisions here (the mean of fewer than ${ENOUGH}), each with all windows of its recording.`));
}

function draw(samples) {
  const value = (name) => samples.filter((x) => x.name === name).reduce((sum, x) => sum + x.value, 0);
  const stages = histograms(samples, "sayso_stage_seconds");
  const study = samples.find((x) => x.name === "sayso_study_latency_seconds" && x.labels.network === "nested").value;
  const live = histograms(samples, "sayso_stream_decision_seconds").filter(({ count }) => count);
  const counters = (name, title) => samples.filter((x) => x.name === name && x.value)
    .map((x) => [title(x.labels), x.value.toLocaleString("en")]);
  const decisions = counters("sayso_decisions_total", (l) => `${l.call}: ${l.decision.replace("_", " ")} (${l.model})`);
  const refusals = counters("sayso_refusals_total", (l) => l.code.replaceAll("_", " "));
  const tile = (name, text) => h("div", { className: "tile" }, h("dt", {}, name), h("dd", {}, text));
  const calls = Object.keys(CALLS)
    .map((call) => [call, stages.filter(({ labels, count }) => labels.call === call && count)])
    .filter(([, own]) => own.length);
  return [
    callsCard(calls),
    networkCard(stages, study),
    calls.map(stagesCard),
    live.length ? h("section", { className: "card" }, h("h2", {}, "Streams"),
      table({ name: "Streams", caption: "From enough speech to the first decision", stack: true, heads: ["Call and model", "Streams", "p50", "p95"] },
        live.map((histogram) => [`${CALLS[histogram.labels.call] ?? histogram.labels.call}, ${histogram.labels.model}`, histogram.count, ...spread(histogram)]))) : null,
    h("section", { className: "card" }, h("h2", {}, "Right now"),
      h("dl", { className: "tiles" },
        tile("At work", value("sayso_in_flight")), tile("Waiting", value("sayso_queue_depth")), tile("Streams", value("sayso_streams")),
        tile("Requests so far", value("sayso_requests_total").toLocaleString("en")), tile("Refused so far", value("sayso_refusals_total").toLocaleString("en")))),
    decisions.length || refusals.length ? h("section", { className: "card" }, h("h2", {}, "Answers so far"), h("div", { className: "tables" },
      decisions.length ? table({ name: "Decisions", heads: ["Decision", "Count"] }, decisions) : null,
      refusals.length ? table({ name: "Refusals", heads: ["Refusal", "Count"] }, refusals) : null)) : null,
  ];
}

export async function latencyPage(root) {
  const body = h("div", { className: "stack" });
  fill(root, h("h1", {}, "Latency"),
    h("p", { className: "lead" }, "How long calls took since this process started, read anew every three seconds. All figures are at ",
      h("a", { href: "metrics" }, "/metrics"), "."), body);
  let going = true;
  async function refresh() {
    try {
      const samples = parse(await api.metrics());
      if (!going || body.contains(document.activeElement)) return; // leave a table alone while it is read
      fill(body, draw(samples));
    } catch (error) {
      if (going) fill(body, problemBox(error));
    }
  }
  await refresh();
  const timer = setInterval(refresh, EVERY_MS);
  return () => {
    going = false;
    clearInterval(timer);
  };
}
