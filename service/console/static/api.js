// The service's API. The key lives in this module's memory: reloading the page forgets it.

let key = null;
const away = new EventTarget();

export const onAway = (listener) => away.addEventListener("away", listener);
export const hasKey = () => key !== null;
export const setKey = (text) => { key = text; };
export const theKey = () => key;

// What the service refused, as its problem document says.
export class Refused extends Error {
  constructor(problem) {
    super(problem.detail);
    this.problem = problem;
  }
}

export class Away extends Error {
  constructor() {
    super("The server does not answer. Is it running, and are you connected?");
  }
}

const base = new URL(".", document.baseURI);
export const streamUrl = () => {
  const url = new URL("v1/stream", base);
  url.protocol = url.protocol.replace("http", "ws");
  return url;
};

export async function request(method, path, { json, audio, params, accept = "json" } = {}) {
  const url = new URL(path, base);
  for (const [name, value] of Object.entries(params ?? {})) {
    if (value !== null && value !== undefined && value !== "") url.searchParams.append(name, value);
  }
  const headers = {};
  if (key) headers.Authorization = `Bearer ${key}`;
  let body = audio;
  if (json !== undefined) {
    headers["Content-Type"] = "application/json";
    body = JSON.stringify(json);
  } else if (audio) {
    headers["Content-Type"] = audio.type || "application/octet-stream";
  }
  if (method === "POST" && json !== undefined) headers["Idempotency-Key"] = crypto.randomUUID();
  let response;
  try {
    response = await fetch(url, { method, headers, body, cache: "no-store" });
  } catch {
    away.dispatchEvent(new Event("away"));
    throw new Away();
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({ detail: `The server answered ${response.status}.` }));
    throw new Refused({ status: response.status, ...problem });
  }
  if (response.status === 204) return null;
  return accept === "text" ? response.text() : response.json();
}

const id = encodeURIComponent;

export const models = async () => (await request("GET", "v1/models")).items;
export const speakers = (params) => request("GET", "v1/speakers", { params });
export const speaker = (name) => request("GET", `v1/speakers/${id(name)}`);
export const createSpeaker = (json) => request("POST", "v1/speakers", { json });
export const changeSpeaker = (name, json) => request("PATCH", `v1/speakers/${id(name)}`, { json });
export const deleteSpeaker = (name) => request("DELETE", `v1/speakers/${id(name)}`);
export const enrollments = async (name) => (await request("GET", `v1/speakers/${id(name)}/enrollments`)).items;
export const deleteEnrollment = (name, enrollment) =>
  request("DELETE", `v1/speakers/${id(name)}/enrollments/${id(enrollment)}`);
export const enroll = (name, audio) => request("POST", `v1/speakers/${id(name)}/enrollments`, { audio });
export const verify = (name, audio, model) =>
  request("POST", `v1/speakers/${id(name)}/verify`, { audio, params: { model } });
export const identify = (audio, model, group) =>
  request("POST", "v1/identify", { audio, params: { model, group } });
export const sideBySide = (audio, speaker_id, rounds) =>
  request("POST", "v1/models/compare", { audio, params: { speaker_id, rounds } });
export const metrics = () => request("GET", "metrics", { accept: "text" });

// The tenant's speakers, asked for page by page; a console for people stops at some thousand.
export async function allSpeakers(limit = 5000) {
  const all = [];
  let cursor = null;
  do {
    const page = await speakers({ limit: 1000, cursor });
    all.push(...page.items);
    cursor = page.next_cursor;
  } while (cursor && all.length < limit);
  return all;
}

// Wait until the process answers again.
export async function back() {
  for (;;) {
    await new Promise((resolve) => setTimeout(resolve, 2000));
    try {
      if ((await fetch(new URL("healthz", base), { cache: "no-store" })).ok) return;
    } catch { /* still away */ }
  }
}
