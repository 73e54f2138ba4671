// The microphone as 16-bit samples, unprocessed: browsers' noise suppression changes voices.

const CONSTRAINTS = { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 };

export class MicrophoneUnusable extends Error {}

function reason(error) {
  if (error.name === "NotAllowedError" || error.name === "SecurityError") {
    return "The microphone was refused. Allow it in the browser's site settings (the icon beside the address), "
      + "then record again. Or drop a recording here instead.";
  }
  if (error.name === "NotFoundError") return "No microphone was found. Plug one in, or drop a recording here instead.";
  if (error.name === "NotReadableError") return "Another program holds the microphone. Close it there, then record again.";
  return `The microphone cannot be used (${error.message}). Drop a recording here instead.`;
}

export class Microphone {
  constructor() {
    this.chunks = [];
    this.rate = 0;
  }

  // `hear` gets an Int16Array for every 2,048 samples.
  async start(hear) {
    if (!navigator.mediaDevices?.getUserMedia) {
      throw new MicrophoneUnusable(
        "Browsers give the microphone only to pages on https:// or on localhost. Open the console there, "
        + "or drop a recording here instead.");
    }
    try {
      this.media = await navigator.mediaDevices.getUserMedia({ audio: CONSTRAINTS });
    } catch (error) {
      throw new MicrophoneUnusable(reason(error));
    }
    this.context = new AudioContext();
    this.rate = this.context.sampleRate;
    await this.context.audioWorklet.addModule(new URL("worklet.js", import.meta.url));
    const source = this.context.createMediaStreamSource(this.media);
    this.tap = new AudioWorkletNode(this.context, "tap", { numberOfOutputs: 0 });
    this.tap.port.onmessage = ({ data }) => {
      const samples = Int16Array.from(data, (x) => Math.round(32767 * Math.max(-1, Math.min(1, x))));
      this.chunks.push(samples);
      hear(samples);
    };
    source.connect(this.tap);
  }

  async stop() {
    if (this.tap) this.tap.port.onmessage = null;
    this.media?.getTracks().forEach((track) => track.stop());
    if (this.context && this.context.state !== "closed") await this.context.close();
  }

  get seconds() {
    return this.rate ? this.chunks.reduce((sum, chunk) => sum + chunk.length, 0) / this.rate : 0;
  }

  // What was recorded, as a WAV file.
  file() {
    const count = this.chunks.reduce((sum, chunk) => sum + chunk.length, 0);
    const view = new DataView(new ArrayBuffer(44 + 2 * count));
    const text = (at, word) => [...word].forEach((c, i) => view.setUint8(at + i, c.charCodeAt(0)));
    text(0, "RIFF");
    view.setUint32(4, 36 + 2 * count, true);
    text(8, "WAVEfmt ");
    view.setUint32(16, 16, true);
    view.setUint16(20, 1, true);
    view.setUint16(22, 1, true);
    view.setUint32(24, this.rate, true);
    view.setUint32(28, 2 * this.rate, true);
    view.setUint16(32, 2, true);
    view.setUint16(34, 16, true);
    text(36, "data");
    view.setUint32(40, 2 * count, true);
    let at = 44;
    for (const chunk of this.chunks) {
      for (const value of chunk) {
        view.setInt16(at, value, true);
        at += 2;
      }
    }
    return new Blob([view.buffer], { type: "audio/wav" });
  }
}
