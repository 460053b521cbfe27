"""A maximum that LLVM turns into vector code.

`max` compiles to a comparison and a selection, which LLVM does not take for a maximum in a loop: the loop stays scalar,
five to ten times slower. The intrinsic `llvm.maxnum` it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, overload

__all__ = ["larger"]


@intrinsic
def _maxnum(_typing: Any, _a: Any, _b: Any) -> Any:  # noqa: ANN401 - numba's own types
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:  # noqa: ANN401
        double = ir.DoubleType()
        maximum = ir.FunctionType(double, [double, double])
        function = builder.module.declare_intrinsic("llvm.maxnum", [double], maximum)
        return builder.call(function, args, fastmath=("fast",))

    return types.float64(types.float64, types.float64), generate


def larger(a: float, b: float) -> float:
    """Return the larger of two numbers, neither of them NaN or infinite."""
    return max(a, b)


@overload(larger)
def _larger(a: float, b: float) -> Callable[[float, float], float]:  # noqa: ARG001 - named as those of `larger`
    def compiled(a: float, b: float) -> float:
        return _maxnum(a, b)  # type: ignore[call-arg]

    return compiled
