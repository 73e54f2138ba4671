"""Checkpoint file to model file, with its card."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch

from sayso.export.graph import to_onnx
from sayso.export.parity import Stage, measure, no_stage, speech_from
from sayso.models.checkpoint import Checkpoint, load_checkpoint
from sayso.models.cost import count_macs, count_parameters
from sayso.models.describe import describe
from sayso.models.frontend import SAMPLE_RATE
from sayso.models.network import SpeakerNetwork
from sayso.runtime.audio import Samples
from sayso.runtime.card import FrontEnd, Level, ModelCard, Parity, Source, with_card

WINDOW_SAMPLES = 48_000  # 3 s: 301 frames, the study's input


def export_checkpoint(
    checkpoint: Path,
    output: Path,
    name: str,
    recordings: Path | None = None,
    sample_scale: float | None = None,
    log_input: bool | None = None,
    stage: Stage = no_stage,
) -> ModelCard:
    """Write `output` and return its card, without evaluation or calibration, which come after.

    `recordings` is a folder of speech to compare on. `sample_scale` and `log_input` correct what the file
    cannot tell. `stage` is called as the work goes on. Raises `CheckpointError` for a file that cannot be
    loaded and `ParityError`, writing nothing, for a graph that is not the same function.
    """
    stage("loading the checkpoint", 0, None)
    loaded = load_checkpoint(checkpoint, sample_scale, log_input)
    voices, named = speech_from(recordings)
    stage("writing the graph", 0, None)
    shortest = loaded.network.min_samples
    graph = to_onnx(loaded.network, min_samples=shortest)
    parity = measure(in_torch(loaded.network), graph, voices, named, stage, shortest)
    card = _card(loaded, name, parity)
    write_model(output, graph, card)
    return card


def write_model(output: Path, graph: bytes, card: ModelCard) -> None:
    """Write the graph with its card, put in place whole or not at all."""
    partial = output.with_name(output.name + ".partial")
    try:
        partial.write_bytes(with_card(graph, card))
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


def in_torch(network: SpeakerNetwork) -> Callable[[Samples], Samples]:
    """Return the network itself as the `reference` of `measure`."""

    @torch.inference_mode()
    def reference(batch: Samples) -> Samples:
        vectors: Samples = network(torch.from_numpy(batch)).numpy()
        return vectors

    return reference


def _card(loaded: Checkpoint, name: str, parity: Parity) -> ModelCard:
    network = loaded.network
    front_end = network.config.front_end
    n_fft, win_length, hop_length = network.front_end.frame
    return ModelCard(
        name=name,
        architecture=network.config.architecture,
        options=network.config.options,
        embedding_dim=network.embedding_dim,
        parameters=count_parameters(network),
        macs=count_macs(network, WINDOW_SAMPLES),
        front_end=FrontEnd(
            sample_rate=SAMPLE_RATE,
            n_mels=front_end.n_mels,
            n_fft=n_fft,
            win_length=win_length,
            hop_length=hop_length,
            window=front_end.window,
            pre_emphasis=front_end.pre_emphasis,
            sample_scale=front_end.sample_scale,
            log_input=front_end.log_input,
            name=front_end.name,
        ),
        window_samples=WINDOW_SAMPLES,
        source=Source(loaded.sha256, loaded.source),
        parity=parity,
        levels=tuple(Level(**asdict(level)) for level in describe(network, WINDOW_SAMPLES)),
        training=loaded.training,
    )
