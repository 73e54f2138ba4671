"""What a caller may write into a speaker or an enrolment. Everything else raises InvalidField."""

import json
import math
import re
import secrets
import unicodedata
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from sayso.enroll import clock
from sayso.enroll.errors import InvalidField
from sayso.enroll.types import NewEnrollment

MAX_NAME = 200
MAX_GROUPS = 32
MAX_METADATA_BYTES = 8 * 1024
MAX_METADATA_DEPTH = 16
_CLOCK_SKEW = timedelta(minutes=5)  # between the caller's clock and ours
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,127}")
_ID_RULE = "use 1 to 128 of A-Z a-z 0-9 . _ @ - and start with a letter or digit"


def new_id(prefix: str) -> str:
    """Make an unguessable id such as `spk_` and 20 hex digits."""
    return f"{prefix}_{secrets.token_hex(10)}"


def checked_id(field: str, value: str) -> str:
    """Accept an id that is safe in a URL path, a log line and a JSON string as it stands."""
    if not _ID.fullmatch(value):
        raise InvalidField(field, _ID_RULE)
    return value


def is_id(value: str) -> bool:
    """Tell whether a value could be an id at all."""
    return _ID.fullmatch(value) is not None


def checked_name(value: str | None) -> str | None:
    """Accept None or 1 to 200 characters without control characters."""
    if value is None:
        return None
    return checked_text("name", value)


def checked_text(field: str, value: str) -> str:
    """Accept 1 to 200 characters without control characters."""
    if not value.strip() or len(value) > MAX_NAME:
        raise InvalidField(field, f"use 1 to {MAX_NAME} characters, or leave it out")
    if any(unicodedata.category(character) in {"Cc", "Cs"} for character in value):
        raise InvalidField(field, "leave out control characters")
    return value


def checked_groups(values: Iterable[str]) -> tuple[str, ...]:
    """Accept up to 32 group names; returned sorted, each once."""
    if isinstance(values, str):
        raise InvalidField("groups", "give a list of names")
    groups = sorted({checked_id("groups", value) for value in values})
    if len(groups) > MAX_GROUPS:
        raise InvalidField("groups", f"a speaker may be in at most {MAX_GROUPS}")
    return tuple(groups)


def metadata_json(value: Mapping[str, object] | None) -> str:
    """Write a JSON object of at most 8 KiB and 16 levels; None stands for an empty one."""
    if value is not None and not isinstance(value, Mapping):
        raise InvalidField("metadata", "give a JSON object")
    if _deeper_than(value, MAX_METADATA_DEPTH):  # what is stored must always be readable again
        raise InvalidField("metadata", f"nest at most {MAX_METADATA_DEPTH} levels")
    try:
        text = json.dumps(dict(value or {}), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidField(
            "metadata", "give a JSON object of strings, finite numbers, lists and objects"
        ) from error
    if size > MAX_METADATA_BYTES:
        raise InvalidField(
            "metadata", f"{size} bytes of JSON is too much; at most {MAX_METADATA_BYTES} are kept"
        )
    return text


def _deeper_than(value: object, levels: int) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, (list, tuple)):
        return False
    return levels == 0 or any(_deeper_than(item, levels - 1) for item in value)


def consent_json(value: Mapping[str, object] | None) -> str | None:
    """Accept `given_at`, an aware datetime that is past, and if wanted a `reference` of 200 characters."""
    if value is None:
        return None
    given_at, reference = value.get("given_at"), value.get("reference")
    if not isinstance(given_at, datetime) or given_at.tzinfo is None:
        raise InvalidField("consent", "say when it was given: `given_at`, with the time zone")
    if given_at > clock.now() + _CLOCK_SKEW:
        raise InvalidField("consent", "`given_at` lies in the future")
    if not value.keys() <= {"given_at", "reference"}:
        raise InvalidField("consent", "it has `given_at` and `reference`, nothing else")
    if reference is not None:
        if not isinstance(reference, str):
            raise InvalidField("consent", "`reference` is text")
        reference = checked_text("consent", reference)
    return json.dumps({"given_at": clock.stamp(given_at), "reference": reference}, ensure_ascii=False)


def checked_expiry(value: datetime | None) -> str | None:
    """Accept an aware moment that is still to come, or None for never."""
    if value is None:
        return None
    if value.tzinfo is None:
        raise InvalidField("expires_at", "give the time zone too")
    if value <= clock.now():
        raise InvalidField("expires_at", "it has passed: delete the speaker instead")
    return clock.stamp(value)


def check_report(new: NewEnrollment) -> None:
    """Refuse a speech report that would poison the speaker's sums: non-finite or negative values."""
    for field in ("net_speech_s", "duration_s", "clipping"):
        value = getattr(new, field)
        if not (math.isfinite(value) and value >= 0):
            raise InvalidField(field, "give a finite number, zero or more")
    if new.snr_db is not None and not math.isfinite(new.snr_db):
        raise InvalidField("snr_db", "give a finite number, or null when it is unknown")
