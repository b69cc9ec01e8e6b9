"""The tree of errors is the one drawn at the top of its file, and hints name what was meant."""

import pytest

from tts import errors


def drawn() -> dict[str, str]:
    """Child to parent, as the picture in the docstring shows."""
    parents: dict[str, str] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        if not line.startswith("    "):
            continue
        bare = line.lstrip(" │├└─")
        depth = (len(line) - len(bare) - 4) // 4
        name = bare.split()[0]
        path = [*path[:depth], name]
        if depth:
            parents[name] = path[depth - 1]
    return parents


def test_the_drawn_tree_is_the_tree():
    real = {name: cls.__mro__[1].__name__ for name, cls in vars(errors).items() if isinstance(cls, type)}
    assert real.pop("MynahError") == "Exception"
    assert drawn() == real


@pytest.mark.parametrize(
    ("name", "base"), [("InputError", ValueError), ("ShapeError", ValueError), ("MissingPackageError", ImportError)]
)
def test_an_error_is_also_what_python_calls_it(name, base):
    assert issubclass(getattr(errors, name), base)
    assert issubclass(getattr(errors, name), errors.MynahError)


def test_nearest_names_what_was_meant_and_nothing_far():
    assert errors.nearest("stesp", ["steps", "guidance"]) == " (did you mean 'steps'?)"
    assert errors.nearest("qqq", ["steps", "guidance"]) == ""
    assert errors.nearest("a", []) == ""
