// Recording and dropping: where a voice comes into the console.

import { Away } from "./api.js";
import { announce, fill, h, notice, seconds, uniqueId } from "./dom.js";
import { LiveStream } from "./live.js";
import { Microphone } from "./microphone.js";

const HISTORY = 120; // bars of the level picture
const RECENT = 24; // messages, about a second
const QUIET_DB = -45;
const LOUD_DB = -1;

function levelPicture() {
  const canvas = h("canvas", { className: "levels", width: 720, height: 96, "aria-hidden": "true" });
  const past = [];
  function draw() {
    const paint = canvas.getContext("2d");
    const style = getComputedStyle(canvas);
    paint.clearRect(0, 0, canvas.width, canvas.height);
    const step = canvas.width / HISTORY;
    past.forEach(({ db, speaking }, i) => {
      const tall = Math.max(2, ((db + 60) / 60) * (canvas.height - 8));
      paint.fillStyle = style.getPropertyValue(speaking ? "--speech" : "--line");
      paint.fillRect((HISTORY - past.length + i) * step, (canvas.height - tall) / 2, step - 2, tall);
    });
  }
  return {
    canvas,
    add(db, speaking) {
      past.push({ db, speaking });
      if (past.length > HISTORY) past.shift();
      draw();
    },
    clear() {
      past.length = 0;
      draw();
    },
  };
}

// `level` and `peak` are the highest of the last second: between two words everybody is quiet.
function tip(level, peak, { clipping, speaking, audio_s: audio }) {
  if (clipping > 0.005) return ["warn", "Clipping: lower the level or move away from the microphone."];
  if (peak > LOUD_DB) return ["warn", "Very loud: a little less would be safer."];
  if (speaking && level < QUIET_DB) return ["warn", "Very quiet: speak up or come closer."];
  if (!speaking && audio > 2) return ["", "No speech just now."];
  return ["good", "Good level."];
}

// The panel. `before()` gives the stream's first message (or its promise), or throws an Error for people; `decided(message)`
// gets decisions as they come; `ended(message, file)` the last word with the recording; `files(list)` what
// was dropped or chosen.
export function capturePanel({ before, decided = () => {}, ended, files, multiple = false, goal }) {
  const picture = levelPicture();
  const record = h("button", { type: "button", className: "record" }, "Record");
  const problems = h("div", {});
  const speech = h("progress", { max: 1, value: 0, "aria-label": "Net speech" });
  const said = h("p", { className: "said" }, "Not recording.");
  const level = h("p", { className: "level-tip" });
  const chooser = h("input", {
    type: "file", className: "visually-hidden", id: uniqueId("file"), multiple,
    accept: "audio/*,.wav,.flac,.mp3,.ogg,.opus",
  });
  const drop = h("label", { className: "drop", for: chooser.id },
    h("span", {}, h("strong", {}, multiple ? "Drop recordings here" : "Drop a recording here"), " or choose ",
      multiple ? "files" : "a file"),
    h("span", { className: "hint" }, "WAV, FLAC, MP3, Ogg Vorbis or Opus"));
  const live = h("div", { className: "live", hidden: true }, picture.canvas, speech, said, level);
  const recent = [];
  let current = null;

  const problem = (error) => {
    fill(problems, notice("error", h("p", {}, error.message)));
    if (error instanceof Away) said.textContent = "Not recording.";
  };

  function show(message) {
    picture.add(Math.max(-60, message.level_db), message.speaking);
    const wanted = message.net_speech_s + message.remaining_speech_s;
    speech.max = wanted;
    speech.value = message.net_speech_s;
    speech.classList.toggle("full", message.remaining_speech_s === 0);
    const more = message.remaining_speech_s > 0
      ? `${seconds(message.remaining_speech_s)} more`
      : goal === "enroll" ? "enough to enrol" : "enough to decide";
    fill(said, h("strong", {}, seconds(message.net_speech_s)), " of speech, ", h("strong", {}, more));
    announce(`${message.net_speech_s.toFixed(0)} seconds of speech, ${more}`);
    recent.push(message);
    if (recent.length > RECENT) recent.shift();
    const highest = (name) => Math.max(...recent.map((one) => one[name]));
    const [kind, text] = tip(highest("level_db"), highest("peak_db"), message);
    level.className = `level-tip ${kind}`;
    level.textContent = text;
  }

  async function start() {
    fill(problems);
    picture.clear();
    const microphone = new Microphone();
    const mine = { microphone, stream: null };
    current = mine;
    record.disabled = true;
    try {
      const first = await before();
      await microphone.start((samples) => mine.stream?.send(samples));
      mine.stream = new LiveStream({ ...first, encoding: "pcm_s16le", sample_rate: microphone.rate }, (message) => {
        if (message.type === "speech") show(message);
        else if (message.type === "decision") decided(message);
      });
      live.hidden = false;
      record.textContent = "Stop";
      record.classList.add("on");
      record.disabled = false;
      said.textContent = "Speak now.";
      announce("Recording. Speak now.", true);
      const message = await mine.stream.last;
      await microphone.stop();
      said.textContent = `Recorded ${seconds(mine.microphone.chunks.length * 2048 / mine.microphone.rate)}.`;
      level.textContent = "";
      ended(message, microphone.file());
    } catch (error) {
      await microphone.stop();
      problem(error);
    } finally {
      if (current === mine) current = null;
      record.disabled = false;
      record.textContent = "Record";
      record.classList.remove("on");
    }
  }

  record.addEventListener("click", async () => {
    if (!current) {
      await start();
    } else if (current.stream) {
      record.disabled = true;
      said.textContent = "Deciding.";
      await current.microphone.stop();
      current?.stream.stop();
    }
  });

  async function take(list) {
    const chosen = [...list].slice(0, multiple ? undefined : 1);
    if (!chosen.length) return;
    fill(problems);
    try {
      await before();
      drop.classList.add("busy");
      await files(chosen);
    } catch (error) {
      problem(error);
    } finally {
      drop.classList.remove("busy");
      chooser.value = "";
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
    leave() {
      current?.microphone.stop();
      current?.stream?.abandon();
    },
  };
}
