"""The columns of a sheet of ``mmadv synthesize``: models, and the settings that differ between columns."""

from __future__ import annotations

from argparse import ArgumentTypeError, Namespace
from collections.abc import Sequence
from dataclasses import dataclass

from mmadv.attacks import Threat, parse_radius
from mmadv.commands.argument_types import sigma
from mmadv.commands.synthesis_batches import by_class
from mmadv.errors import UserError
from mmadv.synthesis import Descent, ball

OBJECTIVES = {'mean_logit': 'mean logit', 'cross_entropy': 'cross-entropy'}


@dataclass(frozen=True)
class Preset:
    """Settings of a paper, for options that the command line leaves out.

    Attributes:
        steps: number of steps.
        samples: number of noise draws of each gradient.
        eps: L2 radius of the ball around the start; None for no ball if a class is generated.
        step_size: length of a step.
        plain_step_size: length of a step for a model that is not smoothed.
        cross_entropy_step_size: length of a step for the cross-entropy of a smoothed model.
    """

    steps: int
    samples: int
    eps: str | None
    step_size: str
    plain_step_size: str
    cross_entropy_step_size: str

    def step_size_of(self, *, smoothed: bool, objective: str) -> str:
        """Returns the length of a step."""
        if not smoothed:
            return self.plain_step_size
        return self.cross_entropy_step_size if objective == 'cross_entropy' else self.step_size


DEFAULT = Preset(100, 20, None, '0.5', '0.5', '0.5')
DEFAULT_EPS = '10'
# Kaur, Cohen and Lipton (2019), the table of appendix C: images of 224x224 pixels.
PRESETS = {'kaur': Preset(300, 20, '40', '0.7', '2.8', '2.0')}


@dataclass(frozen=True)
class ModelSpec:
    """A model of the command line.

    Attributes:
        config: path of the config.
        checkpoint: path of the checkpoint; None if the model brings its weights.
        sigma: standard deviation of the noise that smooths the model; None means no smoothing.
    """

    config: str
    checkpoint: str | None
    sigma: float | None


@dataclass(frozen=True)
class Column:
    """A column of the sheet.

    Attributes:
        model: position of the model on the command line.
        note: what tells the column from others of the same model; may be empty.
        smoothing: standard deviation of the noise, and number of noise draws; None means no smoothing.
        objective: objective of a class; empty if labels are painted.
        descent: steps of the descent.
    """

    model: int
    note: str
    smoothing: tuple[float, int] | None
    objective: str
    descent: Descent


def model_specs(arguments: Namespace) -> list[ModelSpec]:
    """Returns the models of the command line, the first one first.

    Raises:
        UserError: a ``--model`` has another form, or its deviation is not a number.
    """
    models = [ModelSpec(arguments.config, arguments.checkpoint, arguments.smooth)]
    for words in arguments.model:
        if len(words) > 3:
            raise UserError(
                '--model takes a config, a checkpoint and, at most, the standard deviation of the noise; '
                f'found {" ".join(words)}'
            )
        config, *rest = words
        # A model that brings its weights has no checkpoint, so that a number follows the config.
        checkpoint = rest.pop(0) if rest and not (len(rest) == 1 and _is_number(rest[0])) else None
        try:
            deviation = sigma(rest[0]) if rest else arguments.smooth
        except ArgumentTypeError as error:
            raise UserError(f'--model: the deviation {error}') from None
        models.append(ModelSpec(config, checkpoint, deviation))
    return models


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def columns(arguments: Namespace, models: Sequence[ModelSpec]) -> list[Column]:
    """Returns a column for each model, objective and number of noise draws; sets the options that were left out.

    Raises:
        UserError: an option does not apply to the task or the models, or a value is given twice.
    """
    _check(arguments, models)
    preset = PRESETS.get(getattr(arguments, 'preset', None) or '', DEFAULT)
    arguments.steps = arguments.steps or preset.steps
    arguments.samples = arguments.samples or [preset.samples]
    if arguments.task == 'target':
        arguments.eps = arguments.eps or preset.eps or DEFAULT_EPS
    objectives = (arguments.objective or ['mean_logit']) if by_class(arguments) else ['']
    threat = _threat(arguments, preset)
    result = []
    for position, model in enumerate(models):
        smoothed = model.sigma is not None
        for objective in objectives:
            step_size = arguments.step_size or preset.step_size_of(smoothed=smoothed, objective=objective)
            descent = Descent(steps=arguments.steps, step_size=parse_radius(step_size), threat=threat)
            for samples in arguments.samples if smoothed else arguments.samples[:1]:
                notes = [OBJECTIVES[objective]] if len(objectives) > 1 else []
                notes += [f'{samples} sample{"s" * (samples > 1)}'] if smoothed and len(arguments.samples) > 1 else []
                smoothing = None if model.sigma is None else (model.sigma, samples)
                result.append(Column(position, ', '.join(notes), smoothing, objective, descent))
    return result


def _threat(arguments: Namespace, preset: Preset) -> Threat | None:
    if arguments.task == 'target':
        return ball(arguments.norm, arguments.eps)
    return None if preset.eps is None else ball('L2', preset.eps)


def _check(arguments: Namespace, models: Sequence[ModelSpec]) -> None:
    for name in ('samples', 'objective'):
        values = getattr(arguments, name, None) or []
        if len(set(values)) < len(values):
            raise UserError(f'--{name} takes each value once; found {" ".join(map(str, values))}')
    for name in ('objective', 'preset'):
        if getattr(arguments, name, None) and not by_class(arguments):
            raise UserError(f'--{name} is for a class, and the labels of images are painted here; leave it out')
    if arguments.samples and all(model.sigma is None for model in models):
        raise UserError('--samples is for smoothed models; give --smooth too, or SIGMA with --model')
