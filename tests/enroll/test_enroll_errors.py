"""The exception tree keeps its promises to whoever maps it to answers."""

from sayso.enroll import errors
from sayso.enroll.errors import EnrollError


def tree(base: type[EnrollError]) -> list[type[EnrollError]]:
    return [base, *(found for child in base.__subclasses__() for found in tree(child))]


def test_codes_are_unique_and_snake_case() -> None:
    codes = [error.code for error in tree(EnrollError)]
    assert len(codes) == len(set(codes))
    assert all(code.replace("_", "").isalpha() and code == code.lower() for code in codes)


def test_each_error_is_named_in_the_drawing() -> None:
    drawing = errors.__doc__ or ""
    assert [error.__name__ for error in tree(EnrollError) if error.__name__ not in drawing] == []


def test_messages_say_what_happened_and_what_to_do() -> None:
    error = errors.SpeakerNotEnrolled("alice", 3.25)
    assert error.remaining_speech_s == 3.25
    assert str(error) == 'Speaker "alice" needs 3.2 s more speech. Add enrolment recordings, then try again.'
    assert '"a", "b"' in str(errors.SpeakerNotFound("a", "b"))
