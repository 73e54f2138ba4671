"""Time as this room writes it: ISO-8601, UTC, milliseconds, so that text order is time order."""

from datetime import UTC, datetime


def stamp(moment: datetime) -> str:
    """Write an aware moment as `2026-01-31T12:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def now() -> datetime:
    """Return the present moment, aware, in UTC."""
    return datetime.now(UTC)
