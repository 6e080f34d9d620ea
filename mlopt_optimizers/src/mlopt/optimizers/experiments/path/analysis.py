"""The analysis of a relaxed path's saddle: its modes, its connection to the ends, and a rate."""

from __future__ import annotations

from dataclasses import dataclass

from mlopt.core.errors import InputError, MloptError
from mlopt.core.lazy import torch
from mlopt.core.protocols.model import Model
from mlopt.optimizers.bands.band import Band
from mlopt.optimizers.bands.settings import Saddle
from mlopt.optimizers.saddles.connect import Connection, connect
from mlopt.optimizers.saddles.modes import Modes, lowest_modes
from mlopt.optimizers.saddles.rates import Rate, spin_rate, vineyard


@dataclass(frozen=True)
class Analysis:
    """Results about a saddle. None stands for what was not asked for or has failed; ``notes`` say which.

    modes: the lowest modes.
    connection: the minima at the ends of both descents.
    rate: the rate across the saddle.
    calls: evaluations of the whole analysis, except those of parts that failed.
    """

    modes: Modes | None = None
    connection: Connection | None = None
    rate: Rate | None = None
    notes: tuple[str, ...] = ()
    calls: int = 0

    @classmethod
    def of(cls, settings: Saddle, model: Model, band: Band, saddle: torch.Tensor, fmax: float) -> Analysis:
        """Analyse the saddle (n_rows, d) of one relaxed path.

        band: the band of this path alone.
        fmax: largest force at a minimum below the saddle.
        """
        saddle, notes, calls = saddle.to(band.start), [], 0
        modes: Modes | None = None
        connection: Connection | None = None
        rate: Rate | None = None
        if settings.modes:
            try:
                modes = lowest_modes(band.landscape, saddle, settings.modes)
                calls += int(modes.calls.sum())
            except Exception as error:
                notes.append(f"no modes of the saddle: {cause(error)}")
        if settings.connect and modes is not None and bool(modes.values[0, 0] < 0):
            ends = torch.stack([band.start, band.end])
            try:
                connection = connect(band.landscape, saddle, modes.vectors[0], minima=ends, fmax=fmax)
                calls += int(connection.calls.sum())
            except Exception as error:
                notes.append(f"not known whether it connects the ends: {cause(error)}")
        if connection is not None and _joins(connection) is None:
            forces = ", ".join(f"{force:.3g}" for force in connection.fmax[0].tolist())
            notes.append(
                f"not known whether it connects the ends: a way down from the saddle did not end at a minimum (largest "
                f"forces {forces}, to reach: {fmax:.3g})"
            )
        if settings.temperature is not None:
            try:
                rate, note = _rate(settings, model, band, saddle)
                notes += [note] if note else []
            except Exception as error:
                notes.append(f"no rate: {cause(error)}")
        return cls(modes, connection, rate, tuple(notes), calls)

    @property
    def joins(self) -> bool | None:
        """True if the saddle joins the two ends; None if unknown."""
        return None if self.connection is None else _joins(self.connection)

    @property
    def negative_modes(self) -> int | None:
        """The number of negative modes: 1 for a first-order saddle, 0 for no saddle; None if not computed."""
        return None if self.modes is None else int(self.modes.count_negative()[0])


def cause(error: Exception) -> str:
    """Return the cause of an error in one line."""
    text = " ".join(str(error).split())
    return text if isinstance(error, MloptError) else f"{type(error).__name__}: {text}"


def _joins(connection: Connection) -> bool | None:
    """Return whether the saddle joins the ends; None if a descent did not reach a minimum."""
    if bool(connection.joins[0]):
        return True
    return False if bool(connection.converged[0].all()) else None


def _rate(settings: Saddle, model: Model, band: Band, saddle: torch.Tensor) -> tuple[Rate | None, str]:
    """Return the rate across the saddle from the start, or the reason why there is none."""
    minimum, moments, masses, units = band.start, model.moments(), model.masses(), model.energy_units
    try:
        if moments is not None:
            damping = settings.damping
            weights = moments.to(minimum)
            found = spin_rate(band.landscape, minimum, saddle, weights, damping=damping, units=units)
        elif masses is not None:
            found = vineyard(band.landscape, minimum, saddle, masses.to(minimum), units=units)
        else:
            return None, "no rate: the model has neither masses nor magnetic moments"
    except InputError as error:
        return None, f"no rate: {error}"
    return found, ""
