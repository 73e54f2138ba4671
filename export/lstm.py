"""PyTorch's LSTM as ONNX's operator of that name: left to itself the exporter unrolls one length of it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.onnx.ops import symbolic_multi_out


class OnnxLSTM(nn.Module):
    """Stands in for a bidirectional, batch-first `nn.LSTM` while a graph is written; run, it gives zeros."""

    def __init__(self, lstm: nn.LSTM, opset: int) -> None:
        super().__init__()
        self.cells, self.layers, self.opset = lstm.hidden_size, lstm.num_layers, opset
        for layer in range(self.layers):
            for name, kinds in (("W", ("weight_ih",)), ("R", ("weight_hh",)), ("B", ("bias_ih", "bias_hh"))):
                directions = [
                    torch.cat([_reordered(getattr(lstm, f"{k}_l{layer}{end}").detach()) for k in kinds])
                    for end in ("", "_reverse")
                ]
                self.register_buffer(f"{name}{layer}", torch.stack(directions))

    def forward(self, x: Tensor) -> tuple[Tensor, None]:
        """`[batch, frames, inputs]` to `[batch, frames, 2 * cells]`; the state is left out."""
        batch, frames = x.shape[0], x.shape[1]
        x = x.transpose(0, 1)
        for layer in range(self.layers):
            given = [x, *(self.get_buffer(f"{name}{layer}") for name in "WRB")]
            state = [2, batch, self.cells]
            outputs = symbolic_multi_out(
                "LSTM",
                given,
                {"hidden_size": self.cells, "direction": "bidirectional"},
                dtypes=[torch.float32] * 3,
                shapes=[[frames, 2, batch, self.cells], state, state],
                version=self.opset,
            )
            x = outputs[0].transpose(1, 2).reshape(frames, batch, 2 * self.cells)
        return x.transpose(0, 1), None


def _reordered(gates: Tensor) -> Tensor:
    """Turn PyTorch's order of gates, input forget cell output, into ONNX's: input output forget cell."""
    i, f, c, o = gates.chunk(4)
    return torch.cat([i, o, f, c])
