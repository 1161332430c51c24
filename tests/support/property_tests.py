"""How many examples a property test tries: a few by default, many in `make test-exhaustive`."""

from collections.abc import Callable
from typing import TypeVar

import pytest
from hypothesis import settings

THOROUGH = "thorough"  # the profile of `make test-exhaustive`
_SHARE = 5

_Test = TypeVar("_Test", bound=Callable[..., None])


def examples(count: int) -> Callable[[_Test], _Test]:
    """Try `count` examples, and a fifth of them without the profile `thorough`.

    Hypothesis chooses other examples in each run.
    """
    is_thorough = settings.get_current_profile_name() == THOROUGH
    chosen = settings(max_examples=count if is_thorough else count // _SHARE)

    def decorate(test: _Test) -> _Test:
        return pytest.mark.sampled(chosen(test))

    return decorate
