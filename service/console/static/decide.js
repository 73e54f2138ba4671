// Verify and identify.

import * as api from "./api.js";
import { answerPanel, wordOf } from "./answers.js";
import { capturePanel } from "./capture.js";
import { announce, fill, h, reveal } from "./dom.js";
import { groupChoice, modelChoice, readAloud, speakerChoice } from "./choices.js";

function page(root, { title, lead, choices, start, post, models }) {
  const result = h("section", { className: "card result", "aria-label": "Answer" });
  const player = h("div", {});
  const show = (answer, final) => {
    fill(result, answerPanel(answer, models, final));
    const heading = result.querySelector("h2").textContent;
    announce(`${heading}. ${result.querySelector(".verdict p").textContent}`, final);
    if (final) reveal(result);
  };
  const capture = capturePanel({
    before: () => {
      const first = start();
      clear();
      return first;
    },
    decided: (message) => {
      show(message.result, false);
      return wordOf(message.result);
    },
    ended: (message, file) => {
      show(message.result, true);
      fill(player, h("audio", { controls: true, src: URL.createObjectURL(file), "aria-label": "What was recorded" }));
    },
    files: async ([file]) => show(await post(file), true),
    busy: (on) => choices.forEach(({ input }) => { input.disabled = on; }),
  });

  // No answer is shown under a question it was not given to.
  function clear() {
    fill(result, h("p", { className: "hint" }, "The answer appears here."));
    fill(player);
  }
  for (const { input } of choices) {
    input.addEventListener("input", () => {
      clear();
      capture.clear();
    });
  }
  clear();
  fill(root,
    h("h1", {}, title), h("p", { className: "lead" }, lead),
    h("div", { className: "columns" },
      h("section", { className: "card", "aria-label": "Recording" },
        h("div", { className: "controls" }, choices.map((choice) => choice.node)), readAloud(), capture.node, player),
      result));
  return capture.leave;
}

export async function verifyPage(root, context) {
  const who = await speakerChoice("Speaker", { status: "enrolled" });
  const model = modelChoice(context.models);
  return page(root, {
    title: "Verify",
    lead: "Is this the speaker?",
    choices: [who, model],
    start: () => ({ call: "verify", speaker_id: who.value(), model: model.value() }),
    post: (file) => api.verify(who.value(), file, model.value()),
    models: context.models,
  });
}

export async function identifyPage(root, context) {
  const group = await groupChoice();
  const model = modelChoice(context.models);
  return page(root, {
    title: "Identify",
    lead: "Who is this? The answer may be: nobody I know.",
    choices: [group, model],
    start: () => ({ call: "identify", group: group.value(), model: model.value() }),
    post: (file) => api.identify(file, model.value(), group.value()),
    models: context.models,
  });
}
