// The models side by side on one recording.

import * as api from "./api.js";
import { pictureOf, verdict } from "./answers.js";
import { bars, evidence } from "./chart.js";
import { capturePanel } from "./capture.js";
import { readAloud, speakerChoice } from "./choices.js";
import { announce, counted, fill, h, millis, notice } from "./dom.js";

const ROUNDS = 5; // of which the median is shown: one alone tells as much about the machine as the model

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

export async function comparePage(root, { models }) {
  const who = await speakerChoice("Speaker", { optional: true, hint: "Empty: identify among everybody." });
  const result = h("section", { className: "result wide", "aria-label": "Comparison" });
  const busy = h("p", { className: "hint", role: "status" });

  async function compare(file) {
    busy.textContent = "Asking each model.";
    let answered;
    try {
      answered = await api.sideBySide(file, who.value(), ROUNDS);
    } finally {
      busy.textContent = "";
    }
    const rows = answered.results.map((one) => ({ name: one.model, ms: median(one.embed_ms) }));
    const cards = answered.results.map((one) => {
      const answer = one.verification ?? one.identification;
      const model = models.find((m) => m.name === one.model);
      return h("article", { className: "card", "aria-label": one.model },
        h("h2", { className: "model" }, one.model, model ? h("span", { className: "hint" },
          ` ${(model.card.parameters / 1e6).toFixed(2)} M parameters, ${(model.card.macs / 1e9).toFixed(2)} GMACs`) : null),
        verdict(answer),
        pictureOf(answer, model),
        h("ul", { className: "evidence" }, evidence(answer).map((line) => h("li", {}, line)),
          h("li", {}, `Network ${millis(median(one.embed_ms))} for ${counted(one.windows, "window")} of 3 s, `
            + `the whole call ${millis(answer.timings_ms.total)}.`)));
    });
    fill(result,
      h("div", { className: "columns even" }, cards),
      h("div", { className: "card" },
        h("h2", {}, `Time in the network, ${counted(answered.results[0].windows, "window")} of 3 s`),
        bars(rows, answered.study_ms.nested),
        h("p", { className: "hint" }, `Median of ${ROUNDS} rounds, models taking turns, on this server under its present load. `
          + `The line is the ${answered.study_ms.nested} ms that the study of the nested network reported for one window; its baseline `
          + `took ${answered.study_ms.baseline} ms. Other machines, so it is a mark and not a contest.`)));
    announce("Comparison ready.", true);
  }

  const capture = capturePanel({
    before: () => (who.value() ? { call: "verify", speaker_id: who.value() } : { call: "identify" }),
    ended: async (_, file) => {
      try {
        await compare(file);
      } catch (error) {
        fill(result, notice("error", h("p", {}, error.message)));
      }
    },
    files: ([file]) => compare(file),
  });
  fill(root,
    h("h1", {}, "Compare the models"),
    h("p", { className: "lead" }, "One recording through every served model. Scores of different models cannot be compared; where they lie on each model’s own trials can."),
    h("section", { className: "card", "aria-label": "Recording" },
      h("div", { className: "controls" }, who.node), readAloud(), capture.node, busy),
    result);
  return capture.leave;
}
