// The models side by side on one recording. Nothing here counts: no recording is used up, no attempt is counted.

import * as api from "./api.js";
import { verdict } from "./answers.js";
import { bars } from "./chart.js";
import { capturePanel } from "./capture.js";
import { readAloud, speakerChoice } from "./choices.js";
import { announce, counted, fill, h, reveal } from "./dom.js";
import { evidence, picture } from "./scores.js";
import { STUDY } from "./study.js";

const ROUNDS = 5; // of which the median is shown: one round says as much about the machine as about the model

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

export async function comparePage(root, { models }) {
  const who = await speakerChoice("Speaker", { optional: true, hint: "Leave it empty to identify among everybody." });
  const result = h("section", { className: "result wide", "aria-label": "Comparison" });
  const busy = h("p", { className: "hint", role: "status" });

  function card({ model: name, verification, identification }) {
    const answer = verification ?? identification;
    const model = models.find((m) => m.name === name);
    return h("article", { className: "card", "aria-label": name },
      h("h2", { className: "model" }, name, model ? h("span", { className: "hint" },
        ` ${(model.card.parameters / 1e6).toFixed(2)} M parameters, ${(model.card.macs / 1e9).toFixed(2)} GMACs`) : null),
      verdict(answer),
      picture(answer, model),
      h("ul", { className: "evidence" }, evidence(answer, model).map((line) => h("li", {}, line))));
  }

  function times(answered) {
    const rows = answered.results.map(({ model, embed_ms: ms }) => ({ name: model, ms: median(ms) }));
    const windows = counted(answered.results[0].windows, "window");
    return h("div", { className: "card" },
      h("h2", {}, `Time in the network, ${windows} of 3 s`),
      bars(rows, answered.study_ms.nested),
      h("p", { className: "hint" }, `Each is the median of ${ROUNDS} rounds in which the models take turns, on this server under its `
        + `present load. The line is ${answered.study_ms.nested.toFixed(1)} ms, which `, h("a", { href: "#/study" }, STUDY),
      ` reported for its nested network and one window; its baseline took ${answered.study_ms.baseline.toFixed(1)} ms. `
        + "It was measured on another machine, so it is a mark and no contest."));
  }

  async function compare(file) {
    fill(result);
    busy.textContent = "Asking each model.";
    try {
      const answered = await api.sideBySide(file, who.value(), ROUNDS);
      fill(result, h("div", { className: "columns even" }, answered.results.map(card)), times(answered));
    } finally {
      busy.textContent = "";
    }
    reveal(result);
    announce("The comparison is ready.", true);
  }

  const capture = capturePanel({
    before: () => null, // a stream would decide, and use the recording up
    ended: (_, file) => compare(file),
    files: ([file]) => compare(file),
    busy: (on) => { who.input.disabled = on; },
  });
  who.input.addEventListener("input", () => {
    fill(result);
    capture.clear();
  });
  fill(root,
    h("h1", {}, "Compare the models"),
    h("p", { className: "lead" }, "One recording through every served model. Scores of two models cannot be compared, but where each lies among its own model’s trials can. "
      + "The recording is not kept and nothing counts: compare it as often as you like."),
    h("section", { className: "card", "aria-label": "Recording" },
      h("div", { className: "controls" }, who.node), readAloud(), capture.node, busy),
    result);
  return capture.leave;
}
