// The study that Sayso answers, beside the models that are served here.

import { fill, h, percent, table } from "./dom.js";

export const STUDY = "the study of 29 December 2025";

// Network, EER on 140 speakers of mini VoxCeleb1, milliseconds of one forward pass, parameters: docs/study.md.
const NETWORKS = [
  ["ResNetSE34L, its baseline", "15.48 %", "31.4 ms", "1.50 M"],
  ["NestedSpeakerNet, the best of three", "18.71 %", "28.8 ms", "1.62 M"],
];

const millions = (count) => `${(count / 1e6).toFixed(2)} M`;

function served(model) {
  const lists = Object.entries(model.card.evaluation ?? {});
  const [list, measured] = lists.find(([name]) => name === "dev.trials") ?? lists[0] ?? [];
  return [model.name, measured ? `${percent(measured.eer)} on ${list}` : "not measured", millions(model.card.parameters)];
}

export async function studyPage(root, { models }) {
  fill(root,
    h("h1", {}, "The study"),
    h("p", { className: "lead" }, "Sayso was built to answer a research log of 29 December 2025."),
    h("section", { className: "card stack" },
      h("p", {}, "The log tried NestedSpeakerNet, a network in which every level sees all levels before it, beside ResNetSE34L. The nested "
        + "networks erred more often and were 1.09 times as fast, where twice had been hoped for. Two of the three stopped at values that "
        + "were not finite, and the idea was given up. The 28.8 ms are the mark in this console’s pictures of latency."),
      table({ name: "The study’s networks", caption: "The study’s networks, on its 140 speakers of VoxCeleb1",
        heads: ["Network", "EER", "Forward pass", "Parameters"], stack: true }, NETWORKS),
      models.length ? table({ name: "Served here", caption: "The models served here, on the trials of their cards",
        heads: ["Model", "EER", "Parameters"], stack: true }, models.map(served)) : null,
      h("p", { className: "hint" }, "Their times here are on the page ", h("a", { href: "#/latency" }, "Latency"), ". Trials and machines "
        + "differ, so the two tables cannot be compared line by line. Sayso’s documentation, in docs/study.md, trains the study’s networks "
        + "again by one recipe, where they can.")));
}
