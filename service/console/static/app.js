// The console: a key, six pages, and what to show when the server is away.

import * as api from "./api.js";
import { comparePage } from "./compare.js";
import { identifyPage, verifyPage } from "./decide.js";
import { field, fill, h, notice } from "./dom.js";
import { enrollPage } from "./enroll.js";
import { latencyPage } from "./latency.js";
import { peoplePage } from "./people.js";
import { KEY_COMMAND, problemBox } from "./problems.js";
import { studyPage } from "./study.js";

const PAGES = {
  verify: ["Verify", verifyPage],
  identify: ["Identify", identifyPage],
  enrol: ["Enrol", enrollPage],
  speakers: ["Speakers", peoplePage],
  compare: ["Compare", comparePage],
  latency: ["Latency", latencyPage],
  study: ["The study", studyPage],
};
const UNLISTED = ["study"]; // reached from the pages that name it
const main = document.getElementById("main");
const context = { models: [] };
let leave = null;
let turn = 0;

const here = () => {
  const name = location.hash.slice(2).split("?")[0];
  return PAGES[name] ? name : "verify";
};

function nav(current) {
  fill(document.getElementById("nav"), Object.entries(PAGES).filter(([name]) => !UNLISTED.includes(name)).map(([name, [label]]) =>
    h("li", {}, h("a", { href: `#/${name}`, "aria-current": name === current ? "page" : null }, label))));
}

async function open(focus) {
  const mine = (turn += 1);
  leave?.();
  leave = null;
  const name = here();
  nav(name);
  if (!api.hasKey()) {
    askKey();
    return;
  }
  document.title = `${PAGES[name][0]} · Sayso`;
  const page = h("div", { className: "page" });
  try {
    const leaveIt = await PAGES[name][1](page, context);
    if (mine !== turn) {
      leaveIt?.();
      return;
    }
    leave = leaveIt;
  } catch (error) {
    if (mine !== turn) return;
    fill(page, h("h1", {}, PAGES[name][0]), problemBox(error));
  }
  fill(main, page);
  if (focus) main.focus({ preventScroll: true });
}

function askKey(problem) {
  document.title = "Key · Sayso";
  document.getElementById("forget").hidden = true;
  const input = h("input", { type: "password", autocomplete: "off", required: true, spellcheck: "false" });
  const problems = h("div", {}, problem ? notice("error", h("p", {}, problem)) : null);
  const form = h("form", { className: "stack" },
    field("API key", input, "It is kept in this page’s memory only: reloading the page forgets it."),
    h("div", {}, h("button", { type: "submit" }, "Go on")), problems,
    h("details", {}, h("summary", {}, "I have no key"),
      h("p", {}, "The first start of the service printed a key. On the service’s machine this makes another:"),
      h("pre", {}, h("code", {}, KEY_COMMAND))));
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    api.setKey(input.value.trim());
    try {
      context.models = await api.models();
      document.getElementById("forget").hidden = false;
      open(true);
    } catch (error) {
      const scope = error instanceof api.Refused && error.problem.code === "scope_missing";
      if (scope) { // a key that may verify but not read works, without distributions
        context.models = [];
        document.getElementById("forget").hidden = false;
        open(true);
        return;
      }
      api.setKey(null);
      fill(problems, notice("error", h("p", {}, error.message)));
      input.focus();
    }
  });
  fill(main, h("div", { className: "page narrow" }, h("h1", {}, "Sayso"),
    h("p", { className: "lead" }, "Enrol voices, then ask: is this Alice, or who is this?"),
    h("section", { className: "card", "aria-label": "Key" }, form)));
  input.focus();
}

let waiting = false;
api.onAway(async () => {
  if (waiting) return;
  waiting = true;
  const bar = document.getElementById("away");
  fill(bar, h("p", {}, h("strong", {}, "The server does not answer."), " The console tries again every two seconds. A recording that was under way was not decided on."));
  await api.back();
  fill(bar);
  waiting = false;
});

const THEMES = ["auto", "light", "dark"];
const theme = document.getElementById("theme");
function setTheme(name) {
  if (name === "auto") delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = name;
  theme.textContent = `Theme: ${name}`;
  theme.dataset.name = name;
}
theme.addEventListener("click", () => setTheme(THEMES[(THEMES.indexOf(theme.dataset.name) + 1) % THEMES.length]));
setTheme("auto");

document.getElementById("forget").addEventListener("click", () => {
  api.setKey(null);
  context.models = [];
  open(true);
});
window.addEventListener("hashchange", () => open(true));
open(false);
