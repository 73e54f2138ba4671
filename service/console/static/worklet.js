// Runs on the audio thread: hands the microphone's samples over, 2,048 at a time.

class Tap extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(2048);
    this.at = 0;
  }

  process([input]) {
    const samples = input[0];
    if (!samples) return true;
    for (let i = 0; i < samples.length; i += 1) {
      this.block[this.at] = samples[i];
      this.at += 1;
      if (this.at === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.at = 0;
      }
    }
    return true;
  }
}

registerProcessor("tap", Tap);
