"""The registry of methods: how codes are chosen. One file each, one line here.

A method is a function `(weight [N, C] float32, scheme) -> QuantizedRows` that looks at whole rows
and at nothing else, so that the writer may hand it any run of rows.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from glm_quantize.codes import FloatArray, QuantizedRows
from glm_quantize.errors import QuantizationError
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.scheme import Scheme

Method = Callable[[FloatArray, Scheme], QuantizedRows]

METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "rtn": round_to_nearest,
    }
)


def find_method(name: str) -> Method:
    """The method of that name.

    Raises:
        QuantizationError: no such method; the message lists those there are.
    """
    if name not in METHODS:
        raise QuantizationError(f"no method {name!r}; choose one of {', '.join(sorted(METHODS))}.")
    return METHODS[name]
