// Speakers and groups.

import * as api from "./api.js";
import { groupNames, groupsOf } from "./choices.js";
import { confirmed, counted, field, fill, h, notice, percent, reveal, seconds, table } from "./dom.js";
import { problemBox } from "./problems.js";

const STATUS = { enrolled: "enrolled", enrolling: "enrolling", opted_out: "opted out" };
const SHOWN = 500; // speakers in the list; Find reaches the others

function badge(status) {
  return h("span", { className: `badge ${status}` }, STATUS[status]);
}

function enrollmentTable(enrollments, remove) {
  return table({
    name: "Enrolments", stack: true, caption: "Enrolments, oldest first. Cohesion is the cosine with the earlier ones.",
    heads: ["When", "Net speech", "SNR", "Clipped", "Cohesion", "Delete"],
  }, enrollments.map((enrollment) => {
    const when = new Date(enrollment.created_at).toLocaleString();
    return [
      when, seconds(enrollment.net_speech_s), enrollment.snr_db === null ? "–" : `${enrollment.snr_db.toFixed(0)} dB`,
      percent(enrollment.clipping), enrollment.cohesion === null ? "–" : enrollment.cohesion.toFixed(2),
      h("button", { type: "button", className: "quiet small", "aria-label": `Delete the enrolment of ${when}`, onclick: remove(enrollment) }, "Delete"),
    ];
  }));
}

// One speaker in `root`, to look at and change; `refresh` reads the list beside it again.
async function detail(root, id, refresh) {
  root.dataset.speaker = id;
  const [speaker, enrollments] = await Promise.all([api.speaker(id), api.enrollments(id)]);
  if (root.dataset.speaker !== id) return; // another one was chosen meanwhile
  const problems = h("div", {});
  const name = h("input", { type: "text", value: speaker.name ?? "", autocomplete: "off" });
  const groups = h("input", { type: "text", value: speaker.groups.join(", "), autocomplete: "off" });
  const attempt = (work) => async (event) => {
    event?.preventDefault();
    fill(problems);
    try {
      await work();
    } catch (error) {
      fill(problems, problemBox(error));
    }
  };
  const again = async () => {
    await refresh();
    await detail(root, id, refresh);
  };
  const save = attempt(async () => {
    await api.changeSpeaker(id, { name: name.value.trim() || null, groups: groupsOf(groups) });
    await again();
  });
  const optOut = attempt(async () => {
    await api.changeSpeaker(id, { status: speaker.status === "opted_out" ? "enrolled" : "opted_out" });
    await again();
  });
  const remove = attempt(async () => {
    if (!await confirmed(`Delete ${id} with all enrolments? This cannot be undone.`, "Delete")) return;
    await api.deleteSpeaker(id);
    delete root.dataset.speaker;
    fill(root, notice("good", h("p", { role: "status" }, `${id} is deleted.`)));
    await refresh();
  });
  const removeEnrollment = (enrollment) => attempt(async () => {
    if (!await confirmed("Delete this enrolment? The speaker is then compared with the others only.", "Delete")) return;
    await api.deleteEnrollment(id, enrollment.id);
    await again();
  });
  fill(root,
    h("h2", { tabindex: "-1" }, id, " ", badge(speaker.status)),
    h("p", {}, `${seconds(speaker.net_speech_s)} of speech in ${counted(speaker.enrollments, "enrolment")}`,
      speaker.remaining_speech_s ? `, ${seconds(speaker.remaining_speech_s)} more needed. ` : ". ",
      h("a", { href: `#/enrol?speaker=${encodeURIComponent(id)}` }, "Add a recording")),
    h("form", { className: "controls", onsubmit: save },
      field("Name", name), field("Groups", groups, "Separated by commas."),
      h("div", { className: "row" }, h("button", { type: "submit" }, "Save"),
        h("button", { type: "button", className: "quiet", onclick: optOut },
          speaker.status === "opted_out" ? "Withdraw the opt-out" : "Opt out"),
        h("button", { type: "button", className: "danger", onclick: remove }, "Delete speaker"))),
    problems,
    enrollments.length ? enrollmentTable(enrollments, removeEnrollment) : null);
}

export async function peoplePage(root) {
  const filter = h("select", {});
  const find = h("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const list = h("div", {});
  const count = h("p", { className: "hint", role: "status" });
  const side = h("section", { className: "card result", "aria-label": "Speaker" },
    h("p", { className: "hint" }, "Choose a speaker to see their enrolments."));
  let all = [];

  async function choose(id) {
    try {
      await detail(side, id, load);
    } catch (error) {
      fill(side, problemBox(error, id));
    }
    side.querySelector("h2")?.focus({ preventScroll: true });
    reveal(side);
  }

  function draw() {
    const text = find.value.trim().toLowerCase();
    const matching = all.filter((speaker) =>
      (!filter.value || speaker.groups.includes(filter.value))
      && (!text || speaker.id.toLowerCase().includes(text) || (speaker.name ?? "").toLowerCase().includes(text)));
    const cut = matching.length > SHOWN ? `, of whom the first ${SHOWN} are listed` : "";
    count.textContent = `${matching.length} of ${counted(all.length, "speaker")}${cut}`;
    fill(list, table({ name: "Speakers", stack: true, heads: ["Speaker", "Status", "Net speech", "Groups"] },
      matching.slice(0, SHOWN).map((speaker) => [
        [h("button", { type: "button", className: "link", onclick: () => choose(speaker.id) }, speaker.id),
          speaker.name ? h("span", { className: "hint" }, ` ${speaker.name}`) : null],
        badge(speaker.status), seconds(speaker.net_speech_s), speaker.groups.join(", ") || "–",
      ])));
  }

  async function load() {
    all = await api.allSpeakers();
    const chosen = filter.value;
    const names = groupNames(all);
    fill(filter, h("option", { value: "" }, "all groups"), names.map((name) => h("option", {}, name)));
    filter.value = names.includes(chosen) ? chosen : "";
    draw();
  }

  filter.addEventListener("change", draw);
  find.addEventListener("input", draw);
  await load();
  fill(root,
    h("h1", {}, "Speakers"),
    h("p", { className: "lead" }, "Who is enrolled, in which groups, and with how much speech. ",
      h("a", { href: "#/enrol" }, "Enrol somebody")),
    h("div", { className: "columns" },
      h("section", { className: "card", "aria-label": "List" },
        h("div", { className: "controls" }, field("Find", find), field("Group", filter)), count, list),
      side));
}
