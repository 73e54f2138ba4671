// What went wrong, in words for people. The API's own sentences suit programmers: most read well here too, these do not.

import { Refused } from "./api.js";
import { h, notice } from "./dom.js";

const link = (page, text) => h("a", { href: `#/${page}` }, text);

const SENTENCES = {
  recording_replayed: () => [
    h("p", {}, "This recording was used for this speaker before, so it is not accepted again: a copy of somebody’s "
      + "recording could be played back. Record the voice anew."),
    h("p", {}, "To look at one recording as often as you like, use ", link("compare", "Compare"), "."),
  ],
  speaker_not_enrolled: (problem) => [h("p", {}, problem.detail), h("p", {}, link("enrol", "Add a recording"), " first.")],
  scope_missing: (problem) => [
    h("p", {}, "Your API key may not do this (", problem.detail, "). A key for all pages is made by:"),
    h("pre", {}, h("code", {}, KEY_COMMAND)),
  ],
};

export const KEY_COMMAND = "sayso keys create --scope read --scope enroll --scope verify --scope scores";

// An error as paragraphs.
export function explained(error) {
  const known = error instanceof Refused ? SENTENCES[error.problem.code] : null;
  return known ? known(error.problem) : [h("p", {}, error.message)];
}

// An error as a box that screen readers say at once; `about` names what it is about, in front of it.
export function problemBox(error, about) {
  return notice("error", about ? h("p", {}, h("strong", {}, about)) : null, explained(error));
}
