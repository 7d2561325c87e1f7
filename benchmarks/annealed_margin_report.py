"""Makes the tables of docs/annealed_margin.md and its appendix, and the figure, from stored results.

    python benchmarks/annealed_margin_report.py

Reads JSON only. The tables go between their marks in the document. The figure goes to docs/images/annealed_margin.png.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / 'benchmarks/results/annealed_margin'
# The page has the comparison with SEA, its appendix the other tables.
DOCUMENTS = {
    ROOT / 'docs/annealed_margin.md': ('comparison',),
    ROOT / 'docs/annealed_margin_appendix.md': (
        'ablation',
        'variants',
        'transformers',
        'trials',
        'adaptive',
        'regret',
        'runs',
        'provenance',
    ),
}
FIGURE = ROOT / 'docs/images/annealed_margin.png'
RESAMPLES = 10000

ENSEMBLES = {
    'SEA': ('sea/masked_ce', 'sea/balanced_ce', 'sea/js', 'sea/masked_spherical'),
    'SEA, 3 losses': ('sea/masked_ce', 'sea/masked_balanced_ce', 'sea/js'),
}
SINGLES = {
    'AMA': 'ama',
    'AMA, sigmoid form': 'ama/sigmoid',
    'auto': 'auto',
    'adaptive': 'adaptive',
    'AMA, masked': 'ama/masked',
    'AMA, then its masked form': 'forms',
    'AMA towards the furthest class': 'furthest',
    'auto with one start towards it': 'one start',
    'APGD': 'apgd',
    'SegPGD': 'segpgd',
    'CosPGD': 'cospgd',
    'Jensen-Shannon under the schedule of AMA': 'ama/js',
    'APGD, Jensen-Shannon': 'apgd/js',
    'APGD red-ε, Jensen-Shannon': 'apgd/red-js',
}
# The attacks of the table of regrets, each with its iterations; those of SEA count for each loss.
REGRETS = (
    ('auto', 400), ('adaptive', 400), ('adaptive', 120), ('AMA', 300), ('AMA', 100), ('AMA', 30),
    ('AMA towards the furthest class', 100), ('SEA', 300), ('SEA', 25), ('APGD', 300), ('SegPGD', 300), ('CosPGD', 300),
)  # fmt: skip
# The sets on which the parameters of AMA were chosen. The parts of auto were chosen on these and on the Segmenters, but
# for the held-out images. A record itself says whether adaptive was chosen on it. The others have published parameters.
CHOSEN_FOR_AMA = ('pspnet_at_12', 'pspnet_clean_12')
# The beginnings of the names of the cases of transformers.
TRANSFORMERS = ('segmenter', 'segformer')
# A run that only the cases of the trials for Segmenters have.
TRIAL = 'ama/warmest'
# Okabe and Ito's colours; markers and dashes also distinguish the curves.
STYLES = {
    'AMA': ('#D55E00', 'o', '-'),
    'auto': ('#000000', '*', ''),
    'SEA': ('#0072B2', 's', '--'),
    'SEA, 3 losses': ('#56B4E9', 'D', ':'),
    'APGD': ('#009E73', '^', '-.'),
    'SegPGD': ('#CC79A7', 'v', (0, (5, 1))),
    'CosPGD': ('#E69F00', 'P', (0, (3, 1, 1, 1))),
}


class Results:
    """The stored results of one case.

    Args:
        path: path of the JSON file.
    """

    def __init__(self, path: Path) -> None:
        self.record: dict[str, Any] = json.loads(path.read_text(encoding='utf-8'))
        self.runs = list(self.record['runs'].values())

    @property
    def title(self) -> str:
        """The model and the radius."""
        return f'{self.record["title"]}, {self.record["radius"]}'

    @property
    def clean(self) -> float:
        """Accuracy without attack, the mean over the images."""
        return float(np.mean(self.record['clean']))

    def seeds(self, attack: str, steps: int) -> list[int]:
        """Returns the seeds of the stored runs of one attack with that many iterations."""
        return sorted(run['seed'] for run in self.runs if (run['attack'], run['steps']) == (attack, steps))

    def steps(self, attack: str) -> list[int]:
        """Returns the numbers of iterations that are stored for an attack."""
        return sorted({run['steps'] for run in self.runs if run['attack'] == attack})

    def _of(self, attack: str, steps: int, seed: int, key: str) -> np.ndarray:
        return np.array(self.record['runs'][f'{attack} {steps} {seed}'][key], dtype=float)

    def accuracy(self, name: str, steps: int, seeds: Collection[int] | None = None) -> np.ndarray | None:
        """Returns the accuracy of each image, the mean over the seeds; None if a run is not stored.

        Args:
            name: key of ``ENSEMBLES``, whose worst case per image is taken; of ``SINGLES``; or of a run.
            steps: iterations, of an ensemble of SEA for each loss.
            seeds: only these; by default all that are stored.
        """
        members = ENSEMBLES.get(name) or (SINGLES.get(name, name),)
        common = set.intersection(*(set(self.seeds(member, steps)) for member in members))
        common &= common if seeds is None else set(seeds)
        if not common:
            return None
        by_seed = [
            np.min([self._of(member, steps, seed, 'accuracy') for member in members], axis=0) for seed in sorted(common)
        ]
        return np.mean(by_seed, axis=0)

    @property
    def sea(self) -> np.ndarray:
        """Accuracy of each image under SEA with its largest number of iterations that is stored."""
        values = self.accuracy('SEA', self.all_steps('SEA')[-1])
        assert values is not None
        return values

    @property
    def sea_name(self) -> str:
        """SEA, with the forward passes per image of ``sea``."""
        return f'SEA {self.passes("SEA", self.all_steps("SEA")[-1]):.0f}'

    def all_steps(self, name: str) -> list[int]:
        """Returns the iterations with which every member of ``name`` is stored."""
        members = ENSEMBLES.get(name) or (SINGLES.get(name, name),)
        return sorted(set.intersection(*(set(self.steps(member)) for member in members)))

    def regret(self, name: str, steps: int) -> dict[int, float]:
        """Returns seed -> how many points weaker an attack is than the best of all stored runs of each image."""
        best = np.min([run['accuracy'] for run in self.runs], axis=0)
        members = ENSEMBLES.get(name) or (SINGLES.get(name, name),)
        seeds = set.intersection(*(set(self.seeds(member, steps)) for member in members))
        values = {seed: self.accuracy(name, steps, [seed]) for seed in sorted(seeds)}
        return {seed: 100 * float((value - best).mean()) for seed, value in values.items() if value is not None}

    def chosen_for(self, name: str) -> bool:
        """Returns whether parameters of an attack were chosen on this set."""
        case = self.record['case']
        of_ama = case in CHOSEN_FOR_AMA
        of_auto = of_ama or (case.startswith(('segmenter_clean', 'segmenter_at')) and 'held_out' not in case)
        if name == 'adaptive':
            # The parts are those of auto.
            return of_auto or self.record.get('adaptive_choice', False)
        return (name.startswith('AMA') and of_ama) or (name == 'auto' and of_auto)

    def passes(self, name: str, steps: int, kind: str = 'forward') -> float:
        """Returns the passes per image, the mean over images, of an attack with one seed."""
        members = ENSEMBLES.get(name) or (SINGLES.get(name, name),)
        seed = self.seeds(members[0], steps)[0]
        return float(np.sum([self._of(member, steps, seed, kind).mean() for member in members]))


def interval(values: np.ndarray) -> tuple[float, float]:
    """Returns the 95 % bootstrap interval of the mean over images."""
    rng = np.random.default_rng(0)
    means = rng.choice(values, (RESAMPLES, len(values))).mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def percent(values: np.ndarray | None) -> str:
    """Returns the mean in percent, or a dash."""
    return '-' if values is None else f'{100 * values.mean():.2f}'


def difference(values: np.ndarray | None, reference: np.ndarray | None) -> str:
    """Returns the mean difference in points with its interval over the images, or a dash."""
    if values is None or reference is None:
        return '-'
    points = 100 * (values - reference)
    low, high = interval(points)
    return f'{points.mean():+.2f} [{low:+.2f}, {high:+.2f}]'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Returns a Markdown table, all but the first ``texts`` columns aligned to the right."""
    rule = ['---'] * texts + ['---:'] * (len(header) - texts)
    return '\n'.join(f'| {" | ".join(row)} |' for row in (header, rule, *rows))


