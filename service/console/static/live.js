// One recording over the WebSocket, while it is spoken.

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
