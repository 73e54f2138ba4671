// Recording and dropping: where a voice comes into the console.

import { Away } from "./api.js";
import { announce, fill, h, reveal, seconds, uniqueId } from "./dom.js";
import { levelPicture } from "./levels.js";
import { LiveStream, LocalRecording } from "./live.js";
import { Microphone } from "./microphone.js";
import { problemBox } from "./problems.js";

const RECENT = 24; // messages, about a second
const QUIET_DB = -45;
const LOUD_DB = -1;

// `level` and `peak` are the highest of the last second: between two words everybody is quiet.
function tip(level, peak, { clipping, speaking, audio_s: audio }) {
  if (clipping > 0.005) return ["warn", "Clipping: lower the level or move away from the microphone."];
  if (peak > LOUD_DB) return ["warn", "Very loud: a little less would be safer."];
  if (speaking && level < QUIET_DB) return ["warn", "Very quiet: speak up or come closer."];
  if (!speaking && audio > 2) return ["", "No speech just now."];
  return ["good", "Good level."];
}

// The panel.
//   before()               the stream's first message (or its promise), or null for a recording that no stream
//                          follows; throws an Error for people. It is called before files are taken, too.
//   heard(message)         how much speech there is, as the person speaks
//   decided(message)       a decision so far; returns it in a word
//   ended(message, file)   the last word, null without a stream, and the recording as a file
//   files(list)            what was dropped or chosen
//   busy(on)               whether a recording is being made or worked on
// `enough` says in words that there is enough speech.
export function capturePanel({
  before, heard = () => {}, decided = () => {}, ended, files, busy = () => {}, multiple = false, enough = "enough to decide",
}) {
  const picture = levelPicture();
  const record = h("button", { type: "button", className: "record" }, "Record");
  const problems = h("div", { className: "problems" });
  const speech = h("progress", { max: 1, value: 0, "aria-label": "Net speech" });
  const status = h("p", { className: "said" }, "Not recording.");
  const level = h("p", { className: "level-tip" });
  const soFar = h("p", { className: "so-far" }); // for those who do not see the answer beside the levels
  const chooser = h("input", {
    type: "file", className: "visually-hidden", id: uniqueId("file"), multiple,
    accept: "audio/*,.wav,.flac,.mp3,.ogg,.opus,.m4a,.mp4,.3gp,.amr,.webm,.caf",
  });
  const drop = h("label", { className: "drop", for: chooser.id },
    h("span", {}, h("strong", {}, multiple ? "Drop recordings here" : "Drop a recording here"), " or choose ",
      multiple ? "files" : "a file"),
    h("span", { className: "hint" }, "What phones, browsers and recorders make: M4A, WebM, WAV, FLAC, MP3, Ogg"));
  const live = h("div", { className: "live", hidden: true }, picture.node, speech, status, level, soFar);
  const recent = [];
  let current = null;

  function problem(error) {
    fill(problems, problemBox(error));
    reveal(problems);
    if (error instanceof Away) status.textContent = "Not recording.";
  }

  function showSpeech(message) {
    const required = message.net_speech_s + message.remaining_speech_s;
    speech.max = required;
    speech.value = message.net_speech_s;
    speech.classList.toggle("full", message.remaining_speech_s === 0);
    const more = message.remaining_speech_s > 0 ? `${seconds(message.remaining_speech_s)} more` : enough;
    fill(status, h("strong", {}, seconds(message.net_speech_s)), " of speech, ", h("strong", {}, more));
    announce(`${message.net_speech_s.toFixed(0)} seconds of speech, ${more}`);
    heard(message);
  }

  function show(message) {
    picture.add(message.level_db, message.speaking);
    if (message.type === "speech") showSpeech(message);
    else fill(status, h("strong", {}, seconds(message.audio_s)), " recorded");
    recent.push(message);
    if (recent.length > RECENT) recent.shift();
    const highest = (name) => Math.max(...recent.map((past) => past[name]));
    const [kind, text] = tip(highest("level_db"), highest("peak_db"), message);
    level.className = `level-tip ${kind}`;
    level.textContent = text;
  }

  function clear() {
    fill(problems);
    picture.clear();
    recent.length = 0;
    speech.value = 0;
    speech.classList.remove("full");
    level.textContent = "";
    fill(soFar);
  }

  function began(first) {
    live.hidden = false;
    speech.hidden = first === null;
    record.textContent = "Stop";
    record.classList.add("on");
    record.disabled = false;
    status.textContent = "Speak now.";
    announce("Recording. Speak now.", true);
  }

  async function start() {
    clear();
    const microphone = new Microphone();
    const mine = { microphone, stream: null };
    current = mine;
    record.disabled = true;
    busy(true);
    try {
      const first = await before();
      await microphone.start((samples) => mine.stream?.send(samples));
      const tell = (message) => {
        if (message.type === "decision") fill(soFar, "So far: ", h("strong", {}, decided(message)));
        else if (message.type !== "started") show(message);
      };
      mine.stream = first === null ? new LocalRecording(microphone.rate, tell)
        : new LiveStream({ ...first, encoding: "pcm_s16le", sample_rate: microphone.rate }, tell);
      began(first);
      const message = await mine.stream.last;
      await microphone.stop();
      status.textContent = `Recorded ${seconds(microphone.seconds)}.`;
      level.textContent = "";
      fill(soFar);
      await ended(message, microphone.file());
    } catch (error) {
      await microphone.stop();
      problem(error);
    } finally {
      if (current === mine) current = null;
      record.disabled = false;
      record.textContent = "Record";
      record.classList.remove("on");
      busy(false);
    }
  }

  record.addEventListener("click", async () => {
    if (!current) {
      await start();
    } else if (current.stream) {
      record.disabled = true;
      status.textContent = "Deciding.";
      await current.microphone.stop();
      current?.stream.stop();
    }
  });

  async function take(list) {
    const chosen = [...list].slice(0, multiple ? undefined : 1);
    if (!chosen.length || current) return;
    clear();
    live.hidden = true;
    busy(true);
    drop.classList.add("busy");
    try {
      await before();
      await files(chosen);
    } catch (error) {
      problem(error);
    } finally {
      drop.classList.remove("busy");
      chooser.value = "";
      busy(false);
    }
  }
  chooser.addEventListener("change", () => take(chooser.files));
  drop.addEventListener("dragover", (event) => {
    event.preventDefault();
    drop.classList.add("over");
  });
  drop.addEventListener("dragleave", () => drop.classList.remove("over"));
  drop.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    take(event.dataTransfer.files);
  });

  return {
    node: h("div", { className: "capture" }, record, live, chooser, drop, problems),
    // Nothing of the last recording is left to be seen: somebody else comes next.
    clear() {
      if (current) return;
      clear();
      live.hidden = true;
    },
    leave() {
      current?.microphone.stop();
      current?.stream?.abandon();
    },
  };
}
