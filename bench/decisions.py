"""What a service's decisions are worth: trials of templates made over HTTP, each corpus a tenant of its own.

    python -m sayso.bench.decisions nested --trials LIST --map MAP --root FOLDER [--telephone] [--json FILE]

Every template is enrolled with its recordings and every probe is sent to verify, as an application would.
What is counted is what the service answered, beside the error rates that its answers stated.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile as sf

from sayso.bench.server import ServerProcess
from sayso.evaluate.trials import TemplateTrials, corpora, read_template_trials
from sayso.runtime.audio import SAMPLE_RATE, Samples, decode
from sayso.service.settings import only_models
from sayso.train.waveform import telephone

_LONGEST_S = 3600.0
REFUSED = 422  # too little speech, mostly
_SETTINGS = {
    "SAYSO_ENROLL_REQUIRED_SPEECH_S": "1.5",
    "SAYSO_ENROLL_MIN_SPEECH_S": "0.3",
    "SAYSO_VERIFY_REQUIRED_SPEECH_S": "0.5",
    "SAYSO_ATTEMPTS_BEFORE_DELAY": "0",
    "SAYSO_ATTEMPTS_BEFORE_LOCK": "0",
    "SAYSO_REPLAY_DAYS": "0",
}


@dataclass(frozen=True)
class Row:
    """The answers about one corpus: shares of all that were decided, and the means of what they stated.

    `inconclusive` answers count as refusals of own speakers and as no acceptance of strangers.
    """

    corpus: str
    people: int
    targets: int
    nontargets: int
    false_accepts: float
    own_refused: float
    stated_fmr: float | None
    stated_fnmr: float | None
    inconclusive: float
    without_rates: float


def measure(
    model: str,
    trials: TemplateTrials,
    root: Path,
    operating_point: str,
    narrow: bool,
    progress: Callable[[str, int, int], None] = lambda corpus, done, total: None,
) -> list[Row]:
    """Enrol and verify over HTTP, one server a corpus; with `narrow` the probes pass a telephone line.

    `model` names a shipped model, or is the path of a model file.
    """
    names = corpora(trials.recordings)
    of_template = np.array([names[template.recordings[0]] for template in trials.templates])
    settings = service_settings(model) | {"SAYSO_OPERATING_POINT": operating_point}
    rows = []
    for corpus in np.unique(of_template).tolist():
        chosen = np.flatnonzero(of_template[trials.template] == corpus)
        with ServerProcess(cores=(), **settings) as server:
            rows.append(_corpus(server, corpus, trials, root, chosen, narrow, progress))
    return rows


def service_settings(model: str) -> dict[str, str]:
    """The settings of a service whose answers are counted: only `model`'s, a shipped one's name or a file."""
    path = Path(model)
    if not path.is_file():
        return _SETTINGS | {"SAYSO_DEFAULT_MODEL": model}
    name = f"{path.stem}-file"  # a shipped model's name stays with that
    return _SETTINGS | {"SAYSO_DEFAULT_MODEL": name, "SAYSO_MODELS": json.dumps(only_models({name: path}))}


def _corpus(
    server: ServerProcess,
    corpus: str,
    trials: TemplateTrials,
    root: Path,
    chosen: np.ndarray[Any, np.dtype[np.int64]],
    narrow: bool,
    progress: Callable[[str, int, int], None],
) -> Row:
    enrolled = enrol(server, trials, root, sorted(set(trials.template[chosen].tolist())))
    kept = [trial for trial in chosen.tolist() if trials.template[trial] in enrolled]
    probes: dict[int, bytes] = {}

    def verify(trial: int) -> dict[str, Any] | None:
        probe = int(trials.probe[trial])
        if probe not in probes:
            probes[probe] = _sent(root / trials.recordings[probe], narrow, probe)
        speaker = enrolled[int(trials.template[trial])]
        with server.connection() as caller:
            status, answer = caller.call("POST", f"/v1/speakers/{speaker}/verify", probes[probe])
        if status not in (200, REFUSED):
            raise RuntimeError(f"verify was answered {status}: {answer}")
        return answer if status == 200 else None

    answers = []
    with ThreadPoolExecutor(2) as pool:
        for done, answer in enumerate(pool.map(verify, kept), start=1):
            answers.append(answer)
            progress(corpus, done, len(kept))
    decided = [(bool(trials.labels[t]), a) for t, a in zip(kept, answers, strict=True) if a is not None]
    own = [a["decision"] for label, a in decided if label]
    strangers = [a["decision"] for label, a in decided if not label]
    stated = [a["threshold"] for _, a in decided if a["threshold"]["fmr"] is not None]
    return Row(
        corpus,
        len(enrolled),
        len(own),
        len(strangers),
        sum(d == "accept" for d in strangers) / max(1, len(strangers)),
        sum(d != "accept" for d in own) / max(1, len(own)),
        float(np.mean([t["fmr"] for t in stated])) if stated else None,
        float(np.mean([t["fnmr"] for t in stated])) if stated else None,
        sum(a["decision"] == "inconclusive" for _, a in decided) / max(1, len(decided)),
        1.0 - len(stated) / max(1, len(decided)),
    )


def enrol(server: ServerProcess, trials: TemplateTrials, root: Path, templates: list[int]) -> dict[int, str]:
    """Enrol each template as a speaker; returns the ids of those who are enrolled afterwards."""
    enrolled = {}
    for template in templates:
        speaker = f"s{template}"
        with server.connection() as caller:
            caller.expect("POST", "/v1/speakers", json.dumps({"id": speaker}).encode())
            for recording in trials.templates[template].recordings:
                data = (root / trials.recordings[recording]).read_bytes()
                status, answer = caller.call("POST", f"/v1/speakers/{speaker}/enrollments", data)
                if status == 201 and answer["status"] == "enrolled":
                    enrolled[template] = speaker
    return enrolled


def _sent(file: Path, narrow: bool, number: int) -> bytes:
    """The bytes that are sent: the file's own, or a mu-law or A-law WAV of 8 kHz, or GSM, by turns."""
    if not narrow:
        return file.read_bytes()
    codec = ("ULAW", "ALAW", "GSM610")[number % 3]
    line: Samples = telephone(decode(file.read_bytes(), _LONGEST_S).samples, codec)
    buffer = io.BytesIO()
    sf.write(buffer, np.clip(line, -1.0, 1.0), SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return buffer.getvalue()


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """A command's arguments: a model, a list of template trials, and a file for the rows."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="a shipped model's name, or a model file")
    parser.add_argument("--trials", type=Path, required=True)
    parser.add_argument("--map", type=Path, required=True)
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--json", type=Path, help="write the rows to this file too")
    return parser


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--operating-point", default="fmr=0.01")
    parser.add_argument("--telephone", action="store_true", help="send the probes through a telephone line")
    asked = parser.parse_args()
    trials = read_template_trials(asked.trials, asked.map)
    rows = measure(asked.model, trials, asked.root, asked.operating_point, asked.telephone)
    print("corpus               people  trials        false accepts (stated)  own refused (stated)")
    for row in rows:
        stated = ["none" if value is None else f"{value:.2%}" for value in (row.stated_fmr, row.stated_fnmr)]
        print(
            f"{row.corpus:<20} {row.people:>6}  {row.targets:>5} + {row.nontargets:<6} "
            f"{row.false_accepts:>7.2%} ({stated[0]})  {row.own_refused:>14.2%} ({stated[1]})"
        )
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
