"""A tenant's own templates as what its comparisons are centred on."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sayso.domain.evidence import BANDS, LlrModel
from sayso.enroll.types import Template

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Cohort:
    """The sum `[dim]` and number of templates of each band, and whose they are."""

    sums: Mapping[str, Floats] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    members: frozenset[str] = frozenset()

    def without(
        self, speaker_id: str | None, template: Template, model: LlrModel
    ) -> tuple[Floats | None, int]:
        """The sum of how the templates differ from the centres of their bands, and their number.

        The speaker with this template is left out, if they are a member.
        """
        count = sum(self.counts.values())
        if not count:
            return None, 0
        bands = [band for band in BANDS if self.counts.get(band)]
        difference: Floats = np.sum(
            [self.sums[band] - self.counts[band] * model.centre(band) for band in bands], axis=0
        )
        if speaker_id in self.members:
            difference -= template.vector - model.centre(template.side.band)
            count -= 1
        return difference, count
