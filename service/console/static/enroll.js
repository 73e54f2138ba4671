// Enrol: somebody's voice, until there is enough of it.

import * as api from "./api.js";
import { audioFacts, facts } from "./answers.js";
import { capturePanel } from "./capture.js";
import { groupsOf, readAloud, speakerChoice } from "./choices.js";
import { announce, field, fill, h, notice, reveal, s, seconds } from "./dom.js";
import { problemBox } from "./problems.js";

function ring(part) {
  const round = 2 * Math.PI * 52;
  const circle = (props) => s("circle", { cx: 60, cy: 60, r: 52, ...props });
  return s("svg", { viewBox: "0 0 120 120", class: "ring", "aria-hidden": "true" },
    circle({ class: "ring-all" }),
    part > 0 ? circle({ class: "ring-part", "stroke-dasharray": `${round * Math.min(1, part)} ${round}` }) : null);
}

function gathered(part, heading, ...text) {
  return h("div", { className: "gathered" }, ring(part), h("div", {}, h("h2", {}, heading), text.map((line) => line && h("p", {}, line))));
}

// What is enrolled of a speaker, as the API describes them.
function kept(speaker) {
  const { net_speech_s: net, remaining_speech_s: remaining } = speaker;
  if (speaker.status === "opted_out") return gathered(0, "Opted out", `${speaker.id} may not be enrolled.`);
  if (speaker.status === "enrolled") {
    return gathered(1, "Enrolled", `${seconds(net)} of speech are kept as vectors.`,
      [h("a", { href: "#/verify" }, "Verify this voice"), " with another recording."]);
  }
  return gathered(net / Math.max(net + remaining, 0.1), `${seconds(remaining)} more`,
    `${seconds(net)} of speech are kept as vectors, ${seconds(net + remaining)} are needed.`);
}

// The same while a recording is under way: the stream's own numbers, so that there is one count on the page.
function growing(speaker, { net_speech_s: net, remaining_speech_s: remaining }) {
  const before = speaker?.net_speech_s ?? 0;
  const heading = speaker?.status === "enrolled" ? "Enrolled" : remaining > 0 ? `${seconds(remaining)} more` : "Enough speech";
  return gathered((before + net) / Math.max(before + net + remaining, 0.1), heading,
    `${seconds(net)} of speech in this recording${before ? `, ${seconds(before)} in earlier ones` : ""}.`,
    "It is kept when you press Stop.");
}

export async function enrollPage(root, { models }) {
  // Cohesion is a cosine of the first served model; its threshold says what is low.
  const usual = models[0]?.card.calibration?.operating_points.eer?.threshold ?? -1;
  const who = await speakerChoice("Speaker id", {
    hint: "A new id makes a new speaker: letters, digits, . _ @ - and no spaces.", optional: true,
  });
  const known = new Set(who.speakers.map((speaker) => speaker.id));
  const name = h("input", { type: "text", autocomplete: "off" });
  const groups = h("input", { type: "text", autocomplete: "off" });
  const extra = h("div", { className: "controls", hidden: true },
    field("Name (optional)", name), field("Groups (optional)", groups, "Separated by commas."));
  const log = h("ol", { className: "log" });
  const result = h("section", { className: "card result", "aria-label": "Enrolment" });
  let shown = null; // the id whom `result`, `log` and `speaker` are about
  let speaker = null;

  function draw(panel) {
    fill(result, panel, log);
  }

  // Show who is typed in now. Recordings of the speaker before are theirs, and go.
  async function about() {
    const id = who.value() ?? "";
    if (id === shown) return;
    [shown, speaker] = [id, null];
    fill(log);
    capture.clear();
    extra.hidden = !id || known.has(id);
    draw(h("p", { className: "hint" }, known.has(id) ? "" : "How much speech is enrolled appears here."));
    if (!known.has(id)) return;
    const answered = await api.speaker(id);
    if (shown !== id || speaker) return;
    speaker = answered;
    draw(kept(speaker));
  }
  const asked = () => about().catch((error) => draw(problemBox(error)));
  who.input.addEventListener("input", asked);

  // The speaker has to exist before the first recording does.
  async function ensured() {
    const id = who.value();
    if (!id) throw new Error("Give the speaker an id first.");
    if (!known.has(id)) {
      speaker = await api.createSpeaker({ id, name: name.value.trim() || null, groups: groupsOf(groups) });
      known.add(id);
      extra.hidden = true;
      [name.value, groups.value] = ["", ""]; // they were this speaker's, not the next one's
      draw(kept(speaker));
    }
    return id;
  }

  function added(answer, label) {
    const { cohesion } = answer.enrollment;
    speaker = { ...speaker, ...answer, id: answer.enrollment.speaker_id };
    log.prepend(h("li", {},
      h("p", {}, h("strong", {}, label), ` added ${seconds(answer.audio.net_speech_s)} of speech`,
        cohesion === null ? "." : `, cosine ${cohesion.toFixed(2)} with the earlier ones.`),
      cohesion !== null && cohesion < usual
        ? notice("warn", h("p", {}, "Verify would not accept a recording so unlike the earlier ones. Is it the same person?")) : null,
      facts(audioFacts(answer.audio))));
    draw(kept(speaker));
    announce(answer.status === "enrolled" ? "Enrolled." : `${seconds(answer.remaining_speech_s)} more needed.`, true);
  }

  const capture = capturePanel({
    multiple: true,
    enough: "enough to enrol",
    busy: (on) => {
      who.input.disabled = on; // what is recorded now is this speaker's
      if (!on && speaker) draw(kept(speaker));
    },
    before: async () => ({ call: "enroll", speaker_id: await ensured() }),
    heard: (message) => draw(growing(speaker, message)),
    ended: (message) => {
      added(message.result, "The recording");
      reveal(result);
    },
    files: async (list) => {
      for (const file of list) {
        try {
          added(await api.enroll(who.value(), file), file.name);
        } catch (error) {
          if (!(error instanceof api.Refused)) throw error;
          log.prepend(h("li", {}, problemBox(error, file.name)));
          draw(kept(speaker));
        }
      }
      reveal(result);
    },
  });

  fill(root,
    h("h1", {}, "Enrol"),
    h("p", { className: "lead" }, "Teach the service a voice. Ask the person first: a voice is biometric data."),
    h("div", { className: "columns" },
      h("section", { className: "card", "aria-label": "Recording" }, who.node, extra, readAloud(), capture.node),
      result));
  who.input.value = new URLSearchParams(location.hash.split("?")[1] ?? "").get("speaker") ?? "";
  await about();
  return capture.leave;
}
