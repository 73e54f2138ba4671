// Latencies out of /metrics, drawn against the study's.

import * as api from "./api.js";
import { bars } from "./chart.js";
import { fill, h, millis, notice } from "./dom.js";

const STAGES = ["decode", "speech", "queue", "embed", "search", "store", "total"];
const EVERY_MS = 3000;

// Prometheus' text format: name, labels, value.
export function parse(text) {
  const samples = [];
  for (const line of text.split("\n")) {
    const found = /^([a-z_]+)(?:\{(.*)\})? ([^ ]+)$/.exec(line);
    if (!found) continue;
    const labels = Object.fromEntries([...(found[2] ?? "").matchAll(/([a-z_]+)="((?:[^"\\]|\\.)*)"/g)].map((m) => [m[1], m[2]]));
    samples.push({ name: found[1], labels, value: Number(found[3].replace("Inf", "Infinity")) });
  }
  return samples;
}

// A quantile of cumulative buckets [{le, count}], linear within the bucket it falls in.
export function quantile(buckets, q) {
  const all = buckets.at(-1)?.count ?? 0;
  if (!all) return null;
  const wanted = q * all;
  let [below, before] = [0, 0];
  for (const { le, count } of buckets) {
    if (count >= wanted) {
      if (!Number.isFinite(le)) return below;
      return below + ((le - below) * (wanted - before)) / Math.max(1, count - before);
    }
    [below, before] = [le, count];
  }
  return below;
}

function histograms(samples, name, by) {
  const found = new Map();
  for (const { name: at, labels, value } of samples) {
    if (at !== `${name}_bucket`) continue;
    const id = by.map((label) => labels[label]).join(" ");
    if (!found.has(id)) found.set(id, []);
    found.get(id).push({ le: Number(labels.le.replace("+Inf", "Infinity")), count: value });
  }
  for (const buckets of found.values()) buckets.sort((a, b) => a.le - b.le);
  return found;
}

const ms = (value) => (value === null ? "–" : millis(1000 * value));

function table(caption, heads, rows) {
  return h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, caption),
      h("thead", {}, h("tr", {}, heads.map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, rows.map(([first, ...rest]) => h("tr", {}, h("th", { scope: "row" }, first),
        rest.map((cell) => h("td", { className: "number" }, cell)))))));
}

function spread(buckets) {
  return [buckets.at(-1).count.toLocaleString("en"), ...[0.5, 0.95, 0.99].map((q) => ms(quantile(buckets, q)))];
}

function draw(samples) {
  const value = (name) => samples.filter((x) => x.name === name).reduce((sum, x) => sum + x.value, 0);
  const stages = histograms(samples, "sayso_stage_seconds", ["model", "stage"]);
  const order = ([id]) => STAGES.indexOf(id.split(" ")[1]);
  const rows = [...stages].sort((a, b) => a[0].split(" ")[0].localeCompare(b[0].split(" ")[0]) || order(a) - order(b));
  const embed = rows.filter(([id]) => id.endsWith(" embed") && !id.startsWith("all "))
    .map(([id, buckets]) => ({ name: id.split(" ")[0], ms: 1000 * quantile(buckets, 0.5) }));
  const routes = [...histograms(samples, "sayso_request_seconds", ["route"])].sort();
  const live = [...histograms(samples, "sayso_stream_decision_seconds", ["call", "model"])].sort();
  const counters = (name, label) => samples.filter((x) => x.name === name && x.value)
    .map((x) => [label(x.labels), x.value.toLocaleString("en")]);
  const study = samples.find((x) => x.name === "sayso_study_latency_seconds" && x.labels.network === "nested");
  const tile = (name, text) => h("div", { className: "tile" }, h("dt", {}, name), h("dd", {}, text));
  return [
    h("dl", { className: "tiles" },
      tile("Requests", value("sayso_requests_total").toLocaleString("en")),
      tile("At work", value("sayso_in_flight")), tile("Waiting", value("sayso_queue_depth")),
      tile("Streams", value("sayso_streams")), tile("Refused", value("sayso_refusals_total").toLocaleString("en"))),
    h("section", { className: "card" }, h("h2", {}, "Time in the network, median"),
      embed.length ? bars(embed, 1000 * study.value)
        : h("p", { className: "hint" }, "No recording was embedded for a decision yet. Verify or identify something."),
      h("p", { className: "hint" }, "A recording of several 3 s windows takes longer than the one window that the study timed. Read off the histogram’s buckets.")),
    rows.length ? h("section", { className: "card" }, table("Stages by model; “all” is enrolment, which embeds with every model",
      ["Model and stage", "Count", "p50", "p95", "p99"], rows.map(([id, buckets]) => [id, ...spread(buckets)]))) : null,
    live.length ? h("section", { className: "card" }, table("Streams: from enough speech to the first decision",
      ["Call and model", "Count", "p50", "p95", "p99"], live.map(([id, buckets]) => [id, ...spread(buckets)]))) : null,
    h("section", { className: "card" }, table("Requests by route", ["Route", "Count", "p50", "p95", "p99"],
      routes.map(([id, buckets]) => [id, ...spread(buckets)]))),
    h("section", { className: "card columns even" },
      table("Decisions", ["Call, decision, model", "Count"], counters("sayso_decisions_total", (l) => `${l.call}: ${l.decision} (${l.model})`)),
      table("Refusals", ["Code", "Count"], counters("sayso_refusals_total", (l) => l.code))),
  ];
}

export async function latencyPage(root) {
  const body = h("div", { className: "stack" });
  fill(root, h("h1", {}, "Latency"),
    h("p", { className: "lead" }, "What this process has measured since it started, from its ", h("a", { href: "metrics" }, "/metrics"), ", read every three seconds."), body);
  let going = true;
  async function refresh() {
    try {
      const samples = parse(await api.metrics());
      if (!going || body.contains(document.activeElement)) return; // leave a table alone while it is read
      fill(body, draw(samples));
    } catch (error) {
      if (going) fill(body, notice("error", h("p", {}, error.message)));
    }
  }
  await refresh();
  const timer = setInterval(refresh, EVERY_MS);
  return () => {
    going = false;
    clearInterval(timer);
  };
}
