// What the service answered, shown so that a person sees why.

import { distributions, evidence } from "./chart.js";
import { counted, h, millis, percent, score, seconds } from "./dom.js";

const WORDS = {
  accept: ["Accept", "accept"],
  match: ["Match", "accept"],
  reject: ["Reject", "reject"],
  no_match: ["No match", "reject"],
  inconclusive: ["Inconclusive", "doubt"],
  ambiguous: ["Ambiguous", "doubt"],
};
const REASONS = {
  short_speech: "the recording is short and its score close to the threshold: ask for another",
  noisy: "the recording is noisy and its score close to the threshold: ask for another",
  clipped: "the recording is clipped and its score close to the threshold: ask for another",
  small_margin: "the best two candidates score nearly the same",
  no_candidates: "nobody who could be compared is enrolled",
};
const WARNINGS = {
  downmixed: "several channels, averaged",
  channels_differ: "different voices in the channels",
  several_voices: "two voices, one after the other",
  narrowband: "telephone bandwidth",
  noisy: "noisy",
  clipped: "clipped",
};

function sentence(answer) {
  const who = answer.speaker_id;
  return {
    accept: `This sounds like ${who}.`,
    reject: `This does not sound like ${who}.`,
    match: `This sounds like ${who}.`,
    no_match: answer.searched ? "This sounds like nobody who was searched." : "There is nobody to search.",
    ambiguous: "Two speakers fit too well to choose.",
    inconclusive: "This recording cannot decide.",
  }[answer.decision];
}

export function verdict(answer, final = true) {
  const [word, kind] = WORDS[answer.decision];
  return h("div", { className: `verdict ${kind}` },
    h("h2", {}, word),
    h("p", {}, sentence(answer), answer.reason ? ` Why: ${REASONS[answer.reason] ?? answer.reason}.` : ""),
    final ? null : h("p", { className: "hint" }, "So far. More speech makes it surer."));
}

function facts(pairs) {
  return h("dl", { className: "facts" }, pairs.filter(Boolean).map(([name, value]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

export function audioFacts(audio) {
  return [
    ["Net speech", `${seconds(audio.net_speech_s)} of ${seconds(audio.duration_s)}`],
    audio.snr_db === null ? null : ["Signal to noise", `${audio.snr_db.toFixed(0)} dB`],
    ["Clipped", percent(audio.clipping)],
    audio.warnings.length ? ["Mind", audio.warnings.map((w) => WARNINGS[w] ?? w).join(", ")] : null,
  ];
}

// A key without the scope `scores` is told decisions only.
function marks(answer) {
  const all = answer.candidates?.slice(0, 5).map((c) => ({ value: c.score, name: c.speaker_id }))
    ?? [{ value: answer.score, name: "score" }];
  return all.filter((mark) => mark.value !== null);
}

export function pictureOf(answer, model) {
  return distributions({
    histogram: model?.card?.calibration?.histogram ?? null,
    threshold: answer.threshold,
    marks: marks(answer),
    verdict: WORDS[answer.decision][1],
    name: answer.model.name,
  });
}

// A whole answer. `models` are those of /v1/models, or an empty list for a key that may not read them.
export function answerPanel(answer, models, final = true) {
  const model = models.find((m) => m.name === answer.model.name);
  return [
    verdict(answer, final),
    pictureOf(answer, model),
    h("ul", { className: "evidence" }, evidence(answer).map((line) => h("li", {}, line))),
    answer.candidates?.length ? candidateTable(answer) : null,
    facts([
      ...audioFacts(answer.audio),
      answer.template ? ["Compared with", `${counted(answer.template.enrollments, "enrolment")}, ${seconds(answer.template.net_speech_s)}`] : null,
      answer.searched === undefined ? null : ["Searched", counted(answer.searched, "speaker")],
      ["Model", answer.model.name],
      ["Network", millis(answer.timings_ms.embed)],
      ["In all", millis(answer.timings_ms.total)],
    ]),
  ];
}

function candidateTable(answer) {
  return h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": "Candidates" },
    h("table", {},
      h("caption", {}, answer.margin === null || answer.margin === undefined ? "Candidates" : `Candidates; the first leads by ${answer.margin.toFixed(3)}`),
      h("thead", {}, h("tr", {}, ["Rank", "Speaker", "Score", "LLR"].map((t) => h("th", { scope: "col" }, t)))),
      h("tbody", {}, answer.candidates.map((c) => h("tr", {},
        h("td", {}, c.rank), h("th", { scope: "row" }, c.speaker_id), h("td", { className: "number" }, c.score === null ? "–" : score(c.score)),
        h("td", { className: "number" }, c.llr === null ? "–" : c.llr.toFixed(1).replace("-", "−")))))));
}

export { facts };
