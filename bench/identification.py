"""How often a stranger is matched: searches of several sizes over HTTP, each corpus a tenant of its own.

    python -m sayso.bench.identification nested --trials LIST --map MAP --root FOLDER [--sizes 10 100]

People are drawn from the templates of a corpus and enrolled, and the corpus's probes are sent to identify,
those of the enrolled and those of everybody else. Where no corpus has as many people, all are one tenant.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sayso.bench.decisions import REFUSED, enrol, parser_of, service_settings
from sayso.bench.server import ServerProcess
from sayso.evaluate.trials import TemplateTrials, corpora, read_template_trials

SIZES = (10, 100, 400)
_MOST_PROBES = 400  # of each kind in a tenant


@dataclass(frozen=True)
class Searches:
    """The searches of one tenant, as shares of those that were decided.

    `strangers_matched` is the false positive identification rate (FPIR) that was had, `fpir` the one that was
    promised. `own_missed` counts enrolled people who were not matched, or matched with somebody else.
    """

    corpus: str
    people: int
    strangers: int
    strangers_matched: float
    own: int
    own_missed: float
    fpir: float | None


def measure(
    model: str,
    trials: TemplateTrials,
    root: Path,
    sizes: Sequence[int] = SIZES,
    progress: Callable[[str, int, int], None] = lambda corpus, done, total: None,
) -> list[Searches]:
    """Enrol and search over HTTP, one server a tenant. `model` names a shipped model, or is a model file."""
    rng = np.random.default_rng(0)
    settings = service_settings(model)
    rows = []
    for size in sizes:
        for corpus, templates in _tenants(trials, size).items():
            people = rng.permutation(templates)[:size].tolist()
            with ServerProcess(cores=(), **settings) as server:
                enrolled = enrol(server, trials, root, people)
                own, strangers = _probes(trials, np.array(templates), list(enrolled), rng)
                probes = [*own, *strangers]
                answers: list[dict[str, Any] | None] = []
                with ThreadPoolExecutor(2) as pool:
                    asked = pool.map(lambda probe: _identify(server, root / trials.recordings[probe]), probes)
                    for done, answer in enumerate(asked, start=1):
                        answers.append(answer)
                        progress(corpus, done, len(probes))
            rows.append(_counted(corpus, enrolled, own, dict(zip(probes, answers, strict=True))))
    return rows


def _tenants(trials: TemplateTrials, size: int) -> dict[str, list[int]]:
    """Templates by corpus, of the corpora with more than `size`; all as one if no corpus has so many."""
    names = corpora(trials.recordings)
    by_corpus: dict[str, list[int]] = {}
    for number, template in enumerate(trials.templates):
        by_corpus.setdefault(str(names[template.recordings[0]]), []).append(number)
    large = {corpus: own for corpus, own in by_corpus.items() if len(own) > size}
    return large or {"all": list(range(len(trials.templates)))}


def _probes(
    trials: TemplateTrials, corpus: np.ndarray[Any, Any], enrolled: list[int], rng: np.random.Generator
) -> tuple[dict[int, int], list[int]]:
    """The probes of the enrolled, each with its template, and those of others in the corpus."""
    of_template, probe, label = trials.template, trials.probe, trials.labels
    theirs = label & np.isin(of_template, enrolled)
    own = dict(zip(probe[theirs].tolist(), of_template[theirs].tolist(), strict=True))
    strangers = np.setdiff1d(probe[np.isin(of_template, corpus)], list(own))
    chosen = sorted(rng.permutation(sorted(own))[:_MOST_PROBES].tolist())
    return {p: own[p] for p in chosen}, sorted(rng.permutation(strangers)[:_MOST_PROBES].tolist())


def _identify(server: ServerProcess, recording: Path) -> dict[str, Any] | None:
    with server.connection() as caller:
        status, answer = caller.call("POST", "/v1/identify", recording.read_bytes())
    if status not in (200, REFUSED):
        raise RuntimeError(f"identify was answered {status}: {answer}")
    return answer if status == 200 else None


def _counted(
    corpus: str, enrolled: dict[int, str], own: dict[int, int], answers: dict[int, dict[str, Any] | None]
) -> Searches:
    decided = {probe: answer for probe, answer in answers.items() if answer is not None}
    strangers = [a["decision"] == "match" for probe, a in decided.items() if probe not in own]
    missed = [a["speaker_id"] != enrolled[own[probe]] for probe, a in decided.items() if probe in own]
    stated = [a["threshold"]["fpir"] for a in decided.values() if a["threshold"]["fpir"] is not None]
    return Searches(
        corpus,
        len(enrolled),
        len(strangers),
        sum(strangers) / max(1, len(strangers)),
        len(missed),
        sum(missed) / max(1, len(missed)),
        float(np.mean(stated)) if stated else None,
    )


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="people enrolled")
    asked = parser.parse_args()
    rows = measure(asked.model, read_template_trials(asked.trials, asked.map), asked.root, asked.sizes)
    print("corpus               people  strangers matched (promised)  own missed")
    for row in rows:
        promised = "none" if row.fpir is None else f"{row.fpir:.1%}"
        print(
            f"{row.corpus:<20} {row.people:>6}  {row.strangers:>5} {row.strangers_matched:>8.2%} ({promised})"
            f"  {row.own:>5} {row.own_missed:>7.2%}"
        )
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