def comparison(cases: Sequence[Results]) -> str:
    """Returns the table of SEA, AMA and auto, case by case."""
    rows = [
        [
            case.title,
            str(len(case.record['images'])),
            f'{100 * case.clean:.2f}',
            f'{percent(case.sea)} ({case.sea_name.removeprefix("SEA ")})',
            percent(case.accuracy('AMA', 30)),
            percent(case.accuracy('AMA', 100)),
            percent(case.accuracy('auto', 400)),
            difference(case.accuracy('AMA', 30), case.sea),
            difference(case.accuracy('AMA', 100), case.sea),
            difference(case.accuracy('auto', 400), case.sea),
        ]
        for case in cases
    ]
    header = ['model, radius', 'images', 'clean', 'SEA (passes)', 'AMA (31)', 'AMA (101)', 'auto (406)']
    return table([*header, 'AMA (31) - SEA', 'AMA (101) - SEA', 'auto - SEA'], rows)


def adaptive(cases: Sequence[Results]) -> str:
    """Returns the table of the attack that decides for each image, beside SEA and auto."""
    rows = []
    for case in sorted(cases, key=lambda case: case.record['adaptive_choice']):
        short, long = (case.accuracy('adaptive', steps) for steps in (120, 400))
        auto = case.accuracy('auto', 400)
        rows.append(
            [
                case.title,
                'choice' if case.record['adaptive_choice'] else 'report',
                str(len(case.record['images'])),
                f'{100 * case.clean:.2f}',
                f'{percent(case.sea)} ({case.sea_name.removeprefix("SEA ")})',
                percent(auto),
                *(_with_passes(case, values, steps) for values, steps in ((short, 120), (long, 400))),
                difference(short, case.sea),
                difference(long, case.sea),
                difference(long, auto),
            ]
        )
    header = ['model, radius', 'half', 'images', 'clean', 'SEA (passes)', 'auto', 'adaptive, 120', 'adaptive, 400']
    return table([*header, '120 - SEA', '400 - SEA', '400 - auto'], rows, 2)


