// Controls that several pages share: a speaker, a group, a model, and something to read aloud.

import * as api from "./api.js";
import { field, h, uniqueId } from "./dom.js";

export async function speakerChoice(label, { status, hint, optional = false } = {}) {
  const speakers = await api.allSpeakers();
  const list = uniqueId("speakers");
  const input = h("input", { type: "text", list, autocomplete: "off", spellcheck: "false", autocapitalize: "none" });
  const offered = speakers.filter((speaker) => !status || speaker.status === status);
  const choices = h("datalist", { id: list }, offered.map((speaker) => h("option", { value: speaker.id }, speaker.name ?? "")));
  if (offered.length === 1 && !optional) input.value = offered[0].id;
  const none = status && !offered.length ? "Nobody is enrolled yet: enrol somebody first." : undefined;
  return {
    node: h("div", {}, field(label, input, hint ?? none), choices),
    speakers,
    input,
    value() {
      const id = input.value.trim();
      if (!id && !optional) throw new Error("Choose a speaker first.");
      if (id && status && !speakers.some((speaker) => speaker.id === id)) {
        throw new Error(`There is no speaker “${id}”. Choose one from the list, or enrol them first.`);
      }
      return id || undefined;
    },
  };
}

export async function groupChoice() {
  const names = groupNames(await api.allSpeakers());
  const input = h("select", {}, h("option", { value: "" }, "everybody"), names.map((name) => h("option", {}, name)));
  return { node: field("Search", input), input, value: () => input.value || undefined };
}

export const groupNames = (speakers) => [...new Set(speakers.flatMap((speaker) => speaker.groups))].sort();

// The groups that are typed into a field, separated by commas.
export const groupsOf = (input) => input.value.split(",").map((group) => group.trim()).filter(Boolean);

export function modelChoice(models) {
  const input = h("select", {}, models.map((m) =>
    h("option", { value: m.name }, m.default ? `${m.name} (default)` : m.name)));
  const usual = models.find((m) => m.default);
  if (usual) input.value = usual.name;
  return {
    node: models.length > 1 ? field("Model", input) : null,
    input,
    value: () => input.value || undefined,
  };
}

export const PASSAGE = "When the sunlight strikes raindrops in the air, they act as a prism and form a rainbow. "
  + "The rainbow is a division of white light into many beautiful colors. These take the shape of a long round "
  + "arch, with its path high above, and its two ends apparently beyond the horizon.";

export function readAloud() {
  return h("details", { className: "read" },
    h("summary", {}, "Something to read aloud"),
    h("p", {}, PASSAGE), h("p", { className: "hint" }, "Other words, in any language, do as well."));
}
