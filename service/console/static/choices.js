// Controls that several pages share: a speaker, a group, a model, and something to read aloud.

import * as api from "./api.js";
import { field, h, uniqueId } from "./dom.js";

export async function speakerChoice(label, { status, hint, optional = false } = {}) {
  const found = await api.allSpeakers();
  const list = uniqueId("speakers");
  const input = h("input", { type: "text", list, autocomplete: "off", spellcheck: "false", autocapitalize: "none" });
  const shown = found.filter((one) => !status || one.status === status);
  const choices = h("datalist", { id: list }, shown.map((one) => h("option", { value: one.id }, one.name ?? "")));
  if (shown.length === 1 && !optional) input.value = shown[0].id;
  const none = status && !shown.length ? "Nobody is enrolled yet: enrol somebody first." : undefined;
  return {
    node: h("div", {}, field(label, input, hint ?? none), choices),
    speakers: found,
    input,
    value() {
      const id = input.value.trim();
      if (!id && !optional) throw new Error("Choose a speaker first.");
      if (id && status && !found.some((one) => one.id === id)) {
        throw new Error(`There is no speaker “${id}”. Choose one of the list, or enrol them first.`);
      }
      return id || undefined;
    },
  };
}

export async function groupChoice() {
  const found = await api.allSpeakers();
  const names = [...new Set(found.flatMap((one) => one.groups))].sort();
  const select = h("select", {}, h("option", { value: "" }, "everybody"), names.map((name) => h("option", {}, name)));
  return { node: field("Search", select), value: () => select.value || undefined };
}

export function modelChoice(models) {
  const select = h("select", {}, models.map((m) =>
    h("option", { value: m.name }, m.default ? `${m.name} (default)` : m.name)));
  const chosen = models.find((m) => m.default);
  if (chosen) select.value = chosen.name;
  return {
    node: models.length > 1 ? field("Model", select) : null,
    value: () => select.value || undefined,
  };
}

export const PASSAGE = "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow. "
  + "The rainbow is a division of white light into many beautiful colors. These take the shape of a long round "
  + "arch, with its path high above, and its two ends apparently beyond the horizon.";

export function readAloud() {
  return h("details", { className: "read" },
    h("summary", {}, "Something to read aloud"),
    h("p", {}, PASSAGE), h("p", { className: "hint" }, "Any words in any language will do."));
}
