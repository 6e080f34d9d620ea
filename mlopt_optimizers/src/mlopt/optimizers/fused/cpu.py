"""The lanes of the CPU, one a system, with an exponential and a logarithm that compile to vector instructions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from mlopt.optimizers.fused import device_math
from mlopt.optimizers.fused.inlined import inlined

#: every function of a kernel; NaN and infinity keep their meaning, sums may be taken in another order
FAST = {"reassoc", "contract", "nsz", "arcp", "afn"}
# inlined all: see the invariant of `mlopt.optimizers.fused.compiled`
view = jit = inlined(fastmath=FAST, error_model="numpy", nogil=True)
# the order of operations matters in range reductions
_exact = inlined(fastmath={"contract"}, error_model="numpy", nogil=True)


#: what Python calls
entry = njit(fastmath=FAST, error_model="numpy", nogil=True, cache=True)


@jit
def team() -> int:
    """Return the number of this team of lanes. On the CPU a team gets a range of systems of its own."""
    return 0


@jit
def teams() -> int:
    """Return the number of teams that share the systems."""
    return 1


@jit
def own(array: Any, s: Any) -> Any:
    """Return the space that a thread has for itself, whichever system it works on."""
    return array


@jit
def lane() -> int:
    """See `mlopt.core.kernels.lanes`, also for the functions below."""
    return 0


@jit
def lanes() -> int:
    """Return one."""
    return 1


@jit
def sync() -> None:
    """Return at once, because there is nothing to wait for."""


@jit
def total(value: Any) -> Any:
    """Return the value of the only lane."""
    return value


@jit
def highest(value: Any) -> Any:
    """Return the value of the only lane."""
    return value


total64 = total32 = total
highest64 = highest32 = highest

isfinite = _exact(device_math.isfinite)
uniform = _exact(device_math.uniform)
box_muller = _exact(device_math.box_muller)


@_exact
def normal(key: Any, counter: Any, apart: Any) -> Any:
    """Return a standard normal number (Box & Muller)."""
    return box_muller(uniform(key, counter), uniform(key, counter + apart))


# Taylor's coefficients, with the term of degree 13 taken in by those below it (its Chebyshev expansion): left out
# it would be 1.5 ulp at |r| = ln(2) / 2
_A2, _F13 = (0.5 * math.log(2.0)) ** 2, 6227020800.0
_C11 = 1.0 / 39916800.0 + 3.25 * _A2 / _F13
_C9 = 1.0 / 362880.0 - 4.0625 * _A2**2 / _F13
_C7 = 1.0 / 5040.0 + 2.4375 * _A2**3 / _F13
_C5 = 1.0 / 120.0 - 0.7109375 * _A2**4 / _F13
_C3 = 1.0 / 6.0 + 0.0888671875 * _A2**5 / _F13


@_exact
def exp64(x: Any) -> Any:
    """Return exp(x), within an ulp: Cody and Waite's reduction to |r| < ln(2) / 2 and a polynomial of degree 12.

    libm's exponential is a call, which keeps a loop from being vectorised. This one costs an eighth.
    """
    y = max(-708.0, min(x, 709.0))
    shifted = y * 1.4426950408889634 + 6755399441055744.0  # the integer is now in the last bits
    k = shifted - 6755399441055744.0
    r = (y - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10
    p = 1.0 / 479001600.0
    p = p * r + _C11
    p = p * r + 1.0 / 3628800.0
    p = p * r + _C9
    p = p * r + 1.0 / 40320.0
    p = p * r + _C7
    p = p * r + 1.0 / 720.0
    p = p * r + _C5
    p = p * r + 1.0 / 24.0
    p = p * r + _C3
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    bits = np.float64(shifted).view(np.int64) << np.int64(52)
    power = np.int64(bits + np.int64(1023) * np.int64(4503599627370496)).view(np.float64)
    value = p * power
    value = 0.0 if x < -708.0 else value
    value = np.inf if x > 709.0 else value
    return value if x == x else x


@_exact
def exp32(x: Any) -> Any:
    """Return exp(x) in single precision, by a polynomial of degree 7."""
    one = np.float32(1.0)
    y = max(np.float32(-87.0), min(x, np.float32(88.0)))
    shifted = y * np.float32(1.44269504) + np.float32(12582912.0)
    k = shifted - np.float32(12582912.0)
    r = (y - k * np.float32(0.693359375)) - k * np.float32(-2.12194440e-4)
    p = np.float32(1.0 / 5040.0)
    p = p * r + np.float32(1.0 / 720.0)
    p = p * r + np.float32(1.0 / 120.0)
    p = p * r + np.float32(1.0 / 24.0)
    p = p * r + np.float32(1.0 / 6.0)
    p = p * r + np.float32(0.5)
    p = p * r + one
    p = p * r + one
    bits = np.float32(shifted).view(np.int32) << np.int32(23)
    power = np.int32(bits + np.int32(1065353216)).view(np.float32)
    value = p * power
    value = np.float32(0.0) if x < np.float32(-87.0) else value
    value = np.float32(np.inf) if x > np.float32(88.0) else value
    return value if x == x else x


@_exact
def log64(x: Any) -> Any:
    """Return log(x), within an ulp: x = 2^k (1 + f) with sqrt(1/2) < 1 + f < sqrt(2), and the polynomial of fdlibm.

    Source: e_log.c of fdlibm (Sun Microsystems, 1993).
    """
    low = x < 2.2250738585072014e-308
    y = x * 18014398509481984.0 if low else x  # 2^54: denormal numbers have no exponent of their own
    bits = np.float64(y).view(np.int64) + np.int64(0x3FF0000000000000 - 0x3FE6A09E667F3BCD)
    # an integer is made a number by the last bits of a large one: there is no instruction for it before AVX-512
    whole = np.int64(np.int64(bits >> np.int64(52)) + np.int64(0x4338000000000000 - 0x3FF))
    k = whole.view(np.float64) - 6755399441055744.0 - (54.0 if low else 0.0)
    rest = np.int64((bits & np.int64(0x000FFFFFFFFFFFFF)) + np.int64(0x3FE6A09E667F3BCD))
    f = rest.view(np.float64) - 1.0
    s = f / (2.0 + f)
    z = s * s
    p = 1.479819860511658591e-01
    p = p * z + 1.531383769920937332e-01
    p = p * z + 1.818357216161805012e-01
    p = p * z + 2.222219843214978396e-01
    p = p * z + 2.857142874366239149e-01
    p = p * z + 3.999999999940941908e-01
    p = p * z + 6.666666666666735130e-01
    half = 0.5 * f * f
    value: Any = k * 6.93147180369123816490e-01 - (
        (half - (s * (half + z * p) + k * 1.90821492927058770002e-10)) - f
    )
    value = value if x < np.inf else x
    value = -np.inf if x == 0.0 else value
    return np.nan if x < 0.0 else value


@_exact
def log32(x: Any) -> Any:
    """Return log(x) in single precision, as FreeBSD's e_logf.c."""
    low = x < np.float32(1.17549435e-38)
    y = x * np.float32(16777216.0) if low else x
    bits = np.float32(y).view(np.int32) + np.int32(0x3F800000 - 0x3F3504F3)
    whole = np.int32(np.int32(bits >> np.int32(23)) + np.int32(0x4B400000 - 0x7F))
    k = whole.view(np.float32) - np.float32(12582912.0) - (np.float32(24.0) if low else np.float32(0.0))
    rest = np.int32((bits & np.int32(0x007FFFFF)) + np.int32(0x3F3504F3))
    f = rest.view(np.float32) - np.float32(1.0)
    s = f / (np.float32(2.0) + f)
    z = s * s
    p = np.float32(0.24279078841)
    p = p * z + np.float32(0.28498786688)
    p = p * z + np.float32(0.40000972152)
    p = p * z + np.float32(0.66666662693)
    half = np.float32(0.5) * f * f
    value: Any = k * np.float32(6.9313812256e-01) - (
        (half - (s * (half + z * p) + k * np.float32(9.0580006145e-06))) - f
    )
    value = value if x < np.float32(np.inf) else x
    value = np.float32(-np.inf) if x == np.float32(0.0) else value
    return np.float32(np.nan) if x < np.float32(0.0) else value
