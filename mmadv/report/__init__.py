"""Tables, pictures and reports, made from result JSON and arrays alone."""

from mmadv.report.curve import draw_curve
from mmadv.report.html import write_report
from mmadv.report.pictures import Example, draw_example
from mmadv.report.results import SCHEMA, SCHEMA_VERSION, load_results
from mmadv.report.table import class_table, summary_table

__all__ = [
    'SCHEMA',
    'SCHEMA_VERSION',
    'Example',
    'class_table',
    'draw_curve',
    'draw_example',
    'load_results',
    'summary_table',
    'write_report',
]
