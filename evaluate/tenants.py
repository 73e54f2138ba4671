"""Trials as a service meets them: one recording against a template, among a tenant's other templates.

A calibration on pairs of single recordings says little of a decision on a template of 20 s, made beside the
tenant's other people. So the trials of a template list are made anew under several conditions: tenants of
several sizes, and whatever bands and lengths the caller embedded the recordings in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sayso.domain.evidence import BANDS, PAIRS, Floats, LlrModel, Sides, pair_numbers
from sayso.evaluate.arrays import BoolArray, FloatArray, IntArray

TENANT_SIZES = (1, 5, 20, 100, 400)
_AT_ONCE = 4096  # trials whose vectors are centred together
_SEARCHES = 400  # strangers at most that search one tenant


@dataclass(frozen=True, eq=False)
class Voices:
    """Unit vectors `[n, dim]` and what is known of each."""

    vectors: npt.NDArray[np.float32]
    sides: Sides

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.sides):
            raise ValueError(f"{len(self.sides)} voices need vectors [n, dim], not {self.vectors.shape}")

    @classmethod
    def joined(cls, parts: Sequence[Voices]) -> Voices:
        """Several sets as one, in their order."""
        return cls(np.concatenate([p.vectors for p in parts]), _joined([p.sides for p in parts]))


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Trials under one condition: labels bool, template and probe int `[trials]`; groups int `[templates]`.

    A group is one corpus, or one customer: its templates make tenants, and it counts as much as any other.
    `condition` names the bands, such as `wide/narrow` for templates and probes.
    """

    templates: Voices
    probes: Voices
    labels: BoolArray
    template: IntArray
    probe: IntArray
    groups: IntArray
    condition: str
    names: tuple[str, ...] = ()  # of the groups, by number

    def name(self, group: int) -> str:
        """What a group is called."""
        return self.names[group] if self.names else str(group)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a calibration is fitted to, `[trials]` each: both cosines, sides, labels, group,
    how many other people the tenant had, condition."""

    score: FloatArray
    centred: FloatArray
    templates: Sides
    probes: Sides
    labels: BoolArray
    group: IntArray
    others: IntArray
    condition: npt.NDArray[np.str_]

    def __len__(self) -> int:
        return len(self.labels)

    def columns(self, model: LlrModel) -> Floats:
        """The design `[trials, features]` that `model` weighs."""
        return model.design(self.score, self.centred, self.templates, self.probes, self.others)

    def llrs(self, model: LlrModel) -> Floats:
        """What `model` makes of the trials, `[trials]`."""
        return model.llrs(self.score, self.centred, self.templates, self.probes, self.others)

    def pairs(self) -> npt.NDArray[np.str_]:
        """The bands of each trial, such as `wide/narrow`, `[trials]`."""
        return np.array(PAIRS)[pair_numbers(self.templates, self.probes)]

    def take(self, rows: IntArray | BoolArray) -> Evidence:
        """Some of the trials, by index or mask; an index may come twice."""
        chosen: IntArray = np.flatnonzero(rows) if rows.dtype == np.bool_ else rows.astype(np.int64)
        return Evidence(
            self.score[chosen],
            self.centred[chosen],
            self.templates.take(chosen),
            self.probes.take(chosen),
            self.labels[chosen],
            self.group[chosen],
            self.others[chosen],
            self.condition[chosen],
        )

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """Several conditions as one."""
        return cls(
            np.concatenate([p.score for p in parts]),
            np.concatenate([p.centred for p in parts]),
            _joined([p.templates for p in parts]),
            _joined([p.probes for p in parts]),
            np.concatenate([p.labels for p in parts]),
            np.concatenate([p.group for p in parts]),
            np.concatenate([p.others for p in parts]),
            np.concatenate([p.condition for p in parts]),
        )


def _joined(parts: Sequence[Sides]) -> Sides:
    return Sides(
        np.concatenate([p.net_speech_s for p in parts]),
        np.concatenate([p.recordings for p in parts]),
        np.concatenate([p.narrow for p in parts]),
    )


def of_groups(c: Comparisons, groups: IntArray) -> Comparisons:
    """The trials of some groups' templates, and no other templates."""
    kept = np.isin(c.groups, groups)
    number = np.cumsum(kept) - 1
    trials = kept[c.template]
    rows = np.flatnonzero(kept)
    return Comparisons(
        Voices(c.templates.vectors[rows], c.templates.sides.take(rows)),
        c.probes,
        c.labels[trials],
        number[c.template[trials]],
        c.probe[trials],
        c.groups[rows],
        c.condition,
        c.names,
    )


