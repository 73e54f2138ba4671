"""Errors of this room, and the check that raises most of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor

from sayso.domain.errors import SaysoError


class CheckpointError(SaysoError, ValueError):
    """A checkpoint cannot be used; the message names what is missing, unexpected or misshapen."""


def require_cover(
    what: str,
    expected: Mapping[str, Tensor],
    given: Mapping[str, Tensor],
    shown: Callable[[str], str] = str,
) -> None:
    """Raise `CheckpointError` unless `given` has exactly the names and shapes of `expected`.

    `shown` turns our names into those of the file. BatchNorm's batch counters may be missing: files
    older than PyTorch 0.4.1 lack them and inference never reads them.
    """
    problems = [
        f"missing {shown(name)}"
        for name in expected
        if name not in given and not name.endswith("num_batches_tracked")
    ]
    problems += [f"unexpected {shown(name)}" for name in given if name not in expected]
    problems += [
        f"{shown(name)} has shape {tuple(given[name].shape)}, expected {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in given and given[name].shape != tensor.shape
    ]
    if problems:
        raise CheckpointError(f"the checkpoint does not fit {what}: {'; '.join(problems)}")