def _with_passes(case: Results, values: np.ndarray | None, steps: int) -> str:
    """Returns accuracy, mean and largest forward passes of an image, and the seeds, as text; a dash without a run."""
    if values is None:
        return '-'
    seeds = case.seeds('adaptive', steps)
    passes = [case.record['runs'][f'adaptive {steps} {seed}']['forward'] for seed in seeds]
    return f'{percent(values)} ({np.mean(passes):.0f}, at most {np.max(passes)}; seeds: {len(seeds)})'


def rivals(cases: Sequence[Results]) -> str:
    """Returns the table of accuracy and passes of every attack, case by case."""
    rows = []
    for case in cases:
        for name in (*SINGLES, *ENSEMBLES):
            first = ENSEMBLES.get(name, (SINGLES.get(name),))[0]
            for steps in case.all_steps(name):
                values = case.accuracy(name, steps)
                assert values is not None
                seeds = len(case.seeds(first, steps))
                passes = f'{case.passes(name, steps):.0f}'
                rows.append([case.title, name, passes, str(seeds), percent(values), difference(values, case.sea)])
    return table(['model, radius', 'attack', 'forward passes per image', 'seeds', 'ACC', 'above SEA'], rows, 2)


def regrets(cases: Sequence[Results]) -> str:
    """Returns the table of how much weaker each attack is than the best of all stored runs, at worst.

    The best is taken for each image over all attacks, passes and seeds. The regret of an attack on a set with a seed is
    the mean over the images.
    """
    rows = []
    for name, steps in REGRETS:
        values = [
            (points, case, seed)
            for case in cases
            if steps in case.all_steps(name)
            for seed, points in case.regret(name, steps).items()
        ]
        if not values:
            continue
        cells = [name, f'{max(case.passes(name, steps) for _, case, _ in values):.0f}', str(len(values))]
        for half in (True, False):
            part = [value for value in values if value[1].chosen_for(name) is half]
            worst = max(part, key=lambda value: value[0], default=None)
            cells += ['-'] * 3 if worst is None else [
                str(len({case.title for _, case, _ in part})),
                f'{np.mean([points for points, _, _ in part]):.2f}',
                f'{worst[0]:.2f} ({worst[1].title}, seed {worst[2]})',
            ]  # fmt: skip
        rows.append(cells)
    header = ['attack', 'passes, at most', 'runs']
    for half in ('choice', 'report'):
        header += [f'{half}: sets', 'mean regret', 'worst regret']
    return table(header, rows)


