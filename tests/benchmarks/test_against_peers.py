"""How the comparison with other libraries reads what they return, on a model that can be worked out by hand."""

import json
from pathlib import Path

import against_peers
import long_run
import pytest
import torch

BENCHMARKS = Path(__file__).parents[2] / 'benchmarks'


class Threshold:
    """Class 1 where a pixel is above one half."""

    ignore_index = 255

    def __call__(self, images):
        return torch.cat([0.5 - images, images - 0.5], dim=1)


def loaded(values):
    from annealed_margin import Loaded

    images = torch.tensor(values)[:, None, None, :]
    labels = (images[:, 0] > 0.5).long()
    labels[:, :, -1] = 255
    return Loaded(Threshold(), images, labels, [str(n) for n in range(len(values))])


def test_images_outside_the_radius_count_as_clean_or_projected():
    case = loaded([[0.45, 0.2, 0.2], [0.45, 0.3, 0.2], [0.2, 0.2, 0.2]])
    change = torch.tensor([[0.1, 0.0, 0.0], [0.4, 0.4, 0.0], [0.0, 0.0, 0.9]])[:, None, None, :]
    actual = against_peers.judged(case.images + change, case, 0.1)
    assert actual['clean'] == 1
    assert actual['within'] == pytest.approx((0.5 + 1 + 1) / 3)  # the first alone is inside
    assert actual['projected'] == pytest.approx((0.5 + 0.5 + 1) / 3)  # of the second, one pixel flips within 0.1
    assert actual['norm'] == pytest.approx(0.4)
    assert actual['goal_reached'] == pytest.approx(1 / 3) and actual['goal_within'] == 0


def test_passes_are_counted_by_image():
    model = against_peers.Counted(Threshold(), torch.nn.Parameter(torch.zeros(1)))
    images = torch.zeros(3, 1, 2, 2, requires_grad=True)
    with torch.no_grad():
        model(images[:2])
    (gradient,) = torch.autograd.grad(model(images)[:, 1].sum(), images)
    assert (model.forward_passes, model.backward_passes) == (5, 3)
    assert torch.equal(gradient, torch.ones_like(images))


def test_a_library_that_fails_is_named_in_the_table(monkeypatch):
    def fails(*_):
        raise RuntimeError('shapes differ\nmore')

    case = loaded([[0.4, 0.2, 0.2]])
    case.model.segmentor = torch.nn.Linear(1, 1)
    monkeypatch.setitem(against_peers.ATTACKS, 'broken', ('adv-lib', fails))
    monkeypatch.setattr(against_peers.importlib.metadata, 'version', lambda name: '1.2')
    record = against_peers.measured('broken', case, 0.1, 10)
    assert record['failed'] == 'RuntimeError: shapes differ'
    assert '| broken | adv-lib 1.2 | RuntimeError: shapes differ |' in against_peers.table([record])
    monkeypatch.setitem(against_peers.ATTACKS, 'broken', ('mmadv', fails))
    with pytest.raises(RuntimeError, match='shapes differ'):
        against_peers.measured('broken', case, 0.1, 10)


def test_a_long_run_is_judged_by_its_memory_and_its_records(tmp_path):
    from mmadv.evaluation.result_store import write_records

    (tmp_path / 'out').mkdir()
    results = {'schema': 'mmadv/results', 'schema_version': 1, 'evaluation': {'images': 100}, 'seconds': {'total': 9.0}}
    (tmp_path / 'out/results.json').write_text(json.dumps(results))
    write_records(tmp_path / 'out/records.jsonl', {}, ({'index': n} for n in range(100)))
    samples = [(done, 1000 + done) for done in range(0, 101, 5)]
    record = long_run.judged(tmp_path, 100, 0, samples)
    assert record['nothing_lost'] and not record['flat']
    assert record['growth'] == pytest.approx(1095 / 1005 - 1) and record['memory_early'] == 1005
    assert long_run.judged(tmp_path, 100, 0, [(done, 1000) for done, _ in samples])['flat']
    write_records(tmp_path / 'out/records.jsonl', {}, ({'index': max(n, 1)} for n in range(100)))
    assert not long_run.judged(tmp_path, 100, 0, samples)['nothing_lost']
    with pytest.raises(SystemExit, match='failed with status 3'):
        long_run.judged(tmp_path, 100, 3, samples)


def test_figure_has_a_panel_for_each_case_with_several_budgets(monkeypatch, tmp_path):
    from matplotlib.figure import Figure

    several, single = list(against_peers.CASES)[:2]
    rows = [
        {'case': case, 'attack': attack, 'budget': budget, 'projected': value, 'clean': 0.9}
        for case, attack, budget, value in (
            (several, 'AMA', 100, 0.4),
            (several, 'AMA', 10, 0.5),
            (several, 'SEA', 10, 0.6),
            (single, 'AMA', 10, 0.7),
        )
    ]
    rows.append({'case': several, 'attack': 'DAG', 'budget': 10, 'failed': 'RuntimeError'})
    drawn = []
    monkeypatch.setattr(Figure, 'savefig', lambda self, *args, **kwargs: drawn.append(self))
    against_peers.draw({'records': rows}, tmp_path / 'figure.png')
    (axes,) = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines()[:-1]}
    assert lines == {'SEA': [[10, 60]], 'AMA': [[10, 50], [100, 40]]}
    assert axes.get_lines()[-1].get_ydata() == [90, 90]
    against_peers.draw({'records': rows[3:]}, tmp_path / 'figure.png')
    assert len(drawn) == 1
