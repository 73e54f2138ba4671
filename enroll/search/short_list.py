"""A short list of who may be nearest, from 4-bit codes: the index of a tenant too large to compare exactly.

Embeddings of trained networks fill few of their dimensions (of `baseline`'s and `nested`'s 512, 128 hold all
but a thousandth of what there is). So a vector is projected on those, rotated at random, which spreads what
it says evenly over them, and each pair of dimensions is quantised to one of 16 points. FAISS compares a
query with 32 such codes at a time from registers (product quantisation with fast scan: André et al., "Cache
locality is not enough", VLDB 2015). All codes are compared: there are no cells that a noisy recording could
miss. The scores are rough; whoever uses the list scores those on it exactly.
"""

import faiss
import numpy as np
import numpy.typing as npt

from sayso.enroll.types import Vector, Vectors

_KEPT = 0.998  # of the vectors' energy, by the dimensions kept
_STEP = 32  # dimensions kept come in multiples of this
_PAIR = 2  # dimensions that share a code
_ROUNDING = 1e-4


class Shortlist:
    """Codes of vectors in slots 0, 1, 2, ... without gaps, trained on a sample `[n, dim]` of 16 or more.

    Not thread-safe.
    """

    def __init__(self, sample: Vectors) -> None:
        faiss.omp_set_num_threads(1)
        self._projection = _projection(sample)
        kept = self._projection.shape[1]
        self._codes = faiss.IndexPQFastScan(kept, kept // _PAIR, 4, faiss.METRIC_INNER_PRODUCT)
        self._codes.train(sample @ self._projection)
        self._packer = self._codes.get_CodePacker()  # type: ignore[attr-defined]  # not in FAISS's stubs

    def __len__(self) -> int:
        return int(self._codes.ntotal)

    @property
    def bytes(self) -> int:
        """Memory that the codes take."""
        return int(self._codes.codes.size())

    def add(self, vectors: Vectors) -> None:
        """Take in vectors `[n, dim]` at the end."""
        self._codes.add(vectors @ self._projection)

    def replace(self, slot: int, vector: Vector) -> None:
        """Put a vector in the place of another."""
        code = self._codes.sa_encode((vector @ self._projection)[np.newaxis])
        self._packer.pack_1(code[0], slot % self._packer.nvec, self._block(slot))

    def remove(self, slot: int) -> None:
        """Put the last vector in the place of this one, as `Matrix.remove` does."""
        last = len(self) - 1
        place = last % self._packer.nvec
        code = self._packer.unpack_1(self._block(last), place)
        self._packer.pack_1(code, slot % self._packer.nvec, self._block(slot))
        # Zeros, and not only because of what stood there: FAISS adds to a place by a bitwise or.
        self._packer.pack_1(np.zeros_like(code), place, self._block(last))
        self._codes.ntotal = last
        self._codes.ntotal2 = -(-last // self._packer.nvec) * self._packer.nvec  # type: ignore[attr-defined]

    def nearest(self, query: Vector, count: int) -> npt.NDArray[np.int64]:
        """Return the slots of the `count` nearest by their codes, or of all where there are fewer."""
        faiss.omp_set_num_threads(1)
        _, slots = self._codes.search((query @ self._projection)[np.newaxis], count)
        found: npt.NDArray[np.int64] = slots[0]
        return found[found >= 0]  # FAISS fills up with -1

    def strangers(self, start: int, vectors: Vectors) -> int:
        """Count the slots from `start` on whose codes are not those of these vectors `[n, dim]`."""
        projected = vectors @ self._projection
        held = self._codes.reconstruct_n(start, len(vectors))
        fresh = self._codes.sa_decode(self._codes.sa_encode(projected))
        # by distance: a vector half-way between two points may be given either
        further = ((held - projected) ** 2).sum(1) - ((fresh - projected) ** 2).sum(1)
        return int((further > _ROUNDING).sum())

    def _block(self, slot: int) -> npt.NDArray[np.uint8]:
        """The packed block that holds a slot, as a view `[1, bytes]` into FAISS's memory."""
        memory = faiss.rev_swig_ptr(self._codes.codes.get(), self._codes.codes.size())
        blocks: npt.NDArray[np.uint8] = memory.reshape(-1, self._packer.block_size)
        block = slot // self._packer.nvec
        return blocks[block : block + 1]


def _projection(sample: Vectors) -> Vectors:
    """Return orthonormal columns `[dim, kept]`, `kept` even: the sample's main directions, rotated."""
    moments = (sample.T @ sample).astype(np.float64)
    energies, directions = np.linalg.eigh(moments)  # the largest last
    share = np.cumsum(energies[::-1]) / energies.sum()
    enough = int(np.searchsorted(share, _KEPT)) + 1
    kept = min(-(-enough // _STEP) * _STEP, sample.shape[1])
    width = kept + kept % _PAIR
    rotation = np.linalg.qr(np.random.default_rng(0).standard_normal((width, width)))[0]
    return np.ascontiguousarray(directions[:, -kept:] @ rotation[:kept], dtype=np.float32)
