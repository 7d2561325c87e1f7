"""Measures our attacks against those of adv-lib and torchattacks on the same models, at the same number of gradients.

    pip install 'setuptools<81' wheel && pip install --no-build-isolation visdom && pip install '.[peers]'
    python benchmarks/against_peers.py

(adv-lib needs visdom, whose source package only builds with an older setuptools.)

ALMA prox, PDPGD and DAG of adv-lib have another goal than ours: they look for the smallest perturbation that flips 99 %
of an image's pixels, not for the most pixels within a radius. They run with their own goal. We score each result in two
ways. Unchanged: an image counts as attacked only if the perturbation lies within the radius; otherwise its clean
accuracy counts. Projected: the result is projected to the radius, and the lower of its accuracy and the clean accuracy
counts. The projected score is never the higher one. Our attacks and torchattacks' PGD stay within the radius by
themselves. If a library or an attack does not run, the table shows its error message. Writes docs/evidence_attacks.md,
docs/images/against_peers.png and benchmarks/results/.

The checkpoints are those of ``make demo`` and of benchmarks/camvid.py. A case without its checkpoint is left out.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

# adv-lib compiles a part of ALMA prox. The same code also runs without compilation, and then needs no compiler.
if __name__ == '__main__':
    os.environ.setdefault('TORCHDYNAMO_DISABLE', '1')

import torch
from annealed_margin import Case, Loaded, accuracy_of, load
from experiments import ROOT, provenance, store, write_section
from mmseg.utils import register_all_modules
from torch import Tensor, nn

from mmadv.attacks import APGD, Linf, MaskedCrossEntropy, RadiusReduction, ama, auto, derive_seed, parse_radius, sea
from mmadv.checkpoints.loading import file_sha256

CAMVID_IMAGES = tuple(i * 101 // 4 for i in range(4))
CASES = {
    'digits': Case(
        'digits',
        'digit scenes, PSPNet, standard training',
        'configs/demo/pspnet_clean_digits.py',
        'demo_output/pspnet_clean_digits/training/iter_200.pth',
        '8/255',
        tuple(range(4, 128, 16)),
        '',
    ),
    'camvid': Case(
        'camvid',
        'CamVid, UPerNet with a ResNet-18, standard training',
        'configs/clean/upernet_r18_clean_camvid.py',
        'work_dirs/camvid/upernet_r18_clean_camvid/iter_800.pth',
        '4/255',
        CAMVID_IMAGES,
        '',
    ),
    'camvid_at': Case(
        'camvid_at',
        'CamVid, UPerNet with a ResNet-18, adversarial training',
        'configs/at/upernet_r18_pgd3_camvid.py',
        'work_dirs/camvid/upernet_r18_pgd3_camvid/iter_800.pth',
        '4/255',
        CAMVID_IMAGES,
        '',
    ),
}
BUDGETS = (10, 30, 100, 300)
FIGURE = ROOT / 'docs/images/against_peers.png'
SHARE = 0.99  # of the pixels that adv-lib's attacks want flipped, their own default
LIBRARIES = {'adv-lib': 'adv_lib', 'torchattacks': 'torchattacks'}


class Counted(nn.Module):
    """A model that counts the images it passes forward, and those whose gradient is taken."""

    def __init__(self, model: Callable[[Tensor], Tensor], parameter: nn.Parameter) -> None:
        super().__init__()
        self.inner = (model,)  # in a tuple, so that it is not a submodule
        self.parameter = parameter  # torchattacks reads the device off the parameters
        self.forward_passes = self.backward_passes = 0

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits."""
        logits = self.inner[0](images)
        self.forward_passes += len(images)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient: Tensor) -> None:
        self.backward_passes += len(gradient)


Attacked = Callable[[Counted, Loaded, float, int], Tensor]


def ours(make: Callable[[float, int], Any]) -> Attacked:
    """Returns a runner of one of our attacks."""

    def run(model: Counted, loaded: Loaded, radius: float, budget: int) -> Tensor:
        seeds = [derive_seed(0, name) for name in loaded.names]
        ignored = loaded.model.ignore_index
        return make(radius, budget)(model, loaded.images, loaded.labels, seeds=seeds, ignore_index=ignored).images

    return run


def alma_prox(model: Counted, loaded: Loaded, radius: float, budget: int) -> Tensor:
    """Returns the result of adv-lib's ALMA prox."""
    from adv_lib.attacks.segmentation import alma_prox

    return alma_prox(model, *_minimum_norm(loaded), num_steps=budget, adv_threshold=SHARE)


def pdpgd(model: Counted, loaded: Loaded, radius: float, budget: int) -> Tensor:
    """Returns the result of adv-lib's PDPGD in the maximum norm."""
    from adv_lib.attacks.segmentation import pdpgd

    images, labels, masks = _minimum_norm(loaded)
    return pdpgd(model, images, labels, float('inf'), masks, num_steps=budget, adv_threshold=SHARE)


