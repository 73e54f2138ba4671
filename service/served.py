"""A model being served: its embedder, and how its scores become decisions under the settings."""

from __future__ import annotations

from dataclasses import dataclass

from sayso.domain.calibration import Calibration
from sayso.domain.evidence import ANY
from sayso.enroll.decision import Evidence, Policy, Threshold
from sayso.runtime.embedder import Embedder
from sayso.runtime.errors import ModelError
from sayso.service.errors import ServiceError
from sayso.service.metrics import Metrics
from sayso.service.schemas import IdentifyThreshold, ModelRef, ThresholdOut
from sayso.service.settings import Settings


@dataclass(frozen=True)
class ServedModel:
    """`policy` is None for a model without calibration or threshold: it embeds but does not decide."""

    name: str
    embedder: Embedder
    policy: Policy | None
    calibration: Calibration | None

    @property
    def unlike_below(self) -> float | None:
        """The cohesion (cosine) below which an enrolment is hardly of the speaker of the earlier ones."""
        return self.calibration.cohesion_floor if self.calibration else None

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

    def threshold(self, evidence: Evidence) -> ThresholdOut:
        """The threshold of a comparison as it is answered. Its error rates are left out where they do not
        hold.
        """
        threshold = self.decides().threshold
        value, rates = threshold.value(evidence), threshold.rates(evidence)
        return ThresholdOut(
            llr=None if threshold.on_score else value,
            score=value if threshold.on_score else None,
            operating_point=threshold.name,
            source=threshold.source,
            fmr=rates.fmr if rates else None,
            fnmr=rates.fnmr if rates else None,
            cohort=evidence.cohort,
            outside=list(evidence.outside),
        )

    def search_threshold(
        self, fpir: float, searched: int, best: Evidence | None
    ) -> tuple[float, IdentifyThreshold]:
        """The threshold for a search of `searched` speakers, `best` the nearest, and how it is answered."""
        threshold = self.decides().threshold
        cohort, outside = (best.cohort, list(best.outside)) if best else (0, [])
        if self.calibration is None or threshold.on_score:
            return threshold.score, IdentifyThreshold(
                llr=None,
                score=threshold.score,
                operating_point=threshold.name,
                source=threshold.source,
                fpir=None,
                fmr=None,
                extrapolated=False,
                cohort=cohort,
                outside=outside,
            )
        bands = "/".join(best.bands) if best else ANY
        read = self.calibration.search_threshold(fpir, searched, bands)
        return read.threshold, IdentifyThreshold(
            llr=round(read.threshold, 6),
            score=None,
            operating_point=f"fpir={fpir:g}",
            source=threshold.source,
            fpir=fpir,
            fmr=self.calibration.comparison_fmr(fpir, searched),
            extrapolated=read.extrapolated,
            cohort=cohort,
            outside=outside,
        )


def load_models(settings: Settings, metrics: Metrics) -> dict[str, ServedModel]:
    """Load every model of the settings; raises `ModelError` naming the file that cannot be served."""
    files = settings.served_models()
    unknown = set(settings.thresholds) - set(files)
    if unknown:
        raise ModelError(f"SAYSO_THRESHOLDS names models that are not served: {', '.join(sorted(unknown))}")
    settings.default_of(files)
    served: dict[str, ServedModel] = {}
    try:
        for name, path in files.items():
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
    point = _threshold(name, calibration, settings)
    policy = None
    if point is not None:
        policy = Policy(point, calibration.llr if calibration else None, settings.inconclusive_llr)
    return ServedModel(name, embedder, policy, calibration)


def _threshold(name: str, calibration: Calibration | None, settings: Settings) -> Threshold | None:
    if name in settings.thresholds:
        return Threshold("set", "setting", score=settings.thresholds[name])
    if calibration is None:
        return None
    operating_point_name = settings.operating_point
    if operating_point_name not in calibration.operating_points:
        known = ", ".join(calibration.operating_points)
        raise ModelError(
            f"SAYSO_OPERATING_POINT is {operating_point_name!r}; the model {name!r} was calibrated at {known}"
        )
    return Threshold(operating_point_name, "calibrated", calibration.operating_points[operating_point_name])