def transformers(cases: Sequence[Results]) -> str:
    """Returns the table of how far AMA alone is above auto on the transformers."""
    rows = []
    for case in cases:
        ama, furthest, auto = (
            case.accuracy(name, steps)
            for name, steps in (('AMA', 100), ('AMA towards the furthest class', 100), ('auto', 400))
        )
        if case.record['case'].startswith(TRANSFORMERS) and ama is not None and auto is not None:
            images = str(len(case.record['images']))
            numbers = [f'{100 * case.clean:.2f}', *map(percent, (ama, furthest, auto))]
            rows.append([case.title, images, *numbers, difference(ama, auto)])
    header = ['model, radius', 'images', 'clean', 'AMA (101)', 'towards the furthest class (102)', 'auto (406)']
    return table([*header, 'AMA - auto'], rows)


def exchanged(cases: Sequence[Results], names: dict[str, str]) -> str:
    """Returns the table of AMA with a part removed, exchanged or set to another value.

    Args:
        cases: those with the runs.
        names: run -> what the table calls it, beside AMA itself; differences are between the same seeds.
    """
    rows = []
    for run, text in {'ama': 'AMA', **names}.items():
        cells = [text]
        for case in cases:
            values, whole = case.accuracy(run, 100), case.accuracy('ama', 100, case.seeds(run, 100))
            cells += [percent(values), difference(values, whole) if run != 'ama' else '']
        rows.append(cells)
    header = ['AMA with 100 iterations, but']
    for case in cases:
        header += [case.title, 'above AMA']
    return table(header, rows)


def tried(cases: Sequence[Results]) -> str:
    """Returns the table of the changes of AMA that were tried for Segmenters, of those that are stored."""
    names = {'furthest': 'towards the furthest class, masked', **cases[0].record['trials']}
    return exchanged(cases, {run: text for run, text in names.items() if any(100 in case.steps(run) for case in cases)})


def provenance(cases: Sequence[Results]) -> str:
    """Returns the provenance of the numbers, one line per case."""
    lines = []
    for case in cases:
        record = case.record
        dates = sorted({run['date'] for run in case.runs})
        minutes = sum(run.get('cpu_seconds', 0) for run in case.runs) / 60
        seeds = ', '.join(map(str, sorted({run['seed'] for run in case.runs})))
        lines.append(
            f'- {case.title}: `{record["config"]}`, checkpoint sha256 '
            f'`{record["checkpoint"]["sha256"][:16]}`, {len(record["images"])} images, attack seeds '
            f'{seeds}; {minutes:.1f} min of processor time on '
            f'{record["hardware"]["processor"]}, one thread, torch {record["versions"]["torch"]}; {" to ".join(dates)}.'
        )
    return '\n'.join(lines)


