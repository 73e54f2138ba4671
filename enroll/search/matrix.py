"""A table of vectors that grows, shrinks and forgets in place."""

from collections.abc import Sequence

import numpy as np

from sayso.enroll.types import Vector, Vectors

_SPARE = 16_384  # rows at most that are allocated and not used


class Matrix:
    """Rows of float32 `[rows, dim]` without gaps; `dim` is 0 until the first come. Not thread-safe.

    The operating system moves the pages of a large array that is resized, so a million rows grow without
    being copied. A row that is let go is overwritten with zeros.
    """

    def __init__(self) -> None:
        self._memory: Vectors = np.zeros((0, 0), np.float32)
        self._used = 0

    def __len__(self) -> int:
        return self._used

    @property
    def dim(self) -> int:
        return int(self._memory.shape[1])

    @property
    def bytes(self) -> int:
        """Memory that the table takes."""
        return self._memory.nbytes

    @property
    def rows(self) -> Vectors:
        """The rows in use, as a view that is good until the next change."""
        return self._memory[: self._used]

    def append(self, vectors: Sequence[Vector] | Vectors) -> None:
        """Add rows `[n, dim]`, n being 1 or more, at the end."""
        if self._used == 0:
            self._memory = np.zeros((0, len(vectors[0])), np.float32)
        used = self._used + len(vectors)
        if used > len(self._memory):
            self._resize(used + min(used // 2, _SPARE))
        self._memory[self._used : used] = vectors
        self._used = used

    def remove(self, row: int) -> None:
        """Put the last row in the place of this one."""
        last = self._used - 1
        self._memory[row] = self._memory[last]
        self._memory[last] = 0.0
        self._used = last
        if len(self._memory) > 2 * (last + _SPARE):
            self._resize(last + _SPARE)

    def _resize(self, rows: int) -> None:
        # without the check for other references: a view is only held by whoever may change the table
        self._memory.resize((rows, self.dim), refcheck=False)
