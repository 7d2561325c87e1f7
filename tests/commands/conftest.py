"""Fixtures of commands that are stopped where their work begins."""

from stopped_commands import command_folder, stopped

__all__ = ['command_folder', 'stopped']
