// The console: a key, six pages, and what to show when the server is away.

import * as api from "./api.js";
import { comparePage } from "./compare.js";
import { identifyPage, verifyPage } from "./decide.js";
import { field, fill, h, notice } from "./dom.js";
import { enrollPage } from "./enroll.js";
import { latencyPage } from "./latency.js";
import { peoplePage } from "./people.js";

const PAGES = {
  verify: ["Verify", verifyPage],
  identify: ["Identify", identifyPage],
  enrol: ["Enrol", enrollPage],
  speakers: ["Speakers", peoplePage],
  compare: ["Compare", comparePage],
  latency: ["Latency", latencyPage],
};
const main = document.getElementById("main");
const context = { models: [] };
let leave = null;
let turn = 0;

const here = () => {
  const name = location.hash.slice(2).split("?")[0];
  return PAGES[name] ? name : "verify";
};

function nav(current) {
  fill(document.getElementById("nav"), Object.entries(PAGES).map(([name, [label]]) =>
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
    const left = await PAGES[name][1](page, context);
    if (mine !== turn) {
      left?.();
      return;
    }
    leave = left;
  } catch (error) {
    if (mine !== turn) return;
    fill(page, h("h1", {}, PAGES[name][0]), notice("error", h("p", {}, error.message),
      error instanceof api.Refused && error.problem.status === 403
        ? h("p", {}, "This page needs a key that may do it: ", h("code", {}, "sayso keys create --scope read --scope enroll --scope verify --scope scores")) : null));
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
    field("API key", input, "Kept in this page’s memory only: reloading forgets it."),
    h("div", {}, h("button", { type: "submit" }, "Go on")), problems,
    h("details", {}, h("summary", {}, "I have no key"),
      h("p", {}, "The first start of the service prints one. On its machine this makes another:"),
      h("pre", {}, h("code", {}, "sayso keys create --scope read --scope enroll --scope verify --scope scores"))));
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
  fill(bar, h("p", {}, h("strong", {}, "The server does not answer."), " Trying again every two seconds. What was recorded here was not decided."));
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