def centres(conditions: Sequence[Comparisons]) -> dict[str, FloatArray]:
    """The mean vector `[dim]` of each band over groups, each group counting as much.

    Of templates where the band has any, of probes otherwise: telephone lines are mostly heard as probes.
    """
    found: dict[str, FloatArray] = {}
    for band in BANDS:
        means = []
        for c in conditions:
            near = np.full(len(c.probes.sides), -1)
            near[c.probe] = c.groups[c.template]
            for voices, groups in ((c.templates, c.groups), (c.probes, near)):
                own = (voices.sides.narrow == (band == "narrow")) & (groups >= 0)
                means += [
                    voices.vectors[own & (groups == g)].mean(axis=0, dtype=np.float64)
                    for g in np.unique(groups[own])
                ]
                if means:
                    break
            if means:
                break
        if means:
            found[band] = np.mean(means, axis=0)
    if not found:
        raise ValueError("there are no voices to calibrate on")
    # Without recordings of a band nothing is known of how it differs.
    return {band: found.get(band, next(iter(found.values()))) for band in BANDS}


def gather(model: LlrModel, c: Comparisons, sizes: Sequence[int] = TENANT_SIZES, seed: int = 0) -> Evidence:
    """Every trial once in a tenant of each size, drawn from the template's group; as many as the group has.

    The claimed speaker is one of the tenant's people and is left out of what the vectors are centred on. Only
    the centres of `model` are used.
    """
    rng = np.random.default_rng(seed)
    differences = _differences(model, c.templates)
    parts = []
    for size in sizes:
        totals, counts = _tenants(differences, c.groups, size, rng)
        shifts = totals / (counts + model.centre_weight)[:, None]
        score, centred = _cosines(model, c, shifts)
        parts.append(
            Evidence(
                score,
                centred,
                c.templates.sides.take(c.template),
                c.probes.sides.take(c.probe),
                c.labels,
                c.groups[c.template],
                counts[c.template],
                np.full(len(c.labels), c.condition),
            )
        )
    return Evidence.joined(parts)


def _differences(model: LlrModel, voices: Voices) -> FloatArray:
    """How each vector `[n, dim]` differs from the centre of its band."""
    centre = np.where(voices.sides.narrow[:, None], model.centre("narrow"), model.centre("wide"))
    differences: FloatArray = voices.vectors.astype(np.float64) - centre
    return differences


