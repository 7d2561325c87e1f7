"""The run for a GPU, to its end with small models on the device at hand; its file, its limits and its table."""

import json

import gpu
import gpu_report
import pytest
import torch
from experiments import RESULTS, ROOT

SKIPS = 'needs CUDA'


@pytest.fixture(scope='module')
def content(tmp_path_factory):
    """What a tiny run stores."""
    out = tmp_path_factory.mktemp('gpu') / 'gpu.json'
    gpu.main(['--tiny', '--minutes', '5', '--out', str(out)])
    return json.loads(out.read_text(encoding='utf-8'))


def test_tiny_run_measures_all_that_needs_no_cuda(content):
    records = content['records']
    assert content['tiny'] and len(records) == len(gpu.plan(gpu.TINY, 'cpu'))
    names = [gpu_report.name_of(record) for record in records]
    assert len(set(names)) == len(names)
    done = [record for record in records if record['state'] == 'done']
    assert {record['variant'] for record in done if record['kind'] == 'attack'} >= {
        gpu.BARE, 'fp32', 'bf16 forward, fp32 loss', 'channels_last', 'bf16, channels_last',
    }  # fmt: skip
    attacks = [record for record in done if record['kind'] == 'attack']
    cases = {gpu_report.case_of(record) for record in attacks}
    assert cases == {(title, classes, batch) for title in gpu.TINY.configs for classes in (21, 151) for batch in (1, 2)}
    assert all(0 <= record['accuracy'] <= 1 and record['images_per_second'] > 0 for record in attacks)
    assert {record['variant'] for record in done if record['kind'] == 'training'} >= {'fp32'}
    for record in records:
        assert record['state'] == 'done' or (record['state'] == 'skipped' and SKIPS in record['reason'])
    if not torch.cuda.is_available():
        skipped = {record.get('variant') for record in records if record['state'] == 'skipped'}
        assert skipped >= {'TF32', *gpu.GRAPHS, *gpu.COMPILED, 'AMP, bf16', 'AMP, fp16'}


def test_variants_attack_the_same_model(content):
    attacks = [record for record in content['records'] if record['kind'] == 'attack' and record['state'] == 'done']
    for case in {gpu_report.case_of(record) for record in attacks}:
        left = {record['variant']: record['accuracy'] for record in attacks if gpu_report.case_of(record) == case}
        assert left['channels_last'] == pytest.approx(left['fp32'], abs=0.01)
        assert all(value <= left[gpu.BARE] + 0.02 for value in left.values())


def test_a_batch_and_its_images_alone_agree(content):
    checks = [record for record in content['records'] if record['kind'] == 'sanity']
    assert [record['check'] for record in checks] == ['device against CPU', 'batch against single images']
    assert all(record['accuracy_difference'] <= 0.01 and record['equal_predictions'] > 0.99 for record in checks)


def test_an_error_and_the_end_of_the_time_cost_one_measurement_each(tmp_path, monkeypatch):
    def fails(_):
        raise ValueError('no such kernel')

    def waits(_):
        while True:
            pass

    stored = []
    jobs = [
        gpu.Job({'kind': 'a'}, fails),
        gpu.Job({'kind': 'b'}, lambda left: {'left': left}, seconds=0),
        gpu.Job({'kind': 'c'}, waits, seconds=0),
        gpu.Job({'kind': 'd'}, fails),
    ]
    monkeypatch.setattr(gpu, 'plan', lambda scale, device: jobs)
    monkeypatch.setattr(gpu, 'save', lambda path, content: stored.append(len(content['records'])))
    jobs[0] = gpu.Job({'kind': 'a'}, fails, seconds=0)
    records = gpu.run(gpu.TINY, 'cpu', 1.5 / 60, tmp_path / 'gpu.json')
    assert stored == [1, 2, 3, 4]
    assert records[0] == {'kind': 'a', 'state': 'failed', 'reason': 'ValueError: no such kernel'}
    assert records[1]['state'] == 'done' and 0 < records[1]['left'] <= 1.5
    assert records[2] == {'kind': 'c', 'state': 'skipped', 'reason': 'the time was over before it ended'}
    assert records[3]['state'] == 'skipped' and records[3]['reason'].endswith('s are left, less than 10 s')


def test_file_is_replaced_whole(tmp_path):
    path = tmp_path / 'new' / 'gpu.json'
    gpu.save(path, {'records': []})
    with pytest.raises(ValueError, match='not JSON compliant'):
        gpu.save(path, {'records': [float('nan')]})
    assert json.loads(path.read_text(encoding='utf-8')) == {'records': []}


def test_real_results_are_not_replaced_by_tiny_ones():
    with pytest.raises(SystemExit, match='--tiny needs --out'):
        gpu.main(['--tiny'])


@pytest.mark.skipif(torch.cuda.is_available(), reason='there is a CUDA device')
def test_without_a_gpu_nothing_runs_at_full_size():
    with pytest.raises(SystemExit, match='no CUDA device'):
        gpu.main([])


def test_tiny_results_are_not_published(content):
    with pytest.raises(SystemExit, match='no numbers of a GPU at full size'):
        gpu_report.publish(content, ROOT)


def test_table_has_speed_over_the_bare_loop_of_the_same_case(content):
    text = gpu_report.section(content)
    records = [record for record in content['records'] if record['kind'] == 'attack' and record['state'] == 'done']
    bare, fp32 = (
        next(r for r in records if (gpu_report.case_of(r), r['variant']) == (('Segmenter + ViT-S', 151, 2), variant))
        for variant in (gpu.BARE, 'fp32')
    )
    speed = fp32['images_per_second'] / bare['images_per_second']
    start = f'| Segmenter + ViT-S | 151 | 2 | fp32 | {fp32["images_per_second"]:.2f} | {speed:.2f} | '
    assert start in text
    assert '| Segmenter + ViT-S | fp32 | ' in text and 'Batch against single images: accuracies differ by' in text


def test_page_has_the_stored_numbers_or_says_that_there_are_none():
    page = (ROOT / 'docs/performance.md').read_text(encoding='utf-8')
    path = RESULTS / 'gpu.json'
    if path.is_file():
        assert gpu_report.section(json.loads(path.read_text(encoding='utf-8'))) in page
    else:
        assert 'No GPU was at hand, so the table of this section is missing.' in page
