"""The lowest eigenpairs of the Hessian at points of a landscape, many problems of any size at once.

Small problems compute the whole Hessian, one product for each coordinate, and diagonalise it.

Large problems grow a block Krylov space. The residuals of the lowest Ritz vectors are made orthogonal to all vectors
before them and added, a block at a time. A block finds degenerate modes, which single vectors would miss. Residuals
are made orthogonal twice, so that no ghost mode appears. A full space is cut down to its lowest vectors (thick
restart: Wu & Simon, SIAM J. Matrix Anal. Appl. 22, 602 (2000)).

Three kinds of directions are left out: those off the tangent space, motions of fixed rows, and rigid motions of free
atoms (`Landscape.free_motions`).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from mlopt.core.batch.random import Draws, problem_keys
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.lazy import torch

#: coordinates of a problem up to which the whole Hessian is taken, with exact products and with differences
_DENSE, _DENSE_BY_DIFFERENCES = 800, 60
#: rows that are evaluated at once when columns of a Hessian are made
_ROWS = 16_384
#: how the default of `Modes.near_zero` is measured
NEAR_ZERO = 1e-4


@dataclass(frozen=True)
class Modes:
    """The lowest ``k`` modes of each problem, lowest first.

    values (n_problems, k): eigenvalues, energy / length^2; infinite if a problem has fewer than k modes.
    vectors (k, n_rows, d): tangent vectors with unit norm over each problem; zeros if there is no such mode.
    residual (n_problems, k): |H v - value v|; an exact eigenvalue lies within this distance of ``value``.
    converged (n_problems, k) bool: whether each mode has converged.
    scale (n_problems,): largest known |eigenvalue|.
    calls (n_problems,) int64: force calls used.
    """

    values: torch.Tensor
    vectors: torch.Tensor
    residual: torch.Tensor
    converged: torch.Tensor
    scale: torch.Tensor
    calls: torch.Tensor

    def near_zero(self, relative: float = NEAR_ZERO, absolute: float | None = None) -> torch.Tensor:
        """Return True (n_problems, k) for modes near zero: ``|value| <= absolute``.

        If ``absolute`` is None, the limit is ``relative`` times the scale.

        The sign of such a mode says nothing: a stable skyrmion on a lattice has two at -1e-5 meV. Spirit counts
        |value| <= 1e-4 meV as zero; here the default is 1e-4 of the stiffest mode.
        """
        limit = self.scale[:, None] * relative if absolute is None else absolute
        return self.values.abs() <= limit

    def count_negative(self, relative: float = NEAR_ZERO, absolute: float | None = None) -> torch.Tensor:
        """Return the number (n_problems,) int64 of negative modes that are not near zero.

        The number is 0 at a minimum and 1 at a first-order saddle. With 2 or more the point is a higher saddle, to
        which symmetric paths may lead. If all k modes are negative, there may be more of them.
        """
        return ((self.values < 0) & ~self.near_zero(relative, absolute)).sum(-1)


def lowest_modes(
    landscape: Landscape,
    x: torch.Tensor,
    k: int = 6,
    *,
    method: Literal["auto", "dense", "krylov"] = "auto",
    guess: torch.Tensor | None = None,
    tolerance: float = 1e-6,
    max_products: int = 2000,
    seed: int = 0,
    ids: torch.Tensor | None = None,
) -> Modes:
    """Return the ``k`` lowest modes at ``x (n_rows, d)``, by exact products if the landscape has them.

    method: ``dense`` takes one product for each coordinate. ``krylov`` takes a block at a time, until residuals are
        below ``tolerance`` or each problem has made ``max_products``. ``auto`` is dense if the largest problem has at
        most 800 coordinates, or 60 if products are differences of forces.
    guess: (m, n_rows, d) first vectors, such as the tangent of a path; for ``krylov`` only.
    tolerance: limit of the residual relative to the largest |eigenvalue|. The error of an eigenvalue is about the
        squared residual over the gap to the next one.
    seed, ids: as in `mlopt.core.driver.driver.minimize`, for the first random vectors.

    Raises:
        InputError: ``k`` is not positive, shapes do not fit, or a force is not finite.
    """
    segments = landscape.segments
    if k < 1:
        raise InputError(f"lowest_modes: `k` must be at least 1, got {k}")
    if x.ndim != 2 or len(x) != segments.n_rows:
        raise InputError(
            f"lowest_modes: `x` must have shape ({segments.n_rows}, d) to fit the landscape, got {tuple(x.shape)}"
        )
    if guess is not None and (guess.ndim != 3 or guess.shape[1:] != x.shape):
        raise InputError(
            f"lowest_modes: `guess` must have shape (m, {x.shape[0]}, {x.shape[1]}), got {tuple(guess.shape)}"
        )
    if method == "auto":
        limit = _DENSE if landscape.hessian_calls < 2 else _DENSE_BY_DIFFERENCES
        largest = int(segments.counts.max()) * x.shape[1] if segments.n_problems else 0
        method = "dense" if largest <= limit else "krylov"
    with torch.no_grad():
        if method == "dense":
            return _dense(landscape, x, k)
        ids = torch.arange(segments.n_problems, device=x.device) if ids is None else ids
        key = problem_keys(seed, ids)
        return _Krylov(landscape, x, k, tolerance, max_products).run(guess, key)


def hessians(landscape: Landscape, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Return the whole Hessian, for each size: ``(problems (b,), matrix (b, D, D), allowed (b, D, D))``.

    D = rows * d coordinates of the surrounding space. ``allowed`` projects on the tangent space of the movable rows,
    without rigid motions. The matrix (energy / length^2) is symmetric and lives in that space. Each problem makes D
    products.

    Raises:
        InputError: a force is not finite.
    """
    segments, d = landscape.segments, x.shape[1]
    free, found = landscape.free_motions(x), []
    for size, problems, rows in segments.buckets:
        if not size:
            continue
        b, D = problems.numel(), size * d
        unit = torch.eye(D, dtype=x.dtype, device=x.device).reshape(D, size, d)
        columns = max(1, _ROWS // max(1, b * size))
        tangents, products = [], []
        for first in range(0, D, columns):
            some = unit[first : first + columns]
            c = len(some)
            part = landscape.select(problems.repeat_interleave(c))
            at = x[rows].reshape(b, 1, size, d).expand(b, c, size, d).reshape(-1, d)
            tangent = part.manifold.project(at, some[None].expand(b, c, size, d).reshape(-1, d))
            if part.fixed is not None:
                tangent = tangent.masked_fill(part.fixed[:, None], 0.0)
            tangents.append(tangent.reshape(b, c, D))
            products.append(part.hessian_product(at, tangent).reshape(b, c, D))
        allowed, matrix = torch.cat(tangents, 1), torch.cat(products, 1)
        if free is not None:
            motions = free[:, rows].reshape(len(free), b, D).transpose(0, 1)
            allowed = allowed - motions.mT @ motions
            matrix = allowed @ matrix @ allowed
        matrix = 0.5 * (matrix + matrix.mT)
        _refuse_non_finite(matrix.flatten(1), problems)
        found.append((problems, matrix, allowed))
    return found


def spectra(landscape: Landscape, x: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Return all m eigenpairs of each problem: ``(values (m,) ascending, vectors (m, rows, d))``."""
    out: list[tuple[torch.Tensor, torch.Tensor] | None] = [None] * landscape.segments.n_problems
    for problems, matrix, allowed in hessians(landscape, x):
        values, vectors, counts = _eigen(matrix, allowed)
        for i, problem in enumerate(problems.tolist()):
            m = int(counts[i])
            out[problem] = values[i, :m], vectors[i, :, :m].T.reshape(m, -1, x.shape[1])
    return [one if one is not None else (x.new_zeros(0), x.new_zeros(0, 0, x.shape[1])) for one in out]


def _eigen(matrix: torch.Tensor, allowed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return eigenpairs of ``matrix (b, D, D)``, the allowed ones first, and the number (b,) of these."""
    size = torch.linalg.matrix_norm(matrix)
    shift = torch.where(size > 0, 2.0 * size, 1.0)  # above every eigenvalue
    identity = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    values, vectors = torch.linalg.eigh(matrix + shift[:, None, None] * (identity - allowed))
    counts = torch.diagonal(allowed, dim1=1, dim2=2).sum(-1).round().to(torch.int64)
    return values, vectors, counts


def _dense(landscape: Landscape, x: torch.Tensor, k: int) -> Modes:
    """Return the ``k`` lowest modes by diagonalising the whole Hessian."""
    segments, n, d = landscape.segments, landscape.segments.n_problems, x.shape[1]
    values, residual = x.new_full((n, k), torch.inf), x.new_zeros(n, k)
    vectors, scale = x.new_zeros(k, *x.shape), x.new_zeros(n)
    for problems, matrix, allowed in hessians(landscape, x):
        _, rows = segments.select(problems)
        all_values, all_vectors, counts = _eigen(matrix, allowed)
        order = torch.arange(all_values.shape[1], device=x.device)
        there = order < counts[:, None]
        scale[problems] = torch.where(there, all_values.abs(), 0.0).amax(1)
        m = min(k, len(order))
        values[problems, :m] = torch.where(there[:, :m], all_values[:, :m], torch.inf)
        kept = torch.where(there[:, None, :m], all_vectors[:, :, :m], 0.0)
        error = matrix @ kept - kept * torch.where(there, all_values, 0.0)[:, None, :m]
        residual[problems, :m] = torch.linalg.vector_norm(error, dim=1)
        vectors[:m, rows] = kept.permute(2, 0, 1).reshape(m, -1, d)
    calls = segments.counts * d * landscape.hessian_calls
    return Modes(values, vectors, residual, torch.isfinite(values), scale, calls)


class _Krylov:
    """The growing space of every problem: ``basis`` and ``products (m, n_rows, d)``, orthonormal or zero.

    All problems take part until the last has converged: more vectors do no harm to a converged problem.
    """

    def __init__(
        self, landscape: Landscape, x: torch.Tensor, k: int, tolerance: float, max_products: int
    ) -> None:
        self.landscape, self.x, self.k = landscape, x, k
        self.tolerance, self.max_products = tolerance, max_products
        self.block = (
            k + 2
        )  # guards against a degenerate mode that is cut in two, and speeds up the last of the k
        self.most = 8 * self.block
        self.free = landscape.free_motions(x)
        self.made = 0

    def run(self, guess: torch.Tensor | None, key: torch.Tensor) -> Modes:
        """Grow the space until the residuals are small, and return the lowest modes."""
        segments, x = self.landscape.segments, self.x
        draws = Draws(key, torch.zeros_like(key), segments)
        fresh = [draws.normal_rows(x.shape[1]).to(x) for _ in range(self.block)]
        start = torch.stack(fresh) if guess is None else torch.cat([guess.to(x), torch.stack(fresh)])
        basis = self._orthonormal(x.new_zeros(0, *x.shape), start)
        products = self._times(basis)
        while True:
            values, ritz, images, scale = self._ritz(basis, products)
            error = images - torch.stack(
                [segments.scale(value, one) for value, one in zip(values.T, ritz, strict=True)]
            )
            residual = segments.sum_stack(error * error).sqrt()
            there = segments.sum_stack(ritz * ritz) > 0.5
            done = residual <= self.tolerance * scale[:, None]
            k = min(self.k, len(ritz))
            settled = bool((done | ~there)[:, :k].all())
            if not settled and self.made < self.max_products:
                if len(basis) + self.block > self.most:
                    keep = 2 * self.block
                    basis, products = ritz[:keep], images[:keep]
                more = self._orthonormal(basis, error[: self.block])
                # in all problems: nothing left to add, for the space is already everything there is
                if bool((more != 0).any()):
                    basis, products = torch.cat([basis, more]), torch.cat([products, self._times(more)])
                    continue
            values = torch.where(there, values, torch.inf)[:, :k]
            pad = self.k - k
            return Modes(
                torch.nn.functional.pad(values, (0, pad), value=torch.inf),
                torch.cat([ritz[:k], x.new_zeros(pad, *x.shape)]),
                torch.nn.functional.pad(residual[:, :k], (0, pad)),
                torch.nn.functional.pad((done & there)[:, :k], (0, pad)),
                scale,
                torch.full_like(segments.counts, self.made * self.landscape.hessian_calls),
            )

    def _times(self, vectors: torch.Tensor) -> torch.Tensor:
        """Return the Hessian times ``vectors (m, n_rows, d)``, in as few batches as memory allows."""
        landscape, segments = self.landscape, self.landscape.segments
        n, each = segments.n_problems, max(1, _ROWS // max(1, segments.n_rows))
        found = []
        for first in range(0, len(vectors), each):
            some = vectors[first : first + each]
            copies = torch.arange(n, device=self.x.device).repeat(len(some))
            part = landscape.select(copies) if len(some) > 1 else landscape
            product = part.hessian_product(self.x.repeat(len(some), 1), some.reshape(-1, some.shape[-1]))
            found.append(product.reshape(some.shape))
        self.made += len(vectors)
        made = torch.cat(found)
        ptr = segments.ptr.tolist()
        if not bool(torch.isfinite(made).all()):
            sums = torch.stack([made[:, a:b].sum() for a, b in pairwise(ptr)])
            _refuse_non_finite(sums[:, None], torch.arange(n))
        return allowed_part(landscape, self.x, made, self.free)

    def _orthonormal(self, basis: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
        """Return ``vectors (m, n_rows, d)``, orthonormal to ``basis`` and each other; zeros if nothing is left."""
        segments = self.landscape.segments
        tiny = 1e2 * torch.finfo(self.x.dtype).eps
        new: list[torch.Tensor] = []
        for vector in allowed_part(self.landscape, self.x, vectors, self.free):
            before = segments.dot(vector, vector)
            one = segments.scale(torch.where(before > 0, before.rsqrt(), 0.0), vector)
            for _ in range(2):
                against = torch.cat([basis, torch.stack(new)]) if new else basis
                if len(against):
                    weights = segments.sum_stack(against * one)
                    one = one - segments.combine(weights, against)
                    one = allowed_part(self.landscape, self.x, one[None], self.free)[0]
            left = segments.dot(one, one)
            # what little is left of a unit vector is rounding
            sound = left > tiny
            one = segments.scale(torch.where(sound, left.clamp(min=tiny).rsqrt(), 0.0), one)
            new.append(one)
        return torch.stack(new)

    def _ritz(
        self, basis: torch.Tensor, products: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return Ritz values (n, m), vectors and products (m, n_rows, d), lowest first, and largest |value| (n,)."""
        segments = self.landscape.segments
        gram = torch.stack([segments.sum_stack(products * one) for one in basis], -1)
        gram = 0.5 * (gram + gram.mT)
        empty = torch.stack([segments.dot(one, one) for one in basis], -1) < 0.5
        size = torch.linalg.matrix_norm(gram)
        beyond = torch.where(size > 0, 2.0 * size, 1.0)[:, None]  # empty places go to the end
        values, weights = torch.linalg.eigh(gram + torch.diag_embed(torch.where(empty, beyond, 0.0)))
        scale = torch.where(values < 1.5 * size[:, None].clamp(min=0.5), values.abs(), 0.0).amax(1)
        m = min(len(basis), 2 * self.block)
        vectors, images = (
            torch.stack([segments.combine(weights[:, :, i], stack) for i in range(m)])
            for stack in (basis, products)
        )
        return values[:, :m], vectors, images, scale


def allowed_part(
    landscape: Landscape, x: torch.Tensor, vectors: torch.Tensor, free: torch.Tensor | None
) -> torch.Tensor:
    """Return ``vectors (m, n_rows, d)`` without parts off the manifold, on fixed rows or along ``free``."""
    segments: Segments = landscape.segments
    kept = torch.stack([landscape.manifold.project(x, one) for one in vectors]) if len(vectors) else vectors
    if landscape.fixed is not None:
        kept = kept.masked_fill(landscape.fixed[:, None], 0.0)
    if free is not None:
        for motion in free:
            weights = segments.sum_stack(kept * motion)
            kept = kept - torch.stack([segments.scale(weights[:, i], motion) for i in range(len(kept))])
    return kept


def _refuse_non_finite(numbers: torch.Tensor, problems: torch.Tensor) -> None:
    """Raise `InputError` if a row of ``numbers (b, ...)`` is not finite; ``problems (b,)`` owns the rows."""
    bad = ~torch.isfinite(numbers).all(-1)
    if bool(bad.any()):
        worst = int(problems[int(bad.to(torch.int64).argmax())])
        raise InputError(
            f"the Hessian of problem {worst} is not finite: look for atoms that coincide, or a point off the manifold"
        )
