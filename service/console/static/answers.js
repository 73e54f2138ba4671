// What the service answered, shown so that a person sees why.

import { counted, h, millis, percent, score, seconds, table } from "./dom.js";
import { evidence, kindOf, picture } from "./scores.js";

const WORDS = {
  accept: "Accept", match: "Match", reject: "Reject", no_match: "No match",
  inconclusive: "Inconclusive", ambiguous: "Ambiguous",
};
const REASONS = {
  short_speech: "the recording is short and its score is close to the threshold. Ask for another one",
  noisy: "the recording is noisy and its score is close to the threshold. Ask for another one",
  clipped: "the recording is clipped and its score is close to the threshold. Ask for another one",
  small_margin: "the best two candidates have nearly the same score",
  no_candidates: "nobody who could be compared is enrolled",
  model_mismatch: "everybody was enrolled without this model. Choose the model that they were enrolled with, or enrol them again",
};
const WARNINGS = {
  downmixed: "several channels, averaged",
  channels_differ: "different voices in the channels",
  several_voices: "two voices, one after the other",
  narrowband: "telephone bandwidth",
  noisy: "noisy",
  clipped: "clipped",
  channels_differ: "its channels hold different voices",
  several_voices: "several voices, one after the other",
  unlike_earlier: "unlike the earlier recordings",
};
// A code that this page has no words for yet, readable all the same.
const spelled = (code) => code.replaceAll("_", " ");

function sentence(answer) {
  const who = answer.speaker_id;
  return {
    accept: `This sounds like ${who}.`,
    reject: `This does not sound like ${who}.`,
    match: `This sounds like ${who}.`,
    no_match: answer.searched ? "Nobody who was searched sounds enough like this." : "There is nobody to search.",
    ambiguous: "Two speakers sound so much like this that neither can be chosen.",
    inconclusive: "This recording cannot decide.",
  }[answer.decision];
}

// The decision in a word.
export const wordOf = (answer) => WORDS[answer.decision];

export function verdict(answer, final = true) {
  return h("div", { className: `verdict ${kindOf(answer)}` },
    h("h2", {}, wordOf(answer)),
    h("p", {}, sentence(answer), answer.reason ? ` Why: ${REASONS[answer.reason] ?? spelled(answer.reason)}.` : ""),
    final ? null : h("p", { className: "hint" }, "So far. More speech makes it surer."));
}

export function facts(pairs) {
  return h("dl", { className: "facts" }, pairs.filter(Boolean).map(([name, value]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export function audioFacts(audio) {
  return [
    ["Net speech", `${seconds(audio.net_speech_s)} of ${seconds(audio.duration_s)}`],
    audio.snr_db === null ? null : ["Signal to noise", `${audio.snr_db.toFixed(0)} dB`],
    ["Clipped", percent(audio.clipping)],
    audio.warnings.length ? ["Warnings", audio.warnings.map((w) => WARNINGS[w] ?? spelled(w)).join(", ")] : null,
  ];
}

// A whole answer. `models` are those of /v1/models, or an empty list for a key that may not read them.
export function answerPanel(answer, models, final = true) {
  const model = models.find((m) => m.name === answer.model.name);
  return [
    verdict(answer, final),
    picture(answer, model),
    h("ul", { className: "evidence" }, evidence(answer).map((line) => h("li", {}, line))),
    answer.candidates?.length ? candidateTable(answer) : null,
    facts([
      ...audioFacts(answer.audio),
      answer.template ? ["Compared with", `${counted(answer.template.enrollments, "enrolment")}, ${seconds(answer.template.net_speech_s)}`] : null,
      answer.searched === undefined ? null : ["Searched", counted(answer.searched, "speaker")],
      answer.not_compared ? ["Enrolled without this model", counted(answer.not_compared, "speaker")] : null,
      ["Model", answer.model.name],
      ["Network", millis(answer.timings_ms.embed)],
      ["Whole call", millis(answer.timings_ms.total)],
    ]),
  ];
}

function candidateTable(answer) {
  const lead = answer.margin === null || answer.margin === undefined ? "" : ` The first leads by ${answer.margin.toFixed(1)} (LLR).`;
  return table({ name: "Candidates", caption: `Candidates, the nearest first.${lead}`, heads: ["Speaker", "Score", "LLR"] },
    answer.candidates.map((c) => [
      c.speaker_id, c.score === null ? "–" : score(c.score), c.llr === null ? "–" : c.llr.toFixed(1).replace("-", "−"),
    ]));
}
