"""The study of shared sweeps in docs/evaluation.md: its table is that of the stored results, and says what they say."""

import json

import radius_sweep

STORED = json.loads(radius_sweep.PATH.read_text(encoding='utf-8'))


def test_the_page_shows_the_stored_numbers():
    assert radius_sweep.section(STORED) in radius_sweep.PAGE.read_text(encoding='utf-8')


def test_rows_have_the_means_and_the_passes_of_all_radii():
    part = {'accuracy': [0.5, 0.25], 'forward': [3, 5], 'backward': [2, 4]}
    one = {'title': 'Net', 'clean': [1.0, 0.5], 'images': ['a', 'b'], 'radii': {'1/255': part, '2/255': part}}
    record = {'radii': ['1/255', '2/255'], 'sweeps': {'net': {'shared': one}}}
    assert radius_sweep.table(record).splitlines()[2] == '| Net | shared | 75.00 | 37.50 | 37.50 | 8 |'


def test_a_shared_sweep_costs_less_and_is_not_weaker():
    for sweeps in STORED['sweeps'].values():
        own, shared = sweeps['independent'], sweeps['shared']
        assert own['checkpoint'] == shared['checkpoint'] and own['images'] == shared['images']
        forward = [sum(sum(part['forward']) for part in one['radii'].values()) for one in (own, shared)]
        assert forward[1] < 0.9 * forward[0]
        for radius, part in own['radii'].items():
            mean = sum(part['accuracy']) / len(part['accuracy'])
            assert sum(shared['radii'][radius]['accuracy']) / len(part['accuracy']) < mean + 0.001
