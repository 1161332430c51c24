"""The registry of quantization methods. Each method has one file and one line here.

A method quantizes each row of a weight independently, so a caller may pass any range of rows. It
may use statistics of the weight's inputs. Work that all rows share is done once, by `prepare`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from glm_quantize.codes import FloatArray, QuantizedRows
from glm_quantize.errors import QuantizationError
from glm_quantize.methods.hqq import half_quadratic
from glm_quantize.methods.rtn import round_to_nearest
from glm_quantize.methods.rtn_search import search_scales
from glm_quantize.scheme import Scheme
from glm_quantize.statistics import InputStatistics

RowQuantizer = Callable[[FloatArray], QuantizedRows]
Prepare = Callable[[Scheme, InputStatistics | None, str], RowQuantizer]


@dataclass(frozen=True)
class Method:
    """One quantization method.

    Attributes:
        prepare: takes a scheme, statistics of the inputs and a PyTorch device, and returns a
            function that quantizes rows [N, C].
        is_calibrated: True if the method needs statistics; other methods may use them.
        is_folding: True if the input channels are scaled first, as in AWQ. The caller folds the
            inverse scales into the preceding weight.
    """

    prepare: Prepare
    is_calibrated: bool = False
    is_folding: bool = False

    def __call__(
        self,
        weight: FloatArray,
        scheme: Scheme,
        statistics: InputStatistics | None = None,
        device: str = "cpu",
    ) -> QuantizedRows:
        """Prepare the method and quantize rows [N, C] float32."""
        return self.prepare(scheme, statistics, device)(weight)


def _search(scheme: Scheme, statistics: InputStatistics | None, _device: str) -> RowQuantizer:
    importance = None if statistics is None else statistics.mean_squares
    return lambda weight: search_scales(weight, scheme, importance)


def _gptq(scheme: Scheme, statistics: InputStatistics | None, device: str) -> RowQuantizer:
    from glm_quantize.methods.gptq import prepare_gptq  # noqa: PLC0415 - torch is slow to import

    assert statistics is not None
    return prepare_gptq(scheme, statistics, device)


def _gptq_refine(scheme: Scheme, statistics: InputStatistics | None, device: str) -> RowQuantizer:
    from glm_quantize.methods.refine import prepare_gptq_refine  # noqa: PLC0415 - as above

    assert statistics is not None
    return prepare_gptq_refine(scheme, statistics, device)


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "rtn": Method(lambda scheme, _, __: lambda weight: round_to_nearest(weight, scheme)),
        "rtn-search": Method(_search),
        "hqq": Method(lambda scheme, _, __: lambda weight: half_quadratic(weight, scheme)),
        "awq": Method(_search, is_calibrated=True, is_folding=True),
        "gptq": Method(_gptq, is_calibrated=True),
        "gptq-refine": Method(_gptq_refine, is_calibrated=True),
        "awq-gptq": Method(_gptq_refine, is_calibrated=True, is_folding=True),
    }
)


def find_method(name: str) -> Method:
    """Return the method with this name.

    Raises:
        QuantizationError: there is no such method; the message lists the names.
    """
    if name not in METHODS:
        raise QuantizationError(
            f"there is no method {name!r}; choose one of {', '.join(sorted(METHODS))}."
        )
    return METHODS[name]
