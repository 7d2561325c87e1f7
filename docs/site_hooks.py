"""What mkdocs runs while it builds the site.

It puts the help of every command into the page of the commands, and keeps pages from loading anything from elsewhere.
"""

from __future__ import annotations

import os
import re
from importlib import import_module
from typing import Any

PLACE = '<!-- the help of every command -->'


def help_of_every_command() -> str:
    """Returns the help texts as Markdown, one section for each command."""
    from mmadv.commands.main import COMMANDS

    os.environ['COLUMNS'] = '100'
    sections = []
    for name, command in COMMANDS.items():
        parser = import_module(f'mmadv.commands.{command.module}').parser()
        sections.append(f'## mmadv {name}\n\n```text\n{parser.format_help().rstrip()}\n```\n')
    return '\n'.join(sections)


def on_post_page(output: str, **_: Any) -> str:
    """Returns the HTML of a page without scripts from elsewhere: one that searches without a server, alone."""
    return re.sub(r'<script src="https://[^"]*"></script>', '', output)


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Returns the Markdown of a page, with the help texts in their place."""
    return markdown.replace(PLACE, help_of_every_command()) if PLACE in markdown else markdown
