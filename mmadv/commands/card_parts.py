"""The parts of a robustness card: one table that says which single command measures each part."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmadv.commands import certifying, testing_options
from mmadv.corruptions import CORRUPTIONS, FROST, frost_photographs
from mmadv.engine.spec import EvaluationSpec
from mmadv.errors import UserError

# The centre of the image, a tenth of its area.
REGION = 'box:0.35,0.35,0.3,0.3'
WITHOUT_FROST = [name for name in CORRUPTIONS if name != FROST]
# Attacks of a config's training that add Gaussian noise, for which certificates are meant.
NOISY_ATTACKS = ('GaussianNoise', 'SmoothAdv')


@dataclass(frozen=True)
class Budget:
    """How much a card measures.

    Attributes:
        images: number of images, spread evenly over the dataset; None for all.
        linf: radii under Linf.
        l2: radii under L2, as the root of the mean squared change of a value.
        auto: iterations of ``auto``; None for its own number, as for all that follow.
        sea: iterations of each loss of SEA.
        severities: severities of the common corruptions.
        square: queries of the black-box attack.
        patch: draws that train the patch of each image.
        universal: mini-batches that train the universal perturbation, and the universal patch.
        calibration: iterations of AMA.
        check: number of images of the sanity checks.
        without: parts that are measured only if they are named.
    """

    images: int | None
    linf: tuple[str, ...]
    l2: tuple[float, ...]
    auto: int | None
    sea: int | None
    severities: tuple[int, ...]
    square: int | None
    patch: int | None
    universal: int | None
    calibration: int | None
    check: int
    without: tuple[str, ...] = ()


BUDGETS = {
    'quick': Budget(
        images=8,
        linf=('1/255', '4/255'),
        l2=(0.25 / 255, 1 / 255),
        auto=100,
        sea=25,
        severities=(1, 3, 5),
        square=300,
        patch=100,
        universal=30,
        calibration=50,
        check=2,
        without=('sea', 'sea-l2'),
    ),
    'paper': Budget(
        images=None,
        linf=('0.5/255', '1/255', '2/255', '4/255', '8/255'),
        l2=(0.125 / 255, 0.25 / 255, 0.5 / 255, 1 / 255, 2 / 255),
        auto=None,
        sea=None,
        severities=(1, 2, 3, 4, 5),
        square=None,
        patch=None,
        universal=None,
        calibration=None,
        check=8,
    ),
}


@dataclass(frozen=True)
class CardSettings:
    """What decides the parts of a card.

    Attributes:
        budget: the budget.
        images: number of images; None for all.
        seed: seed of all noise.
        linf: radii under Linf.
        l2: radii under L2, of the whole image.
        region: region of the localized attack.
        sigma: standard deviation of the noise of the certificates; None if there are none.
        source: config and checkpoint of the source model of the transfer attack; empty without one.
        weather: name -> config of the model with that weather's data.
        frost: folder of the photographs of frost; None for those of the package.
        colour: whether images have three channels, as corruptions need them.
    """

    budget: Budget
    images: int | None
    seed: int
    linf: tuple[str, ...]
    l2: tuple[str, ...]
    region: str
    sigma: float | None
    source: tuple[str, ...]
    weather: Mapping[str, str]
    frost: str | None
    colour: bool

    @property
    def main(self) -> str:
        """Returns the largest radius under Linf, at which parts with one radius attack."""
        return self.linf[-1]


Words = list[str]


def _iterations(number: int | None) -> Words:
    return [] if number is None else ['--iterations', str(number)]


def _attack(name: str, iterations: int | None, radii: Sequence[str], *words: str) -> Words:
    return ['--attack', name, *words, '--eps', *radii, *_iterations(iterations)]


def _corruptions(card: CardSettings) -> Words:
    names = [] if card.frost is not None or has_frost() else WITHOUT_FROST
    words = ['--attack', 'none', '--corruptions', *names]
    words += ['--severities', *map(str, card.budget.severities)]
    return words + (['--frost-photographs', card.frost] if card.frost is not None else [])


def has_frost() -> bool:
    """Returns whether the package with the photographs of frost is installed."""
    try:
        frost_photographs()
    except UserError:
        return False
    return True


def _calibration(card: CardSettings) -> Words:
    words = _attack('ama', card.budget.calibration, [card.main], '--calibration')
    return words + (['--calibration-corruptions', *WITHOUT_FROST] if card.colour else [])


@dataclass(frozen=True)
class PartKind:
    """A kind of part.

    Attributes:
        title: what the part measures, for readers.
        words: settings of the card -> options of the command that measures the part.
        command: the sub-command.
    """

    title: str
    words: Callable[[CardSettings], Words]
    command: str = 'test'


# Name -> part. A new part is one entry here, and a line in docs/card.md.
PARTS: dict[str, PartKind] = {
    'clean': PartKind('Clean images', lambda card: ['--attack', 'none']),
    'auto': PartKind('auto, Linf', lambda card: _attack('auto', card.budget.auto, card.linf)),
    'auto-l2': PartKind('auto, L2', lambda card: _attack('auto', card.budget.auto, card.l2, '--norm', 'L2')),
    'sea': PartKind('SEA, Linf', lambda card: _attack('sea', card.budget.sea, card.linf)),
    'sea-l2': PartKind('SEA, L2', lambda card: _attack('sea', card.budget.sea, card.l2, '--norm', 'L2')),
    'noise': PartKind('Random noise, Linf', lambda card: _attack('noise', None, card.linf)),
    'corruptions': PartKind('Common corruptions', _corruptions),
    'weather': PartKind('Weather', lambda card: ['--attack', 'none']),
    'region': PartKind(
        'Localized attack, scored outside',
        lambda card: _attack('auto', card.budget.auto, [card.main], '--region', card.region, '--by-distance'),
    ),
    'patch': PartKind(
        'Patch of each image, scored outside',
        lambda card: ['--attack', 'patch', *_iterations(card.budget.patch), '--by-distance'],
    ),
    'universal-patch': PartKind(
        'One patch for all images, scored outside',
        lambda card: ['--attack', 'universal-patch', *_iterations(card.budget.universal), '--by-distance'],
    ),
    'universal': PartKind(
        'One perturbation for all images, Linf',
        lambda card: _attack('universal', card.budget.universal, [card.main]),
    ),
    'square': PartKind(
        'Black-box attack (Square), Linf', lambda card: _attack('square', card.budget.square, [card.main])
    ),
    'transfer': PartKind(
        'Transfer from another model, Linf',
        lambda card: _attack('auto', card.budget.auto, [card.main], '--source', *card.source),
    ),
    'certificates': PartKind('Certificates, L2', lambda card: ['--sigma', f'{card.sigma:g}'], command='certify'),
    'calibration': PartKind('Calibration', _calibration),
    'checks': PartKind(
        'Sanity checks of auto',
        lambda card: _attack('auto', card.budget.auto, [card.main], '--check', str(card.budget.check)),
    ),
}
# Pictures of these parts are on the page.
DRAWN = ('auto', 'patch')


@dataclass(frozen=True)
class Part:
    """A part of one card.

    Attributes:
        name: name of the part, and of its folder.
        title: what the part measures.
        command: the sub-command that measures the part.
        words: the options that decide its numbers, without files.
        argv: all arguments of the sub-command.
        arguments: the parsed arguments.
        spec: the evaluation.
    """

    name: str
    title: str
    command: str
    words: tuple[str, ...]
    argv: tuple[str, ...]
    arguments: Namespace
    spec: EvaluationSpec

    @property
    def kind(self) -> str:
        """Returns the key of ``PARTS``; each weather is a part of its own."""
        return self.name.split('.')[0]


def parts_of(card: CardSettings, names: Sequence[str], model: Sequence[str], common: Mapping[str, Words]) -> list[Part]:
    """Returns the parts of a card, in the order of ``PARTS``.

    Args:
        card: the settings.
        names: names of the parts.
        model: config and checkpoint.
        common: further arguments: 'all' of all commands, 'batch' of ``mmadv test``, and 'out', the folder of the parts.

    Raises:
        UserError: the options of a part are wrong.
    """
    parts = []
    for name, kind in PARTS.items():
        if name not in names:
            continue
        configs = {f'{name}.{one}': file for one, file in card.weather.items()} if name == 'weather' else {name: ''}
        for whole, config in configs.items():
            parts.append(_part(whole, kind, card, [config or model[0], *model[1:]], common))
    return parts


def _part(name: str, kind: PartKind, card: CardSettings, model: Words, common: Mapping[str, Words]) -> Part:
    words = [*kind.words(card), '--seed', str(card.seed)]
    images = card.images
    if name == 'checks':
        images = card.budget.check if images is None else min(images, card.budget.check)
    if images is not None:
        words += ['--limit', str(images)]
    own = ['--show', '2' if name in DRAWN else '0']
    batch = common['batch'] if kind.command == 'test' else []
    changed = [] if name.startswith('weather') else common['all']  # the config of a weather has them already
    argv = [*model, *words, *own, *batch, f'--out={common["out"][0]}/{name}', *changed]
    if kind.command == 'certify':
        arguments = certifying.parser().parse_args(argv)
        spec = certifying.spec_of_arguments(arguments)
    else:
        arguments = testing_options.parser().parse_args(argv)
        testing_options.check_combinations(arguments)
        spec = testing_options.spec_of_arguments(arguments)
    weather = name.partition('.')[2]
    title = f'{kind.title}: {weather}' if weather else kind.title
    return Part(name, title, kind.command, tuple(_without_source(words)), tuple(argv), arguments, spec)


def _without_source(words: Sequence[str]) -> Words:
    """Returns options without the files of a source model, which the card names by its checksum."""
    kept, skipping = [], False
    for word in words:
        skipping = word in ('--source', '--frost-photographs') or (skipping and not word.startswith('--'))
        kept += [] if skipping else [word]
    return kept


def noise_of_training(config: Mapping[str, Any]) -> float | None:
    """Returns the standard deviation of the Gaussian noise that a config trains with; None if it has none."""
    waiting: list[Any] = [config.get('model')]
    while waiting:
        value = waiting.pop(0)
        if isinstance(value, Mapping):
            if value.get('type') in NOISY_ATTACKS and 'sigma' in value:
                return float(value['sigma'])
            waiting += list(value.values())
        elif isinstance(value, (list, tuple)):
            waiting += list(value)
    return None


def l2_radii(shares: Sequence[float], values: int) -> tuple[str, ...]:
    """Returns radii under L2, of three digits, that change each of ``values`` values by these shares of [0, 1].

    A change of the same size c of each of n values has the L2 norm c √n.

    >>> l2_radii([0.01], 10000)
    ('1',)
    """
    return tuple(f'{share * math.sqrt(values):.3g}' for share in shares)
