"""The parts of a run that its measurements may use."""

from __future__ import annotations

from dataclasses import dataclass

from mmadv.engine.data import Selection
from mmadv.engine.predictor import Predictor
from mmadv.engine.spec import EvaluationSpec
from mmadv.evaluation.result_store import ResultStore
from mmadv.report.pictures import Example


@dataclass(frozen=True, eq=False)
class RunContext:
    """A run of an evaluation.

    Attributes:
        spec: description of the evaluation.
        predictor: a group of images -> their predictions, clean and attacked.
        selection: the images of the run.
        rgb: True if images come as RGB, False if they come as BGR.
        show: number of images that are to be drawn.
        shown: arrays of these images, spread evenly over the data; empty before the last image of the run.
        store: store that the results of each image are written to; None writes none.
    """

    spec: EvaluationSpec
    predictor: Predictor
    selection: Selection
    rgb: bool
    show: int = 0
    shown: tuple[Example, ...] = ()
    store: ResultStore | None = None
