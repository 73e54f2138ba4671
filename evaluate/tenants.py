"""Trials as a service meets them: one recording against a template, among a tenant's other templates.

A service compares a recording with a template of some 20 s, and centres both on the tenant's other people. A
calibration on pairs of single recordings says little about that. So each trial of a template list is scored
in tenants of several sizes, and with the bands and lengths that the caller embedded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sayso.domain.evidence import BANDS, PAIRS, Floats, LlrModel, Sides, pair_numbers
from sayso.evaluate.arrays import BoolArray, FloatArray, IntArray

TENANT_SIZES = (1, 5, 20, 100, 400)
_TRIALS_AT_ONCE = 4096  # trials whose vectors are centred together
_STRANGERS_PER_TENANT = 400  # at most; each searches one drawn tenant once


@dataclass(frozen=True, eq=False)
class Voices:
    """Unit vectors `[n, dim]`, and in `sides` the net speech, number of recordings and band of each."""

    vectors: npt.NDArray[np.float32]
    sides: Sides

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.sides):
            raise ValueError(f"{len(self.sides)} voices need vectors [n, dim], not {self.vectors.shape}")

    @classmethod
    def joined(cls, parts: Sequence[Voices]) -> Voices:
        """Concatenate several sets, in their order."""
        return cls(np.concatenate([p.vectors for p in parts]), _joined([p.sides for p in parts]))


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Trials under one condition.

    `labels` `[trials]` is true for a target. `template` and `probe` `[trials]` are rows of `templates` and
    `probes`. `groups` `[templates]` numbers each template's group: one corpus, or one customer. Tenants are
    drawn within a group, and every group has the same weight. `condition` names the bands of templates and
    probes, such as `wide/narrow`, and `lengths` how much speech they have, such as `probe of 2 s`.
    """

    templates: Voices
    probes: Voices
    labels: BoolArray
    template: IntArray
    probe: IntArray
    groups: IntArray
    condition: str
    names: tuple[str, ...] = ()  # of the groups, by number
    lengths: str = ""

    def name(self, group: int) -> str:
        """Return a group's name, or its number as text if the groups have no names."""
        return self.names[group] if self.names else str(group)


@dataclass(frozen=True, eq=False)
class Evidence:
    """What a calibration is fitted to. Every field has one entry for each trial.

    `score` is the plain cosine and `centred` the one after centring on the tenant; `others` is how many other
    people the tenant had.
    """

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
        """Return the features `[trials, features]` that the regressions of `model` weigh."""
        return model.design(self.score, self.centred, self.templates, self.probes, self.others)

    def llrs(self, model: LlrModel) -> Floats:
        """Return the LLR `[trials]` that `model` gives each trial."""
        return model.llrs(self.score, self.centred, self.templates, self.probes, self.others)

    def pairs(self) -> npt.NDArray[np.str_]:
        """The bands of each trial, such as `wide/narrow`, `[trials]`."""
        return np.array(PAIRS)[pair_numbers(self.templates, self.probes)]

    def take(self, rows: IntArray | BoolArray) -> Evidence:
        """Select trials by index or mask; an index may occur more than once."""
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
        """Concatenate the trials of several conditions."""
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
    """Keep only the templates of these groups and their trials. All probes stay."""
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
        c.lengths,
    )


def centres(conditions: Sequence[Comparisons]) -> dict[str, FloatArray]:
    """Return the mean vector `[dim]` of each band: the mean over groups of each group's mean.

    A band's mean is taken from the first condition with recordings of that band: from its templates if any
    are of the band, else from its probes. A band without recordings gets the other band's mean. ValueError
    if there are no recordings at all.
    """
    by_band: dict[str, FloatArray] = {}
    for band in BANDS:
        means = []
        for c in conditions:
            group_of_probe = np.full(len(c.probes.sides), -1)
            group_of_probe[c.probe] = c.groups[c.template]
            for voices, groups in ((c.templates, c.groups), (c.probes, group_of_probe)):
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
            by_band[band] = np.mean(means, axis=0)
    if not by_band:
        raise ValueError("there are no voices to calibrate on")
    # A band without recordings: how it differs is unknown, so the other band stands in.
    return {band: by_band.get(band, next(iter(by_band.values()))) for band in BANDS}


