"""Spins as a landscape: energy, force and Hessian in closed form on a product of unit spheres."""

from __future__ import annotations

from collections.abc import Callable

from mlopt.core.atoms.units import SPINS, Units
from mlopt.core.batch.segments import Segments
from mlopt.core.errors import InputError
from mlopt.core.landscapes.evaluation import Evaluation
from mlopt.core.landscapes.landscape import Landscape
from mlopt.core.landscapes.manifold import UnitSphere
from mlopt.core.lazy import torch
from mlopt.potentials.spins.quadratic import QuadraticForm


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the products of the vectors of two columns (n, 3, ...): (n, ...), added in one fixed order."""
    x, y, z = (a * b).unbind(1)
    return (x + y) + z


class SpinLandscape(Landscape):
    """Copies of one system of spins, ``x (n_problems * n_spins, 3)`` unit vectors; see `Heisenberg.landscape`.

    form: the energy of one copy.
    fixed: (n_spins,) bool, spins that must not turn.
    moments: (n_spins,) magnetic moments, mu_B.
    label: a function that names a spin in messages.

    `evaluate` and `hessian_product` can be differentiated by autograd, any number of times. On the CPU a copy's results
    are bit for bit the same in any batch.
    """

    def __init__(
        self,
        form: QuadraticForm,
        n_problems: int = 1,
        *,
        fixed: torch.Tensor | None = None,
        moments: torch.Tensor | None = None,
        units: Units = SPINS,
        label: Callable[[int], str] = "spin {}".format,
    ) -> None:
        if n_problems < 0:
            raise InputError(f"SpinLandscape: `n_problems` is {n_problems}; it cannot be negative")
        self.form, self.units, self.label = form, units, label
        self.n_spins = form.n_spins
        self.manifold = UnitSphere()
        device = form.linear.device
        if n_problems:
            self.segments = Segments.uniform(n_problems, form.n_spins, device)
        else:  # `uniform` cannot add up nothing
            self.segments = Segments(torch.zeros(1, dtype=torch.int64, device=device))
        self._fixed, self._moments = fixed, moments
        self.fixed = None if fixed is None else fixed.repeat(n_problems)
        #: (n_rows,) magnetic moments in mu_B, or None
        self.moments = None if moments is None else moments.repeat(n_problems)

    def select(self, problems: torch.Tensor) -> SpinLandscape:
        """Return as many copies as there are ``problems``, which may repeat; all copies are alike."""
        return SpinLandscape(
            self.form,
            len(problems),
            fixed=self._fixed,
            moments=self._moments,
            units=self.units,
            label=self.label,
        )

    def row_word(self, row: int) -> str:
        return self.label(row % self.n_spins)

    def evaluate(self, x: torch.Tensor) -> Evaluation:
        """Return energy, row energies, and minus the gradient projected on the spheres; zero force on pinned spins.

        A pair's energy is shared equally between its two rows.

        Raises:
            InputError: ``x`` has another shape, dtype or device than the landscape.
        """
        self._fits(x, "x")
        spins = self._columns(x)
        coupling, linear = self.form.times(spins), self.form.linear[:, :, None]
        row_energy = _dot(spins, 0.5 * coupling + linear).T.reshape(-1)
        force = self._tangent(spins, -(coupling + linear))
        return Evaluation(self.segments.sum(row_energy), self._rows(force), row_energy)

    def gradient(self, x: torch.Tensor) -> torch.Tensor:
        """Return the unprojected gradient ``A x + b``, (n_rows, 3): minus the effective field times the moment."""
        self._fits(x, "x")
        return self._rows(self.form.times(self._columns(x)) + self.form.linear[:, :, None])

    @property
    def hessian_calls(self) -> int:
        """Force calls of one `hessian_product`: 1, because it costs as much as an evaluation."""
        return 1

    def hessian_product(self, x: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Return the Riemannian Hessian at ``x (n_rows, 3)`` times ``v``, (n_rows, 3) or (k, n_rows, 3).

        With P the projection on the tangent space it is ``P (A - x.(A x + b)) P v`` for each spin. This is exact, also
        where the force is not zero. Rows and columns of pinned spins are zero. Source: Absil, Mahony & Sepulchre,
        Optimization Algorithms on Matrix Manifolds, 2008, eq. 5.15.

        Raises:
            InputError: shapes, dtypes or devices that do not fit.
        """
        self._fits(x, "x")
        self._fits(v, "v")
        spins = self._columns(x)
        radial = _dot(spins, self.form.times(spins) + self.form.linear[:, :, None])
        if v.ndim == 3:
            spins, radial = spins[:, :, None], radial[:, None]
        tangent = self._tangent(spins, self._columns(v))
        return self._rows(self._tangent(spins, self.form.times(tangent) - radial[:, None] * tangent))

    def check(self, x: torch.Tensor, tolerance: float = 1e-3) -> None:
        """Refuse a configuration that has no unit spins. It is for user input, not for every step.

        Raises:
            InputError: the shape, dtype or device is wrong. A row is not finite, or its length differs from 1 by more
                than ``tolerance``. The message names the problem and the site.
        """
        self._fits(x, "x")
        length = torch.linalg.vector_norm(x.detach(), dim=-1)
        wrong = ~((length - 1.0).abs() <= tolerance)
        if bool(wrong.any()):
            row = int(torch.nonzero(wrong)[0])
            problem, spin = divmod(row, self.n_spins)
            where = f"problem {problem}, {self.label(spin)}"
            raise InputError(
                f"{where}: the spin {x[row].tolist()} has the length {float(length[row]):.6g} instead of 1; "
                f"normalise it, or find out what left the sphere"
            )

    def _tangent(self, spins: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
        """Return the part of ``vector (n, 3, ...)`` along which free spins can turn."""
        found = vector - _dot(vector, spins)[:, None] * spins
        if self._fixed is None:
            return found
        return found.masked_fill(self._fixed.view(-1, *[1] * (found.ndim - 1)), 0.0)

    def _columns(self, x: torch.Tensor) -> torch.Tensor:
        """Rearrange (n_rows, 3) or (k, n_rows, 3) to (n_spins, 3, n_problems) or (n_spins, 3, k, n_problems).

        With the problems along the last dimension all arithmetic runs through contiguous memory.
        """
        split = x.reshape(*x.shape[:-2], self.segments.n_problems, self.n_spins, 3)
        return split.movedim((-2, -1), (0, 1)).contiguous()

    def _rows(self, columns: torch.Tensor) -> torch.Tensor:
        """Undo `_columns`."""
        return columns.movedim((0, 1), (-2, -1)).reshape(*columns.shape[2:-1], -1, 3)

    def _fits(self, x: torch.Tensor, name: str) -> None:
        n, like = self.segments.n_rows, self.form.linear
        shapes_fit = tuple(x.shape[-2:]) == (n, 3) and (x.ndim == 2 or (name == "v" and x.ndim == 3))
        if not shapes_fit:
            raise InputError(
                f"SpinLandscape: `{name}` must have shape ({n}, 3) for {self.segments.n_problems} problems of "
                f"{self.n_spins} spins, got {tuple(x.shape)}"
            )
        if x.dtype != like.dtype or x.device != like.device:
            raise InputError(
                f"SpinLandscape: `{name}` is {x.dtype} on {x.device}, the landscape {like.dtype} on {like.device}; "
                f"make both alike, with Heisenberg(...).landscape(device=..., dtype=...)"
            )
