"""The study of hierarchical certificates: its table and section, from a record."""

import hierarchical_certificates as study

RECORD = {
    'config': 'c.py',
    'sigma': 0.1,
    'images': 2,
    'levels': [{'a': ['x', 'y']}],
    'radii': [{'tau': 0.75, 'radius': 0.0674, 'levels': [[0.8, 0.75, 0.75], [0.15, 0.1, 0.05]]}],
    'seconds': [[1.0, 1.1], [1.0, 1.4]],
}
MACHINE = {'processor': 'P', 'threads': 1, 'accelerators': []}
CONTENT = {'records': [RECORD], 'hardware': MACHINE, 'versions': {'torch': '2', 'mmadv': '1'}, 'date': '2026-01-01'}


def test_the_table_has_both_certificates():
    assert study.table(RECORD).splitlines()[2] == '| 0.067 | 0.75 | 80.0 | 20.0 | 15.0 | 5.0 | 75.0 | 80.0 |'


def test_the_section_gives_the_ratio_of_the_throughputs():
    assert 'Throughput with the hierarchy: 0.80 times that of the flat certificate, on 2 images.' in study.section(
        CONTENT
    )
