// Enrol: somebody's voice, until there is enough of it.

import * as api from "./api.js";
import { audioFacts, facts } from "./answers.js";
import { capturePanel } from "./capture.js";
import { readAloud, speakerChoice } from "./choices.js";
import { announce, field, fill, h, notice, s, seconds } from "./dom.js";

function ring(part) {
  const round = 2 * Math.PI * 52;
  const circle = (props) => s("circle", { cx: 60, cy: 60, r: 52, ...props });
  return s("svg", { viewBox: "0 0 120 120", class: "ring", "aria-hidden": "true" },
    circle({ class: "ring-all" }),
    part > 0 ? circle({ class: "ring-part", "stroke-dasharray": `${round * Math.min(1, part)} ${round}` }) : null);
}

function progress(state) {
  const wanted = state.net_speech_s + state.remaining_speech_s;
  const done = state.status === "enrolled";
  return h("div", { className: "gathered" },
    ring(state.net_speech_s / Math.max(wanted, 0.1)),
    h("div", {},
      h("h2", {}, done ? "Enrolled" : `${seconds(state.remaining_speech_s)} more`),
      h("p", {}, `${seconds(state.net_speech_s)} of speech are kept as vectors`
        + `${done ? "." : `, ${seconds(wanted)} are needed.`}`),
      done ? h("p", {}, h("a", { href: "#/verify" }, "Verify this voice"), " with another recording.") : null));
}

export async function enrollPage(root, { models }) {
  // Cohesion is a cosine of the first served model; its threshold says what is low.
  const usual = models[0]?.card.calibration?.operating_points.eer?.threshold ?? -1;
  const who = await speakerChoice("Speaker id", {
    hint: "A new one is created: letters, digits, . _ @ - and no spaces.", optional: true,
  });
  const name = h("input", { type: "text", autocomplete: "off" });
  const groups = h("input", { type: "text", autocomplete: "off" });
  const result = h("section", { className: "card result", "aria-label": "Enrolment" },
    h("p", { className: "hint" }, "How much speech is enrolled appears here."));
  const log = h("ol", { className: "log" });
  const known = new Set(who.speakers.map((one) => one.id));

  const about = async () => {
    const id = who.value();
    const fresh = Boolean(id) && !known.has(id);
    extra.hidden = !fresh;
    if (id && !fresh) fill(result, progress(await api.speaker(id)), log);
  };
  const extra = h("div", { className: "controls", hidden: true }, field("Name (optional)", name), field("Groups (optional)", groups, "Separated by commas."));
  who.input.addEventListener("change", about);
  who.input.addEventListener("input", () => { extra.hidden = !who.value() || known.has(who.value()); });

  // The speaker has to be there before the first recording is.
  async function ensured() {
    const id = who.value();
    if (!id) throw new Error("Give the speaker an id first.");
    if (!known.has(id)) {
      const list = groups.value.split(",").map((g) => g.trim()).filter(Boolean);
      await api.createSpeaker({ id, name: name.value.trim() || null, groups: list });
      known.add(id);
      await about();
    }
    return id;
  }

  function added(answer, label) {
    const { cohesion } = answer.enrollment;
    log.prepend(h("li", {},
      h("p", {}, h("strong", {}, label), ` brought ${seconds(answer.audio.net_speech_s)} of speech`,
        cohesion === null ? "." : `, cosine ${cohesion.toFixed(2)} with the earlier ones.`),
      cohesion !== null && cohesion < usual
        ? notice("warn", h("p", {}, "That is below where verify would accept. Is it the same person?")) : null,
      facts(audioFacts(answer.audio))));
    fill(result, progress(answer), log);
    announce(answer.status === "enrolled" ? "Enrolled." : `${seconds(answer.remaining_speech_s)} more needed.`, true);
  }

  const capture = capturePanel({
    goal: "enroll",
    multiple: true,
    before: async () => ({ call: "enroll", speaker_id: await ensured() }),
    ended: (message) => added(message.result, "The recording"),
    files: async (list) => {
      const id = who.value();
      for (const file of list) {
        try {
          added(await api.enroll(id, file), file.name);
        } catch (error) {
          if (!(error instanceof api.Refused)) throw error;
          log.prepend(h("li", {}, notice("error", h("p", {}, h("strong", {}, file.name), `: ${error.message}`))));
          fill(result, progress(await api.speaker(id)), log);
        }
      }
    },
  });

  fill(root,
    h("h1", {}, "Enrol"),
    h("p", { className: "lead" }, "Teach the service a voice. Ask the person first: a voice is biometric data."),
    h("div", { className: "columns" },
      h("section", { className: "card", "aria-label": "Recording" }, who.node, extra, readAloud(), capture.node),
      result));
  const wanted = new URLSearchParams(location.hash.split("?")[1] ?? "").get("speaker");
  if (wanted) {
    who.input.value = wanted;
    await about();
  }
  return capture.leave;
}
