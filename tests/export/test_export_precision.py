"""A model in fewer bits is written only where it still hears the same, and says so on its card."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import soundfile as sf
from export_samples import Exported
from numpy.typing import NDArray
from typer.testing import CliRunner

from sayso.cli import app
from sayso.domain.calibration import Calibration
from sayso.export import precision
from sayso.export.precision import PrecisionError, TrialCheck, export_lower, to_fp16
from sayso.export.quantise import folded, to_int8
from sayso.runtime.card import ModelCard, read_card, with_card
from sayso.runtime.embedder import Embedder
from sayso.runtime.model_file import network_sha256
from sayso.runtime.session import EmbeddingSession
from sayso.runtime.synthesis import synthetic_voice

CALIBRATION: Calibration = Calibration.from_schema_1(
    {
        "trials": {"name": "a.trials", "sha256": "d" * 64, "targets": 10, "nontargets": 90, "speakers": 5},
        "llr": {"slope": 12.5, "offset": -4.0},
        "operating_points": {"eer": {"threshold": 0.41, "fmr": 0.031, "fnmr": 0.031}},
        "false_match_curve": {"fmr": [0.1, 0.01], "threshold": [0.3, 0.5], "tail_scale": 0.04},
        "histogram": {"edges": [-1.0, 0.0, 1.0], "target": [0.1, 0.9], "nontarget": [0.8, 0.2]},
    }
)


def voice(number: int, seconds: float = 2.0) -> NDArray[np.float32]:
    return synthetic_voice(seconds, 90 + 9 * number, 0.85 + 0.02 * number, seed=number)


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("voices")
    for number in range(15):
        sf.write(folder / f"{number:02}.wav", voice(number), 16_000)
    return folder


@pytest.fixture
def model(exported: Exported, tmp_path: Path) -> Path:
    """The exported model, calibrated and evaluated, in a folder of its own."""
    path = tmp_path / "tiny.onnx"
    card = replace(exported.card, calibration=CALIBRATION, evaluation={"a.trials": {"eer": 0.031}})
    path.write_bytes(with_card(exported.content, card))
    return path


def operators(model: bytes) -> list[str]:
    return [node.op_type for node in onnx.load_from_string(model).graph.node]


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_it_is_written_close_to_fp32_and_can_be_served(kind: str, model: Path, recordings: Path) -> None:
    out = model.with_name("lower.onnx")
    card = export_lower(model, out, "lower", kind, recordings)  # type: ignore[arg-type]
    assert card == read_card(out.read_bytes(), "lower.onnx")
    assert (card.name, card.precision) == ("lower", kind)
    told = card.lowered
    assert told is not None
    assert told.calibrated_on == ("5 recordings" if kind == "int8" else None)
    assert told.compared_on == "10 recordings"
    assert 0.95 < told.worst_cosine <= told.median_cosine
    assert 0.99 < told.median_cosine <= 1.0
    assert (told.trials, told.eer, told.eer_fp32) == (None, None, None)
    speech = voice(3, seconds=7.0)
    with (
        Embedder(model, provider="cpu", threads=1) as full,
        Embedder(out, provider="cpu", threads=1) as lower,
    ):
        assert full.sha256 != lower.sha256  # the store never compares the two
        vectors = full.embed(speech).vector, lower.embed(speech).vector
    assert float(vectors[0] @ vectors[1]) > 0.95
    assert not np.array_equal(*vectors)


def test_thresholds_and_results_are_not_carried_over(model: Path, recordings: Path) -> None:
    before = read_card(model.read_bytes(), "tiny.onnx")
    assert before.calibration is not None
    card = export_lower(model, model.with_name("lower.onnx"), "lower", "int8", recordings)
    assert (card.calibration, card.evaluation) == (None, {})
    kept = ("architecture", "options", "parameters", "macs", "front_end", "source", "parity", "training")
    assert all(getattr(card, name) == getattr(before, name) for name in kept)
    assert read_card(model.read_bytes(), "tiny.onnx") == before


def test_int8_holds_its_weights_in_bytes_and_its_front_end_in_floats(exported: Exported) -> None:
    lower = to_int8(exported.content, [voice(n)[None] for n in range(3)])
    graph = onnx.load_from_string(lower).graph
    makers = {name: node for node in graph.node for name in node.output}
    convolutions = [node for node in graph.node if node.op_type == "Conv"]
    inputs = [makers.get(node.input[1]) for node in convolutions]
    assert inputs[0] is None  # the first convolution keeps its float weights
    assert all(node is not None and node.op_type == "DequantizeLinear" for node in inputs[1:])
    kinds = {t.name: t.data_type for t in graph.initializer}
    bytes_of_weights = [kinds[node.input[0]] for node in inputs[1:] if node]
    assert set(bytes_of_weights) == {onnx.TensorProto.INT8}
    assert operators(lower)[: operators(lower).index("Conv")] == front_end(exported.content)
    assert "BatchNormalization" not in operators(lower)


def front_end(model: bytes) -> list[str]:
    names = [node.op_type for node in folded(model).graph.node]
    return names[: names.index("Conv")]


def test_equalising_changes_nothing_before_anything_is_rounded(exported: Exported) -> None:
    from sayso.export.quantise import _Graph

    windows = [voice(n)[None] for n in range(3)]
    graph = _Graph(folded(exported.content))
    weights = {name: value.copy() for name, value in graph.weights.items()}
    graph.norms_to_convolutions()
    graph.equalise(graph.observe(windows))
    assert any(not np.array_equal(graph.weights[name], value) for name, value in weights.items())
    equal = EmbeddingSession(graph.model.SerializeToString(), "equalised", provider="cpu")
    full = EmbeddingSession(exported.content, "tiny", provider="cpu")
    for window in windows:
        np.testing.assert_allclose(equal.run(window), full.run(window), atol=1e-4)


def test_fp16_is_the_trunk_between_two_casts(exported: Exported) -> None:
    lower = onnx.load_from_string(to_fp16(exported.content))
    onnx.checker.check_model(lower, full_check=True)
    half = onnx.TensorProto.FLOAT16
    weights = {t.name: t.data_type for t in lower.graph.initializer}
    convolutions = [node for node in lower.graph.node if node.op_type == "Conv"]
    assert {weights[node.input[1]] for node in convolutions} == {half}
    names = [node.op_type for node in lower.graph.node]
    first = names.index("Conv")
    casts = [i for i, name in enumerate(names) if name == "Cast"]
    assert casts[0] == first - 1  # nothing of the front-end is rounded
    assert [name for name in names[:first] if name != "Cast"] == front_end(exported.content)
    kept = [node for node in lower.graph.node[casts[-1] + 1 :] for name in node.input if name in weights]
    assert kept
    assert all(weights[name] != half for node in kept for name in node.input if name in weights)


def test_lowering_again_gives_the_same_network(model: Path, recordings: Path) -> None:
    paths = [model.with_name(name) for name in ("one.onnx", "two.onnx")]
    for path in paths:
        export_lower(model, path, path.stem, "int8", recordings)
    one, two = (network_sha256(path.read_bytes()) for path in paths)
    assert one == two


@pytest.mark.parametrize("kind", ["int8", "fp16"])
def test_without_real_speech_it_is_refused(kind: str, model: Path, recordings: Path) -> None:
    out = model.with_name("lower.onnx")
    with pytest.raises(PrecisionError, match=rf"{kind} .*give --recordings FOLDER"):
        export_lower(model, out, "lower", kind, None)  # type: ignore[arg-type]
    few = model.parent / "few"
    few.mkdir()
    sf.write(few / "one.wav", voice(1), 16_000)
    with pytest.raises(PrecisionError, match=r"1 recordings under .*few: .* takes 12 or more"):
        export_lower(model, out, "lower", kind, few)  # type: ignore[arg-type]
    assert not out.exists()


def blunted(model: bytes, keep: int) -> bytes:
    """Weights of every convolution rounded to so many levels: a quantisation gone wrong."""
    proto = onnx.load_from_string(model)
    names = {node.input[1] for node in proto.graph.node if node.op_type == "Conv"}
    for tensor in proto.graph.initializer:
        if tensor.name in names:
            values = onnx.numpy_helper.to_array(tensor)
            step = np.abs(values).max() / keep
            rounded = (np.round(values / step) * step).astype(np.float32)
            tensor.CopyFrom(onnx.numpy_helper.from_array(rounded, tensor.name))
    content: bytes = proto.SerializeToString()
    return content


def spoilt(model: bytes) -> bytes:
    proto = onnx.load_from_string(model)
    bias = next(t for t in proto.graph.initializer if t.name.endswith("trunk.fc.bias"))
    values = onnx.numpy_helper.to_array(bias)
    bias.CopyFrom(onnx.numpy_helper.from_array(values * np.float32(np.nan), bias.name))
    content: bytes = proto.SerializeToString()
    return content


@pytest.mark.parametrize(
    ("make", "figures"),
    [
        (lambda model: blunted(model, 1), r"cosine 0\.\d{4} to fp32's in the median \(limit 0\.99\)"),
        (spoilt, r"cosine -1\.0000 .* -1\.0000 at worst \(limit 0\.9\)"),
    ],
)
def test_one_that_hears_differently_is_not_written(
    make: Callable[[bytes], bytes],
    figures: str,
    model: Path,
    recordings: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(precision, "to_int8", lambda content, windows: make(content))
    out = model.with_name("lower.onnx")
    out.write_bytes(b"an earlier model")
    with pytest.raises(PrecisionError, match=rf"{figures}.*on 10 recordings: not written"):
        export_lower(model, out, "lower", "int8", recordings)
    assert out.read_bytes() == b"an earlier model"
    monkeypatch.setattr(precision, "to_int8", lambda content, windows: blunted(content, 1000))
    assert export_lower(model, out, "lower", "int8", recordings).precision == "int8"  # the blunting did it


@pytest.mark.parametrize(("after", "written"), [(0.1019, True), (0.05, True), (0.1021, False)])
def test_one_with_a_higher_eer_is_not_written(
    after: float, written: bool, model: Path, recordings: Path
) -> None:
    def eer(content: bytes) -> float:
        card = read_card(content, "candidate")
        return 0.1 if card.precision == "fp32" else after

    out = model.with_name("lower.onnx")
    check = TrialCheck("my.trials", eer)
    if not written:
        with pytest.raises(
            PrecisionError, match=r"EER on my\.trials is 10\.21%, fp32's 10\.00%.*not written"
        ):
            export_lower(model, out, "lower", "int8", recordings, check)
        assert not out.exists()
        return
    told = export_lower(model, out, "lower", "int8", recordings, check).lowered
    assert told is not None
    assert (told.trials, told.eer, told.eer_fp32) == ("my.trials", after, 0.1)


def test_a_lowered_model_is_no_source(model: Path, recordings: Path) -> None:
    lower = model.with_name("lower.onnx")
    export_lower(model, lower, "lower", "fp16", recordings)
    with pytest.raises(PrecisionError, match="fp16 already: start from its fp32 model"):
        export_lower(lower, model.with_name("again.onnx"), "again", "int8", recordings)


def test_the_command_takes_a_checkpoint_or_a_model(
    exported: Exported, model: Path, recordings: Path, tmp_path: Path
) -> None:
    trials = tmp_path / "my.trials"
    trials.write_text("1 00.wav 00.wav\n1 01.wav 01.wav\n0 00.wav 09.wav\n0 01.wav 12.wav\n")
    common = ["--precision", "int8", "--recordings", str(recordings)]
    scored = ["--trials", str(trials), "--root", str(recordings)]
    made = {}
    for source in (exported.checkpoint, model):
        out = tmp_path / f"from-{source.suffix[1:]}.onnx"
        told = CliRunner().invoke(app, ["export", str(source), "-o", str(out), *common, *scored])
        assert told.exit_code == 0, told.output
        assert "EER on my.trials" in told.output.replace("\n", " ")
        made[out] = read_card(out.read_bytes(), out.name)
    first, second = made
    assert network_sha256(first.read_bytes()) == network_sha256(second.read_bytes())
    card: ModelCard = made[first]
    assert card.lowered is not None
    assert card.lowered.trials == "my.trials"
    shown = CliRunner().invoke(app, ["inspect", str(first)])
    assert "precision     int8, cosine to fp32" in shown.output
    assert "ranges set on 5 recordings" in shown.output
    for wrong in (["--trials", str(trials)], ["--root", str(recordings)], []):
        told = CliRunner().invoke(
            app, ["export", str(model), "-o", str(tmp_path / "x.onnx"), *common, *wrong]
        )
        assert told.exit_code == 2
    flagged = ["export", str(model), "-o", str(tmp_path / "x.onnx"), *common, *scored, "--int16-scale"]
    assert CliRunner().invoke(app, flagged).exit_code == 2
    assert not (tmp_path / "x.onnx").exists()
