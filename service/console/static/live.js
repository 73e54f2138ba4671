// One recording while it is spoken: over the WebSocket, or kept here until it is done.

import { Away, Refused, streamUrl, theKey } from "./api.js";

export class LiveStream {
  // `start` is the first message without the key; `tell` gets every message but the last.
  // `this.last` resolves to the last message, or rejects with Refused or Away.
  constructor(start, tell) {
    this.waiting = [];
    this.last = new Promise((resolve, reject) => {
      const socket = new WebSocket(streamUrl());
      this.socket = socket;
      socket.binaryType = "arraybuffer";
      socket.onopen = () => {
        socket.send(JSON.stringify({ type: "start", key: theKey(), ...start }));
        this.waiting.splice(0).forEach((message) => socket.send(message));
      };
      socket.onmessage = ({ data }) => {
        const message = JSON.parse(data);
        if (message.type === "error") reject(new Refused(message.problem));
        else if (message.final) resolve(message);
        else tell(message);
      };
      socket.onclose = () => reject(new Away());
    });
    this.last.catch(() => {});
  }

  #post(message) {
    if (this.socket.readyState === WebSocket.CONNECTING) this.waiting.push(message);
    else if (this.socket.readyState === WebSocket.OPEN) this.socket.send(message);
  }

  send(samples) {
    this.#post(samples.buffer);
  }

  stop() {
    this.#post('{"type": "stop"}');
    return this.last;
  }

  abandon() {
    this.socket.close();
  }
}

const decibels = (amplitude) => (amplitude > 0 ? 20 * Math.log10(amplitude) : -Infinity);

// A recording that nothing is decided on while it is spoken: it says how loud it is. Used like a LiveStream;
// `last` resolves to null.
export class LocalRecording {
  constructor(rate, tell) {
    this.rate = rate;
    this.tell = tell;
    this.count = 0;
    this.clipped = 0;
    this.last = new Promise((resolve, reject) => {
      this.stop = () => resolve(null);
      this.abandon = () => reject(new Error("The recording was abandoned."));
    });
  }

  send(samples) {
    let [squares, peak] = [0, 0];
    for (const value of samples) {
      squares += value * value;
      peak = Math.max(peak, Math.abs(value));
      if (Math.abs(value) >= 32767) this.clipped += 1;
    }
    this.count += samples.length;
    const level = decibels(Math.sqrt(squares / samples.length) / 32768);
    this.tell({
      type: "level",
      audio_s: this.count / this.rate,
      level_db: level,
      peak_db: decibels(peak / 32768),
      clipping: this.clipped / this.count,
      speaking: level > -45, // loud enough to be speech, which nothing here can tell
    });
  }
}
