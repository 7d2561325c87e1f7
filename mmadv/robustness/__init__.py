"""Robustness measures in pure numpy and torch: confusion counts, their metrics and the worst case."""

from mmadv.robustness.counts import Counts, count, greedy_worst_case, metrics, worst_case

__all__ = ['Counts', 'count', 'greedy_worst_case', 'metrics', 'worst_case']
