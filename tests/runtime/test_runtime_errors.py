"""The exception tree keeps its promises to whoever maps it to answers."""

from sayso.runtime import errors
from sayso.runtime.errors import RuntimeFault


def tree(base: type[RuntimeFault]) -> list[type[RuntimeFault]]:
    """The room's own errors: the command line and the benchmarks derive theirs from them."""
    own = [child for child in base.__subclasses__() if child.__module__ == errors.__name__]
    return [base, *(found for child in own for found in tree(child))]


def test_codes_are_unique_and_snake_case() -> None:
    codes = [error.code for error in tree(RuntimeFault)]
    assert len(codes) == len(set(codes))
    assert all(code.replace("_", "").isalpha() and code == code.lower() for code in codes)


def test_each_error_is_drawn_under_its_base() -> None:
    path: dict[int, str] = {}
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        name = line.lstrip("|`- ").split(" ")[0]
        if name.isidentifier() and name[0].isupper() and issubclass(getattr(errors, name, int), RuntimeFault):
            depth = line.index(name) // 4
            path[depth] = name
            drawn[name] = path.get(depth - 1)
    expected = {error.__name__: error.__base__.__name__ for error in tree(RuntimeFault)[1:]}
    assert drawn == expected | {"RuntimeFault": None}
