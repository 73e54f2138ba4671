"""Which channel of a recording to take, and whether its channels hold different voices."""

from __future__ import annotations

from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from sayso.runtime.errors import NoSuchChannel

MIX = "mix"
_NAMES = {"left": 1, "right": 2}
CHANNEL_PATTERN = r"^(mix|left|right|[1-8])$"
_LOUD_FRAMES = 10  # 0.3 s of 32 ms: what is loud for longer is no click
_EMPTY_DB = 40.0  # a channel so far below the loudest holds what leaked into it
_RANGE_DB = 30.0  # of loudness below a channel's loud frames that is compared
_STEADY_DB = 12.0  # speech has pauses: a channel that varies by less holds noise
_ALIKE = 0.4  # correlation of loudness over time; docs/decisions/0037 has what was measured


def channel_index(channel: str, channels: int) -> int | None:
    """The place of a channel named `left`, `right` or 1 to 8; None for `mix`, the mean of all.

    Raises `NoSuchChannel` when a recording of so many channels does not have it.
    """
    if channel == MIX:
        return None
    number = _NAMES.get(channel) or (int(channel) if channel in "12345678" and channel else 0)
    if not 1 <= number <= channels:
        has = "one channel" if channels == 1 else f"{channels} channels"
        raise NoSuchChannel(
            f"the recording has {has} and no channel {channel[:20]!r}: say `mix`, `left`, `right` or a "
            "number from 1"
        )
    return number - 1


def differ(powers: NDArray[np.float64]) -> bool:
    """Whether two channels speak at different times, as the two ends of a call do.

    `powers [frames, channels]` of 32 ms each. One voice in two microphones is loud and soft in both at the
    same time. A channel that is empty or holds steady noise is no second voice.
    """
    if len(powers) < 2 * _LOUD_FRAMES:
        return False
    loud = np.partition(powers, -_LOUD_FRAMES, axis=0)[-_LOUD_FRAMES]
    if not loud.max() > 0.0:
        return False
    voiced = np.flatnonzero(loud > loud.max() * 10.0 ** (-_EMPTY_DB / 10.0))
    loudness = np.maximum(10.0 * np.log10(powers[:, voiced] / loud[voiced] + 1e-12), -_RANGE_DB)
    varies = np.percentile(loudness, 10, axis=0) < -_STEADY_DB
    return any(
        np.corrcoef(loudness[:, a], loudness[:, b])[0, 1] < _ALIKE
        for a, b in combinations(np.flatnonzero(varies), 2)
    )
