"""The speakers of an index in slots 0, 1, 2, ... without gaps, and the search among them. Not thread-safe."""

from collections.abc import Collection, Sequence

import faiss
import numpy as np
import numpy.typing as npt

from sayso.enroll.search.matrix import Matrix
from sayso.enroll.search.short_list import Shortlist
from sayso.enroll.types import Candidate, Vector, Vectors
from sayso.enroll.vectors import score

SHORT = 1000  # speakers on a short list
_MOST_WANTED = 100  # beyond, a short list holds too few to choose from
_ROUNDING = 1e-5  # more than FAISS's float32 sums can be off
_AT_ONCE = 16_384  # rows gathered at a time
Slots = npt.NDArray[np.int64]


class Roster:
    """Numbers, ids and vectors by slot; with a short list, once one was built, to which `search` turns.

    `written` is told each slot that another vector is put into, while somebody wants to know.
    """

    def __init__(
        self, numbers: Sequence[int] = (), ids: Sequence[str] = (), vectors: Matrix | None = None
    ) -> None:
        self.vectors = Matrix() if vectors is None else vectors
        self._numbers, self._ids = list(numbers), list(ids)
        self._slots = {number: slot for slot, number in enumerate(self._numbers)}
        self.shortlist: Shortlist | None = None
        self.written: set[int] | None = None

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return number in self._slots

    def add(self, numbers: Sequence[int], ids: Sequence[str], vectors: Vectors) -> None:
        """Take in speakers who are not there, one or more, with vectors `[n, dim]`."""
        slots = range(len(self), len(self) + len(numbers))
        self.vectors.append(vectors)
        self._numbers += numbers
        self._ids += ids
        self._slots.update(zip(numbers, slots, strict=True))
        if self.shortlist is not None:
            self.shortlist.add(vectors)
        if self.written is not None:
            self.written.update(slots)

    def remove(self, number: int) -> None:
        """Let go of a speaker, if they are there; the last one moves to their slot."""
        slot = self._slots.pop(number, None)
        if slot is None:
            return
        self.vectors.remove(slot)
        last, last_id = self._numbers.pop(), self._ids.pop()
        if last != number:
            self._numbers[slot], self._ids[slot], self._slots[last] = last, last_id, slot
        if self.shortlist is not None:
            self.shortlist.remove(slot)
        if self.written is not None:
            self.written.add(slot)

    def search(self, query: Vector, k: int, allowed: Collection[int] | None) -> tuple[list[Candidate], int]:
        """Return the `k` nearest, best first, equal scores by id, and how many were compared.

        Among all, or those `allowed` by number. Scores are those that verify gives.
        """
        slots = None if allowed is None else self._slots_of(allowed)
        searched = len(self) if slots is None else len(slots)
        if searched == 0:
            return [], 0
        if slots is None and self.shortlist is not None and k <= _MOST_WANTED:
            slots = self.shortlist.nearest(query, SHORT)
        faiss.omp_set_num_threads(1)
        scores = _scores(query, self.vectors.rows, slots)
        near = _within(scores, min(k, len(scores)))
        rows = self.vectors.rows
        found = [
            Candidate(self._ids[slot], score(query, rows[slot]))
            for slot in (near if slots is None else slots[near])
        ]
        found.sort(key=lambda candidate: (-candidate.score, candidate.speaker_id))
        return found[:k], searched

    def differences(self, numbers: Sequence[int], ids: Sequence[str], vectors: Matrix) -> list[str]:
        """Compare with the store's speakers and `vectors` `[n, dim]`; returns a line for each difference."""
        expected = dict(zip(numbers, ids, strict=True))
        differing = [
            f"{self._ids[s]} should not be there" for n, s in self._slots.items() if n not in expected
        ]
        rows, expected_rows = self.vectors.rows, vectors.rows
        for row, (number, speaker_id) in enumerate(expected.items()):
            slot = self._slots.get(number)
            if slot is None or self._ids[slot] != speaker_id:
                differing.append(f"{speaker_id} is missing")
            elif slot >= len(rows) or not np.array_equal(rows[slot], expected_rows[row]):
                differing.append(f"{speaker_id} has another template")
        sizes = {"vectors": len(rows), "numbers": len(self._slots)}
        if self.shortlist is not None:
            sizes["codes"] = len(self.shortlist)
            if len(self.shortlist) == len(rows):
                wrong = sum(
                    self.shortlist.strangers(at, rows[at : at + _AT_ONCE])
                    for at in range(0, len(rows), _AT_ONCE)
                )
                differing += [f"{wrong} codes on the short list are of other templates"] if wrong else []
        return differing + [
            f"{n} {what} for {len(self)} speakers" for what, n in sizes.items() if n != len(self)
        ]

    def _slots_of(self, numbers: Collection[int]) -> Slots:
        known = [slot for slot in map(self._slots.get, numbers) if slot is not None]
        return np.array(sorted(known), dtype=np.int64)  # memory is read in order


def _scores(query: Vector, rows: Vectors, slots: Slots | None) -> Vectors:
    """Return the cosines of the query with all rows, or those in `slots`, in float32."""
    if slots is None:
        return _products(query, rows)
    if 4 * len(slots) > len(rows):  # to copy that many costs more than to compare them all
        return _products(query, rows)[slots]
    parts = [_products(query, rows[slots[at : at + _AT_ONCE]]) for at in range(0, len(slots), _AT_ONCE)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _products(query: Vector, rows: Vectors) -> Vectors:
    # FAISS's, since NumPy's would wake a thread for each core: one query is one pass over memory, another
    # thread gains nothing and, when the cores are busy with embeddings, is waited for.
    products = np.empty(len(rows), dtype=np.float32)
    faiss.fvec_inner_products_ny(  # type: ignore[attr-defined]  # not in FAISS's stubs
        faiss.swig_ptr(products), faiss.swig_ptr(query), faiss.swig_ptr(rows), rows.shape[1], len(rows)
    )
    return products


def _within(scores: Vectors, k: int) -> Slots:
    """Return the places of the k highest, and of any that may tie with the last of them."""
    kth = np.partition(scores, len(scores) - k)[len(scores) - k]
    return np.flatnonzero(scores >= kth - _ROUNDING)
