"""Global searches of scipy, for comparison at equal force calls."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlopt.core.driver.external import ExternalOptimizer, Meter
from mlopt.core.plugins.plugin import setting

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

#: neither search should end before the driver ends it
_FOREVER = 2**31


class ScipyBasinHopping(ExternalOptimizer):
    """`scipy.optimize.basinhopping` with an L-BFGS-B quench, one problem after the other.

    Its random displacements adapt to an acceptance rate and know nothing of atoms. Compare it with `basin-hopping`.
    """

    temperature: float = setting(1.0, "temperature of the Metropolis test", unit="energy", ge=0)
    step_size: float = setting(0.5, "initial half-width of displacements", unit="length", gt=0)
    interval: int = setting(50, "hops between two changes of the step", ge=1)
    acceptance: float = setting(0.5, "share of hops to accept, by adaptation", gt=0, lt=1)
    quench_tolerance: float = setting(
        1e-3, "largest force component at a minimum", unit="energy/length", gt=0
    )

    def run(self, meter: Meter, seed: int) -> None:
        """Hop until the budget is spent."""
        import numpy as np
        from scipy.optimize import basinhopping

        def arrived(flat: NDArray[np.float64], energy: float, accepted: bool) -> None:
            meter.arrived(flat, energy)

        basinhopping(
            meter.energy_and_gradient,
            meter.start,
            niter=_FOREVER,
            T=self.temperature,
            stepsize=self.step_size,
            interval=self.interval,
            target_accept_rate=self.acceptance,
            minimizer_kwargs={"method": "L-BFGS-B", "jac": True, "options": {"gtol": self.quench_tolerance}},
            callback=arrived,
            seed=np.random.default_rng(seed),
        )


class ScipyDualAnnealing(ExternalOptimizer):
    """`scipy.optimize.dual_annealing` with L-BFGS-B as local search, one problem after the other.

    It searches a box: the extent of the start, widened by ``margin`` on all sides. Gradients help the local search
    alone, but each energy of the annealing costs a force call as well.
    """

    margin: float = setting(
        0.5, "width added to the extent of the start along each axis", unit="length", gt=0
    )
    initial_temperature: float = setting(5230.0, "temperature of the generalised annealing", gt=0.01, le=5e4)
    restart_ratio: float = setting(
        2e-5, "share of that temperature at which annealing begins again", gt=0, lt=1
    )
    visit: float = setting(2.62, "shape of the visiting distribution; larger jumps farther", gt=1, le=3)
    accept: float = setting(-5.0, "shape of the acceptance distribution; lower accepts less", gt=-1e4, le=-5)

    def run(self, meter: Meter, seed: int) -> None:
        """Anneal until the budget is spent."""
        import numpy as np
        from scipy.optimize import dual_annealing

        last: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None

        def energy(flat: NDArray[np.float64]) -> float:
            nonlocal last
            value, gradient = meter.energy_and_gradient(flat)
            last = (flat.copy(), gradient)
            return value

        def gradient(flat: NDArray[np.float64]) -> NDArray[np.float64]:
            # the local search asks for energy and gradient separately: the second question is free
            if last is None or not np.array_equal(last[0], flat):
                energy(flat)
            return last[1]  # type: ignore[index]

        lower, upper = meter.box(self.margin)
        dual_annealing(
            energy,
            list(zip(lower, upper, strict=True)),
            maxiter=_FOREVER,
            maxfun=_FOREVER,
            initial_temp=self.initial_temperature,
            restart_temp_ratio=self.restart_ratio,
            visit=self.visit,
            accept=self.accept,
            minimizer_kwargs={"method": "L-BFGS-B", "jac": gradient},
            x0=meter.start,
            seed=np.random.default_rng(seed),
        )