def gather(model: LlrModel, c: Comparisons, sizes: Sequence[int] = TENANT_SIZES, seed: int = 0) -> Evidence:
    """Score every trial once for each tenant size; of `model` only the centres and their weight are used.

    A tenant is the claimed speaker and `size - 1` others drawn from the same group, or the whole group if it
    is smaller. Both vectors are centred on the others; the claimed speaker is left out of that mean.
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
    """Subtract from each vector the centre of its band; returns `[n, dim]`."""
    centre = np.where(voices.sides.narrow[:, None], model.centre("narrow"), model.centre("wide"))
    differences: FloatArray = voices.vectors.astype(np.float64) - centre
    return differences


def _tenants(
    differences: FloatArray, groups: IntArray, size: int, rng: np.random.Generator
) -> tuple[FloatArray, IntArray]:
    """Draw up to `size - 1` others of each template's group; returns sums `[templates, dim]` and numbers."""
    totals, counts = np.zeros_like(differences), np.zeros(len(differences), np.int64)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        for t in members:
            chosen = rng.permutation(members[members != t])[: size - 1]
            counts[t] = len(chosen)
            totals[t] = differences[chosen].sum(axis=0)
    return totals, counts


def _cosines(model: LlrModel, c: Comparisons, shifts: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return plain and centred cosines `[trials]`; `shifts` `[templates, dim]` is subtracted by template."""
    score, centred = np.empty(len(c.labels)), np.empty(len(c.labels))
    templates, probes = _differences(model, c.templates) - shifts, _differences(model, c.probes)
    for start in range(0, len(c.labels), _TRIALS_AT_ONCE):
        part = slice(start, start + _TRIALS_AT_ONCE)
        t, p = c.template[part], c.probe[part]
        score[part] = np.einsum("td,td->t", c.templates.vectors[t], c.probes.vectors[p], dtype=np.float64)
        centred[part] = _rowwise(templates[t], probes[p] - shifts[t])
    return np.clip(score, -1.0, 1.0), centred


def _rowwise(a: FloatArray, b: FloatArray) -> FloatArray:
    """Return the cosines of `a` and `b` `[n, dim]`, row by row; 0 where a row is all zeros."""
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines: FloatArray = np.clip(np.einsum("td,td->t", a, b) / np.maximum(lengths, 1e-12), -1.0, 1.0)
    return cosines


def balanced(evidence: Evidence, each: int = 4000, seed: int = 0) -> Evidence:
    """Draw `each` targets and `each` non-targets of every group and condition, with replacement.

    So every corpus and every band has the same weight, whatever its size. A group and condition without both
    classes is left out. ValueError if none has both.
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
    """Measure how often a stranger's search finds a match, by tenant size.

    Each value is the rates `[thresholds]` and the number of searches. A stranger is a probe of the tenant's
    group whose own speaker is not in the tenant. Sizes larger than every group are left out.
    """
    rng = np.random.default_rng(seed)
    owner = np.full(len(c.probes.sides), -1)
    owner[c.probe[c.labels]] = c.template[c.labels]
    group_of_probe = np.full(len(c.probes.sides), -1)  # the group a probe is compared in
    group_of_probe[c.probe] = c.groups[c.template]
    rates: dict[int, tuple[FloatArray, int]] = {}
    for size in sizes:
        best: list[FloatArray] = []
        for group in np.unique(c.groups):
            members = np.flatnonzero(c.groups == group)
            if len(members) < size:
                continue
            for _ in range(repeats):
                tenant = rng.permutation(members)[:size]
                strangers = np.flatnonzero((group_of_probe == group) & ~np.isin(owner, tenant))
                if len(strangers):
                    best.append(
                        _best_llrs(model, c, tenant, rng.permutation(strangers)[:_STRANGERS_PER_TENANT])
                    )
        if best:
            highest = np.concatenate(best)
            rates[size] = (np.mean(highest[:, None] >= thresholds, axis=0), len(highest))
    return rates


def _best_llrs(model: LlrModel, c: Comparisons, tenant: IntArray, probes: IntArray) -> FloatArray:
    """Return each probe's highest LLR `[probes]` against the templates of a tenant."""
    templates, differences = _differences(model, c.templates)[tenant], _differences(model, c.probes)[probes]
    probe_vectors = c.probes.vectors[probes].astype(np.float64)
    sides = c.probes.sides.take(probes)
    best = np.full(len(probes), -np.inf)
    counts = np.full(len(probes), len(tenant) - 1)
    for row, t in enumerate(tenant):
        shift = model.shift(templates.sum(axis=0) - templates[row], len(tenant) - 1)
        a = np.broadcast_to(templates[row] - shift, differences.shape)
        centred = _rowwise(a, differences - shift)
        score = probe_vectors @ c.templates.vectors[t].astype(np.float64)
        own = c.templates.sides.take(np.full(len(probes), t))
        best = np.maximum(best, model.llrs(score, centred, own, sides, counts))
    return best