def _tenants(
    differences: FloatArray, groups: IntArray, size: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """For each template the sum `[templates, dim]` and number of `size - 1` others of its group."""
    totals, counts = np.zeros_like(differences), np.zeros(len(differences), np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        for t in members:
            chosen = rng.permutation(members[members != t])[: size - 1]
            counts[t] = len(chosen)
            totals[t] = differences[chosen].sum(axis=0)
    return totals, counts


def _cosines(model: LlrModel, c: Comparisons, shifts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Plain and centred cosines of every trial; `shifts` `[templates, dim]` are of each one's tenant."""
    score, centred = np.empty(len(c.labels)), np.empty(len(c.labels))
    templates, probes = _differences(model, c.templates) - shifts, _differences(model, c.probes)
    for start in range(0, len(c.labels), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        t, p = c.template[part], c.probe[part]
        score[part] = np.einsum("td,td->t", c.templates.vectors[t], c.probes.vectors[p], dtype=np.float64)
        centred[part] = _rowwise(templates[t], probes[p] - shifts[t])
    return np.clip(score, -1.0, 1.0), centred


def _rowwise(a: FloatArray, b: FloatArray) -> FloatArray:
    """Cosines of rows `[n, dim]`; 0 where one has no direction."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: FloatArray = np.clip(np.einsum("td,td->t", a, b) / np.maximum(lengths, 1e-12), -1.0, 1.0)
    return cosines


def balanced(evidence: Evidence, each: int = 4000, seed: int = 0) -> Evidence:
    """`each` targets and `each` non-targets of every group and condition, drawn with replacement.

    So no corpus and no band decides by its size alone. Groups without both classes are left out.
    """
    rng = np.random.default_rng(seed)
    chosen = []
    for group in np.unique(evidence.group):
        for condition in np.unique(evidence.condition):
            own = (evidence.group == group) & (evidence.condition == condition)
            classes = [np.flatnonzero(own & (evidence.labels == label)) for label in (True, False)]
            if all(len(rows) for rows in classes):
                chosen += [rng.choice(rows, each) for rows in classes]
    if not chosen:
        raise ValueError("no group of recordings has both targets and non-targets")
    return evidence.take(np.concatenate(chosen))


def search_rates(
    model: LlrModel,
    c: Comparisons,
    sizes: Sequence[int],
    thresholds: FloatArray,
    repeats: int = 5,
    seed: int = 0,
) -> dict[int, tuple[FloatArray, int]]:
    """How often a stranger matches anybody in tenants of each size: rates `[thresholds]` and searches made.

    A stranger is a probe of the tenant's group whose speaker is not enrolled there. Sizes that no group has
    are left out.
    """
    rng = np.random.default_rng(seed)
    owner = np.full(len(c.probes.sides), -1)
    owner[c.probe[c.labels]] = c.template[c.labels]
    near = np.full(len(c.probes.sides), -1)  # the group a probe is compared in
    near[c.probe] = c.groups[c.template]
    rates: dict[int, tuple[FloatArray, int]] = {}
    for size in sizes:
        best: list[FloatArray] = []
        for group in np.unique(c.groups):
            members = np.flatnonzero(c.groups == group)
            if len(members) < size:
                continue
            for _ in range(repeats):
                tenant = rng.permutation(members)[:size]
                strangers = np.flatnonzero((near == group) & ~np.isin(owner, tenant))
                if len(strangers):
                    best.append(_best_llrs(model, c, tenant, rng.permutation(strangers)[:_SEARCHES]))
        if best:
            highest = np.concatenate(best)
            rates[size] = (np.mean(highest[:, None] >= thresholds, axis=0), len(highest))
    return rates


def _best_llrs(model: LlrModel, c: Comparisons, tenant: IntArray, probes: IntArray) -> FloatArray:
    """The highest LLR of each probe `[probes]` against the people of a tenant."""
    templates, differences = _differences(model, c.templates)[tenant], _differences(model, c.probes)[probes]
    heard = c.probes.vectors[probes].astype(np.float64)
    sides = c.probes.sides.take(probes)
    best = np.full(len(probes), -np.inf)
    counts = np.full(len(probes), len(tenant) - 1)
    for row, t in enumerate(tenant):
        shift = model.shift(templates.sum(axis=0) - templates[row], len(tenant) - 1)
        a = np.broadcast_to(templates[row] - shift, differences.shape)
        centred = _rowwise(a, differences - shift)
        score = heard @ c.templates.vectors[t].astype(np.float64)
        own = c.templates.sides.take(np.full(len(probes), t))
        best = np.maximum(best, model.llrs(score, centred, own, sides, counts))
    return best
