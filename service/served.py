"""A model being served: its embedder, and how its scores become decisions under the settings."""

from __future__ import annotations

from dataclasses import dataclass

from sayso.enroll.decision import (
    FalseMatchCurve,
    OperatingPoint,
    Policy,
    comparison_fmr,
    identify_threshold,
)
from sayso.runtime.card import Calibration
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import ModelError
from sayso.service.enrolling import unlike_below
from sayso.service.errors import ServiceError
from sayso.service.metrics import Metrics
from sayso.service.schemas import IdentifyThreshold, ModelRef
from sayso.service.settings import Settings


@dataclass(frozen=True)
class ServedModel:
    """`policy` is None for a model without calibration or threshold: it embeds but does not decide."""

    name: str
    embedder: Embedder
    policy: Policy | None
    curve: FalseMatchCurve | None
    unlike_below: float | None = None

    @property
    def ref(self) -> ModelRef:
        return ModelRef(name=self.name, sha256=self.embedder.sha256, provider=self.embedder.provider)

    def decides(self) -> Policy:
        """The policy; raises a 409 that says how to calibrate where there is none."""
        if self.policy is None:
            raise ServiceError(
                409,
                "model_not_calibrated",
                f"the model {self.name!r} has no calibration, so no score of it can decide anything: run "
                f"`sayso calibrate {self.name} --trials TRIALS --root FOLDER` and start again, or "
                f"set a threshold on purpose with SAYSO_THRESHOLDS='{{\"{self.name}\": 0.5}}'",
            )
        return self.policy

    def search_threshold(self, fpir: float, searched: int) -> IdentifyThreshold:
        """The threshold for a search among `searched` speakers."""
        point = self.decides().operating_point
        if self.curve is None:
            return IdentifyThreshold(
                value=point.threshold,
                operating_point=point.name,
                source=point.source,
                fpir=None,
                fmr=None,
                extrapolated=False,
            )
        found = identify_threshold(self.curve, fpir, searched)
        return IdentifyThreshold(
            value=round(found.threshold, 6),
            operating_point=f"fpir={fpir:g}",
            source=point.source,
            fpir=fpir,
            fmr=comparison_fmr(fpir, searched),
            extrapolated=found.extrapolated,
        )


def load_models(settings: Settings, metrics: Metrics) -> dict[str, ServedModel]:
    """Load every model of the settings; raises `ModelError` naming the file that cannot be served."""
    unknown = set(settings.thresholds) - set(settings.models)
    if unknown:
        raise ModelError(f"SAYSO_THRESHOLDS names models that are not served: {', '.join(sorted(unknown))}")
    if settings.default_model is not None and settings.default_model not in settings.models:
        raise ModelError(f"SAYSO_DEFAULT_MODEL names {settings.default_model!r}, which is not served")
    served: dict[str, ServedModel] = {}
    try:
        for name, path in settings.models.items():
            embedder = Embedder(
                path,
                provider=settings.provider,
                threads=settings.threads,
                observe_batch=metrics.batch_windows.labels(name).observe,
            )
            try:
                served[name] = serve(name, embedder, settings)
            except ValueError as error:  # a card whose numbers make no line or curve
                embedder.close()
                raise ModelError(f"{path.name} has a calibration that cannot be used: {error}") from error
            info = (name, embedder.card.architecture, embedder.sha256, embedder.provider)
            metrics.model_info.labels(*info).set(1)
    except Exception:
        for model in served.values():
            model.embedder.close()
        raise
    return served


def serve(name: str, embedder: Embedder, settings: Settings) -> ServedModel:
    """Join a loaded model with how the settings want its scores judged."""
    calibration = embedder.card.calibration
    point = _operating_point(name, calibration, settings)
    policy = None
    if point is not None:
        policy = Policy(
            operating_point=point,
            llr_slope=calibration.llr.slope if calibration else None,
            llr_offset=calibration.llr.offset if calibration else None,
            inconclusive_llr=settings.inconclusive_llr,
        )
    curve = None
    if calibration and name not in settings.thresholds:
        table = calibration.false_match_curve
        curve = FalseMatchCurve(table.fmr, table.threshold, table.tail_scale)
    return ServedModel(name, embedder, policy, curve, unlike_below(calibration))


def _operating_point(name: str, calibration: Calibration | None, settings: Settings) -> OperatingPoint | None:
    if name in settings.thresholds:
        return OperatingPoint("set", settings.thresholds[name], None, None, "setting")
    if calibration is None:
        return None
    wanted = settings.operating_point
    if wanted not in calibration.operating_points:
        known = ", ".join(calibration.operating_points)
        raise ModelError(f"SAYSO_OPERATING_POINT is {wanted!r}; the model {name!r} was calibrated at {known}")
    found = calibration.operating_points[wanted]
    return OperatingPoint(wanted, found.threshold, found.fmr, found.fnmr, "calibrated")
