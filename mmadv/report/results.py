"""Reading and writing of result folders; docs/results.md describes the schema."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from mmadv.errors import UserError
from mmadv.files import check_regular
from mmadv.report.result_check import check_results

SCHEMA = 'mmadv/results'
SCHEMA_VERSION = 1
FILE_NAME = 'results.json'


def load_results(folder: str | Path) -> dict[str, Any]:
    """Returns the content of the ``results.json`` of a result folder; ``RunResults.load`` returns it as a type.

    Raises:
        UserError: there is none, it is cut short, or it is of another schema version.
    """
    path = Path(folder) / FILE_NAME
    check_regular(path, 'results')
    try:
        results = json.loads(path.read_text(encoding='utf-8'), parse_constant=_refuse_constant)
    except OSError as error:
        raise UserError(
            f'results {path} cannot be read: {error.strerror}; give a folder that mmadv test wrote'
        ) from None
    except (ValueError, RecursionError) as error:
        raise UserError(f'results {path} is not JSON ({error}); run mmadv test again') from None
    if not isinstance(results, dict) or results.get('schema') != SCHEMA:
        raise UserError(f"results {path} is not of the schema '{SCHEMA}'; give a folder that mmadv test wrote")
    if results.get('schema_version') != SCHEMA_VERSION:
        raise UserError(
            f'results {path} has schema version {results.get("schema_version")}, this mmadv reads {SCHEMA_VERSION}; '
            'use the mmadv that wrote it, or run mmadv test again'
        )
    check_results(results, f'results {path}')
    return results


def _refuse_constant(name: str) -> Any:
    raise ValueError(f'{name} is no number')
