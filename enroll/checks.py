"""Does the store agree with itself? Every sealed value opens, and every template is the mean it should be."""

import math

import numpy as np

from sayso.enroll import templates
from sayso.enroll.errors import SealBroken
from sayso.enroll.secrets.transaction import Transaction, recording_context

_ROUNDING = 1e-6


def template_problems(transaction: Transaction) -> list[str]:
    """Return what is wrong, one line each; empty when all is well."""
    problems = []
    rounding = _ROUNDING if transaction.seals_templates else templates.HALF_ROUNDING
    expected = transaction.execute(
        "SELECT speaker, tenant, model_sha256, COUNT(*) AS enrollments,"
        " SUM(enrollments.net_speech_s) AS speech FROM embeddings"
        " JOIN enrollments ON enrollments.number = enrollment JOIN speakers ON speakers.number = speaker"
        " GROUP BY speaker, tenant, model_sha256"
    ).fetchall()
    stored = {
        (row["speaker"], row["model_sha256"]): row for row in transaction.execute("SELECT * FROM templates")
    }
    for row in expected:
        number, model = row["speaker"], row["model_sha256"]
        name = f"tenant {row['tenant']}, speaker number {number}, model {model[:12]}"
        found = stored.pop((number, model), None)
        try:
            mean = templates.mean_template(transaction, number, model)
            if found is None:
                if mean is not None:
                    problems.append(f"{name}: the template is missing")
                continue
            vector = templates.read_template(transaction, number, model, found[templates.column(transaction)])
        except SealBroken as error:
            problems.append(f"{name}: {error}")
            continue
        same = mean is not None and np.allclose(mean, vector, atol=rounding)
        counted = found["enrollments"] == row["enrollments"]
        if not (same and counted and math.isclose(found["net_speech_s"], row["speech"])):
            problems.append(f"{name}: the template is not that of the enrolments")
    problems += [f"speaker number {number}: a template without enrolments" for number, _ in stored]
    for row in transaction.execute("SELECT enrollment, sealed FROM recordings"):
        try:
            transaction.open(recording_context(row["enrollment"]), row["sealed"])
        except SealBroken as error:
            problems.append(str(error))
    return problems


def rebuild_templates(transaction: Transaction) -> int:
    """Make every template again; returns of how many speakers. Raises SealBroken."""
    speakers = transaction.execute("SELECT number, tenant FROM speakers").fetchall()
    for row in speakers:
        templates.recompute(transaction, row["tenant"], row["number"])
    transaction.execute("UPDATE tenants SET revision = revision + 1")
    transaction.execute(
        "UPDATE speakers SET revision = (SELECT revision FROM tenants WHERE tenants.tenant = speakers.tenant)"
    )
    return len(speakers)