def draw(cases: Sequence[Results], path: Path) -> None:
    """Writes the figure: how far each attack is above the largest SEA, over the passes."""
    columns = min(3, len(cases))
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.3 * rows + 0.4), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False).flat
    for axes in panels[len(cases) :]:
        axes.axis('off')
    handles: dict[str, Any] = {}
    for axes, case in zip(panels, cases, strict=False):
        for name, (colour, marker, dash) in STYLES.items():
            points = [(case.passes(name, n), 100 * (case.accuracy(name, n) - case.sea)) for n in case.all_steps(name)]
            if not points:
                continue
            passes, means = [x for x, _ in points], [values.mean() for _, values in points]
            bounds = np.array([interval(values) for _, values in points])
            size = 11 if name == 'auto' else 5
            (handles[name],) = axes.plot(
                passes, means, color=colour, marker=marker, linestyle=dash, label=name, markersize=size
            )
            if name in ('AMA', 'auto'):
                errors = np.abs(bounds.T - means)
                axes.errorbar(passes, means, errors, color=colour, linestyle='', capsize=3, linewidth=1)
        axes.axhline(0, color='grey', linewidth=0.8)
        axes.set_xscale('log')
        axes.set_xticks([10, 30, 100, 300, 1200], ['10', '30', '100', '300', '1200'])
        axes.minorticks_off()
        axes.set_xlabel('forward passes per image')
        axes.set_title(case.title, fontsize=10)
        axes.set_ylabel(f'accuracy above {case.sea_name}, points')
        axes.grid(alpha=0.3)
    names = [name for name in STYLES if name in handles]
    figure.legend(
        [handles[name] for name in names],
        names,
        loc='outside lower center',
        ncols=len(names),
        fontsize=9,
        frameon=False,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def filled(text: str, sections: dict[str, str]) -> str:
    """Returns the document with the text between the marks of each section replaced.

    Raises:
        SystemExit: a section has no marks.
    """
    for name, content in sections.items():
        begin, end = f'<!-- {name}: written by benchmarks/annealed_margin_report.py -->', f'<!-- {name}: end -->'
        before, _, rest = text.partition(begin)
        _, mark, after = rest.partition(end)
        if not mark:
            raise SystemExit(f'the document has no lines {begin} and {end}; put them where the table belongs')
        text = f'{before}{begin}\n\n{content}\n\n{end}{after}'
    return text


def stored_cases(folder: Path = RESULTS) -> list[Results]:
    """Returns the cases with a whole SEA, model by model and by radius."""
    cases = [Results(path) for path in folder.glob('*.json')]
    cases.sort(key=lambda case: (case.record['title'], float(case.record['radius'].partition('/')[0])))
    return [case for case in cases if case.all_steps('SEA')]


def compared(cases: Sequence[Results]) -> list[Results]:
    """Returns the cases on which AMA by itself ran too."""
    return [case for case in cases if case.all_steps('AMA')]


def sections() -> dict[str, str]:
    """Returns the text between the marks of the document, for each section."""
    cases = stored_cases()
    stored = list(map(Results, sorted(RESULTS.glob('*.json'))))
    trials = [case for case in stored if 100 in case.all_steps(TRIAL)]
    whole = {
        name: [case for case in cases if all(100 in case.all_steps(run) for run in case.record.get(name, ['none']))]
        for name in ('ablation', 'variants')
    }
    return {
        'comparison': comparison(compared(cases)),
        'adaptive': adaptive([case for case in cases if case.all_steps('adaptive')]),
        **{
            name: exchanged(chosen, chosen[0].record[name]) if chosen else 'Not measured yet.'
            for name, chosen in whole.items()
        },
        'transformers': transformers(stored),
        'trials': tried(trials) if trials else 'Not measured yet.',
        'regret': regrets(cases),
        'runs': rivals(cases),
        'provenance': provenance(cases),
    }


def main() -> None:
    """Writes the tables and the figure."""
    draw([case for case in compared(stored_cases()) if case.all_steps('auto')], FIGURE)
    tables = sections()
    for document, names in DOCUMENTS.items():
        text = filled(document.read_text(encoding='utf-8'), {name: tables[name] for name in names})
        document.write_text(text, encoding='utf-8')


if __name__ == '__main__':
    main()
