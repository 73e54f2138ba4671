// Speakers and groups.

import * as api from "./api.js";
import { confirmed, counted, field, fill, h, notice, percent, seconds } from "./dom.js";

const STATUS = { enrolled: "enrolled", enrolling: "enrolling", opted_out: "opted out" };

function badge(status) {
  return h("span", { className: `badge ${status}` }, STATUS[status]);
}

async function one(root, id, refresh) {
  const speaker = await api.speaker(id);
  const enrollments = await api.enrollments(id);
  const problems = h("div", {});
  const name = h("input", { type: "text", value: speaker.name ?? "", autocomplete: "off" });
  const groups = h("input", { type: "text", value: speaker.groups.join(", "), autocomplete: "off" });
  const attempt = (work) => async (event) => {
    event?.preventDefault();
    fill(problems);
    try {
      await work();
    } catch (error) {
      fill(problems, notice("error", h("p", {}, error.message)));
    }
  };
  const again = () => one(root, id, refresh);
  const save = attempt(async () => {
    await api.changeSpeaker(id, {
      name: name.value.trim() || null,
      groups: groups.value.split(",").map((g) => g.trim()).filter(Boolean),
    });
    await refresh();
    await again();
  });
  const optOut = attempt(async () => {
    await api.changeSpeaker(id, { status: speaker.status === "opted_out" ? "enrolled" : "opted_out" });
    await refresh();
    await again();
  });
  const remove = attempt(async () => {
    if (!await confirmed(`Delete ${id} with all enrolments? This cannot be undone.`, "Delete")) return;
    await api.deleteSpeaker(id);
    fill(root, notice("good", h("p", { role: "status" }, `${id} is deleted.`)));
    await refresh();
  });
  const removeOne = (enrollment) => attempt(async () => {
    if (!await confirmed("Delete this recording’s contribution?", "Delete")) return;
    await api.deleteEnrollment(id, enrollment.id);
    await refresh();
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
    enrollments.length ? h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": "Enrolments" },
      h("table", {},
        h("caption", {}, "Enrolments, oldest first. Cohesion is the cosine with the earlier ones."),
        h("thead", {}, h("tr", {}, ["When", "Net speech", "SNR", "Clipped", "Cohesion", "Delete"].map((t) => h("th", { scope: "col" }, t)))),
        h("tbody", {}, enrollments.map((e) => h("tr", {},
          h("th", { scope: "row" }, new Date(e.created_at).toLocaleString()),
          h("td", { className: "number" }, seconds(e.net_speech_s)),
          h("td", { className: "number" }, e.snr_db === null ? "–" : `${e.snr_db.toFixed(0)} dB`),
          h("td", { className: "number" }, percent(e.clipping)),
          h("td", { className: "number" }, e.cohesion === null ? "–" : e.cohesion.toFixed(2)),
          h("td", {}, h("button", { type: "button", className: "quiet small", "aria-label": `Delete the enrolment of ${new Date(e.created_at).toLocaleString()}`, onclick: removeOne(e) }, "Delete"))))))) : null);
}

export async function peoplePage(root) {
  const filter = h("select", {});
  const find = h("input", { type: "search", autocomplete: "off", spellcheck: "false" });
  const body = h("tbody", {});
  const count = h("p", { className: "hint", role: "status" });
  const detail = h("section", { className: "card result", "aria-label": "Speaker" },
    h("p", { className: "hint" }, "Choose a speaker to see their enrolments."));
  let all = [];

  function draw() {
    const text = find.value.trim().toLowerCase();
    const shown = all.filter((one) =>
      (!filter.value || one.groups.includes(filter.value))
      && (!text || one.id.toLowerCase().includes(text) || (one.name ?? "").toLowerCase().includes(text)));
    count.textContent = `${shown.length} of ${counted(all.length, "speaker")}`;
    fill(body, shown.slice(0, 500).map((speaker) => h("tr", {},
      h("th", { scope: "row" }, h("button", {
        type: "button", className: "link",
        onclick: async () => {
          await one(detail, speaker.id, load);
          detail.querySelector("h2")?.focus();
        },
      }, speaker.id), speaker.name ? h("span", { className: "hint" }, ` ${speaker.name}`) : null),
      h("td", {}, badge(speaker.status)),
      h("td", { className: "number" }, seconds(speaker.net_speech_s)),
      h("td", {}, speaker.groups.join(", ") || "–"))));
  }

  async function load() {
    all = await api.allSpeakers();
    const chosen = filter.value;
    const names = [...new Set(all.flatMap((one) => one.groups))].sort();
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
        h("div", { className: "controls" }, field("Find", find), field("Group", filter)),
        count,
        h("div", { className: "scroll", tabindex: "0", role: "region", "aria-label": "Speakers" },
          h("table", {},
            h("thead", {}, h("tr", {}, ["Speaker", "Status", "Net speech", "Groups"].map((t) => h("th", { scope: "col" }, t)))),
            body))),
      detail));
}
