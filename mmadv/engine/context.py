"""What a measurement may use of the run that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass

from mmadv.engine.data import Selection
from mmadv.engine.predictor import Predictor
from mmadv.engine.spec import EvaluationSpec
from mmadv.evaluation.result_store import ResultStore


@dataclass(frozen=True, eq=False)
class RunContext:
    """A run of an evaluation.

    Attributes:
        spec: of the evaluation.
        predictor: a group of images -> their predictions, clean and attacked.
        selection: the images of the run.
        rgb: whether images come as RGB; as BGR otherwise.
        show: number of images that are to be drawn.
        store: where the results of each image are written; None for nowhere.
    """

    spec: EvaluationSpec
    predictor: Predictor
    selection: Selection
    rgb: bool
    show: int = 0
    store: ResultStore | None = None