def dag(model: Counted, loaded: Loaded, radius: float, budget: int) -> Tensor:
    """Returns the result of adv-lib's DAG, with steps of 0.001 in the maximum norm; failed images stay unchanged."""
    from adv_lib.attacks.segmentation import dag

    return dag(model, *_minimum_norm(loaded), max_iter=budget, adv_threshold=SHARE, γ=0.001)


def torchattacks_pgd(model: Counted, loaded: Loaded, radius: float, budget: int) -> Tensor:
    """Returns the result of torchattacks' PGD; void pixels get the label that its cross-entropy ignores."""
    import torchattacks

    labels = loaded.labels.masked_fill(loaded.labels == loaded.model.ignore_index, -100)
    torch.manual_seed(0)
    return torchattacks.PGD(model, eps=radius, alpha=radius / 4, steps=budget)(loaded.images, labels)


def _minimum_norm(loaded: Loaded) -> tuple[Tensor, Tensor, Tensor]:
    """Returns images, labels without void ones, and which pixels count, as adv-lib takes them."""
    masks = loaded.labels != loaded.model.ignore_index
    return loaded.images.clone(), loaded.labels.masked_fill(~masks, 0), masks


# name -> (library, runner); SEA shares the budget among its four losses.
ATTACKS: dict[str, tuple[str, Attacked]] = {
    'APGD red-ε, masked CE': (
        'mmadv',
        ours(lambda r, n: RadiusReduction(attack=APGD(threat=Linf(radius=r), steps=n, objective=MaskedCrossEntropy()))),
    ),
    'SEA': ('mmadv', ours(lambda r, n: sea(r, n // 4))),
    'AMA': ('mmadv', ours(ama)),
    'auto': ('mmadv', ours(auto)),
    'PGD': ('torchattacks', torchattacks_pgd),
    'ALMA prox': ('adv-lib', alma_prox),
    'PDPGD': ('adv-lib', pdpgd),
    'DAG': ('adv-lib', dag),
}


def measured(name: str, loaded: Loaded, radius: float, budget: int) -> dict[str, Any]:
    """Returns the scores of an attack's result in both ways and its cost, or the reason why it did not run."""
    library, run = ATTACKS[name]
    record: dict[str, Any] = {'attack': name, 'library': library, 'budget': budget}
    if library in LIBRARIES:
        try:
            record['version'] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            return {**record, 'failed': f"not installed; pip install '.[peers]' ({library})"}
    model = Counted(loaded.model, next(loaded.model.segmentor.parameters()))
    start = time.process_time()
    try:
        adversarial = run(model, loaded, radius, budget).detach()
    except Exception as error:  # a peer's, which the table tells of
        if library not in LIBRARIES:
            raise
        return {**record, 'failed': f'{type(error).__name__}: {str(error).splitlines()[0]}'}
    seconds = time.process_time() - start
    return {
        **record,
        'forward': model.forward_passes / len(loaded.images),
        'backward': model.backward_passes / len(loaded.images),
        'seconds': round(seconds, 1),
        **judged(adversarial, loaded, radius),
    }


@torch.no_grad()
def judged(adversarial: Tensor, loaded: Loaded, radius: float) -> dict[str, Any]:
    """Returns the mean accuracies of an attack's images, within the radius and projected to it, and the norms."""

    def accuracy(images: Tensor) -> Tensor:
        predictions = loaded.model(images).argmax(1)
        return torch.tensor(accuracy_of(predictions, loaded.labels, loaded.model.ignore_index))

    clean, free = accuracy(loaded.images), accuracy(adversarial)
    norms = (adversarial - loaded.images).abs().flatten(1).amax(1)
    inside = norms <= radius * (1 + 1e-5)
    projected = (loaded.images + (adversarial - loaded.images).clamp(-radius, radius)).clamp(0, 1)
    within = torch.where(inside, free, clean)
    return {
        'clean': float(clean.mean()),
        'within': float(within.mean()),
        'projected': float(torch.minimum(accuracy(projected), clean).mean()),
        'norm': float(norms.median()),
        'goal_reached': float((free <= 1 - SHARE).double().mean()),
        'goal_within': float((within <= 1 - SHARE).double().mean()),
    }


def table(records: list[dict[str, Any]]) -> str:
    """Returns the Markdown table of one case: accuracies per budget, then the rest at the largest budget of a row."""
    budgets = sorted({row['budget'] for row in records})
    head = ['attack', 'library', *(f'{n} gradients' for n in budgets), 'within the radius only', 'median norm, /255']
    head += ['forward passes', 'gradients taken', 'seconds']
    lines = [f'| {" | ".join(head)} |', f'|---|---|{"---:|" * (len(head) - 2)}']
    for name in ATTACKS:
        rows = {row['budget']: row for row in records if row['attack'] == name}
        if not rows:
            continue
        last = rows[max(rows)]
        accuracies = [_accuracy(rows[n]) if n in rows else '-' for n in budgets]
        costs = [''] * 5
        if 'failed' not in last:
            costs = [f'{100 * last["within"]:.2f}', f'{255 * last["norm"]:.1f}']
            costs += [f'{last["forward"]:.0f}', f'{last["backward"]:.0f}', f'{last["seconds"]:.1f}']
        library = f'{last["library"]} {last.get("version", "")}'.strip()
        lines.append(f'| {" | ".join([name, library, *accuracies, *costs])} |')
    return '\n'.join(lines)


def _accuracy(row: dict[str, Any]) -> str:
    return row['failed'] if 'failed' in row else f'{100 * row["projected"]:.2f}'


def draw(content: dict[str, Any], path: Path) -> None:
    """Writes the figure: accuracy, projected to the radius, over the gradients of each attack."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    ran = [row for row in content['records'] if 'failed' not in row]
    cases = {name: [row for row in ran if row['case'] == name] for name in CASES}
    cases = {name: rows for name, rows in cases.items() if len({row['budget'] for row in rows}) > 1}
    if not cases:
        return
    figure = Figure(figsize=(4.4 * len(cases), 3.8), layout='constrained')
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(cases), squeeze=False).flat
    for axes, (name, rows) in zip(panels, cases.items(), strict=True):
        for index, attack in enumerate(ATTACKS):
            points = sorted((row['budget'], 100 * row['projected']) for row in rows if row['attack'] == attack)
            dash = '-' if ATTACKS[attack][0] == 'mmadv' else '--'
            if points:
                axes.plot(*zip(*points, strict=True), dash, marker='os^vDPX*'[index], label=attack, color=f'C{index}')
        axes.axhline(100 * rows[0]['clean'], color='grey', linewidth=0.8)
        axes.set_xscale('log')
        budgets = sorted({row['budget'] for row in rows})
        axes.set_xticks(budgets, [str(n) for n in budgets])
        axes.minorticks_off()
        axes.set_title(f'{CASES[name].title}, {CASES[name].radius}', fontsize=9)
        axes.set_xlabel('gradients per image')
        axes.set_ylabel('accuracy, %')
        axes.grid(alpha=0.3)
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, loc='outside lower center', ncols=4, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def section(content: dict[str, Any]) -> str:
    """Returns the Markdown text of all cases."""
    parts = []
    for name, case in CASES.items():
        records = [record for record in content['records'] if record['case'] == name]
        if not records:
            command = f'python benchmarks/against_peers.py --cases {name}'
            parts.append(f'**{case.title}.** Not measured yet: `{command}` measures it.')
            continue
        clean = next((100 * row['clean'] for row in records if 'clean' in row), float('nan'))
        parts.append(
            f'**{case.title}, {case.radius}.** `{case.config}`, checkpoint sha256 `{records[0]["checkpoint"][:16]}`, '
            f'{len(case.images)} images in one batch, {clean:.2f} % clean.'
        )
        parts.append(table(records))
    return '\n\n'.join([*parts, provenance(content), '```bash\npython benchmarks/against_peers.py\n```'])


def main() -> None:
    """Runs all attacks on the chosen cases, keeps the stored results of other cases, and writes the section."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--cases', nargs='+', choices=CASES, default=list(CASES))
    parser.add_argument('--attacks', nargs='+', choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument('--budgets', nargs='+', type=int, default=list(BUDGETS), help='gradients for each image')
    arguments = parser.parse_args()
    register_all_modules()
    torch.set_num_threads(1)
    file = ROOT / 'benchmarks/results/against_peers.json'
    stored = json.loads(file.read_text(encoding='utf-8'))['records'] if file.is_file() else []
    for name in arguments.cases:
        case = CASES[name]
        if not (ROOT / case.checkpoint).is_file():
            print(f'{name}: no checkpoint {case.checkpoint}; left out')
            continue
        loaded, sha256 = load(case), file_sha256(ROOT / case.checkpoint)
        for budget in arguments.budgets:
            for attack in arguments.attacks:
                record = measured(attack, loaded, parse_radius(case.radius), budget)
                print(name, record, flush=True)
                same = (name, attack, budget)
                stored = [row for row in stored if (row['case'], row['attack'], row['budget']) != same]
                stored.append({'case': name, 'radius': case.radius, 'checkpoint': sha256, **record})
                content = json.loads(store('against_peers', stored).read_text(encoding='utf-8'))
                write_section(ROOT / 'docs/evidence_attacks.md', 'benchmarks/against_peers.py', section(content))
    if stored:
        draw(json.loads(file.read_text(encoding='utf-8')), FIGURE)


if __name__ == '__main__':
    main()
