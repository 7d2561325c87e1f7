"""JSON files of a schema that a command of mmadv wrote, read again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmadv.errors import UserError
from mmadv.files import check_regular


@dataclass(frozen=True)
class JsonFile:
    """A kind of file.

    Attributes:
        what: what the file holds, in sentences.
        schema: name of the schema, which the file states.
        version: the version of the schema that is read.
        command: the command that writes the file.
    """

    what: str
    schema: str
    version: int
    command: str

    def read(self, path: Path) -> dict[str, Any]:
        """Returns the content of a file of this schema.

        Raises:
            UserError: there is no file, it is not JSON, or it is of another schema or version.
        """
        content = self.read_any(path)
        if not isinstance(content, dict) or content.get('schema') != self.schema:
            raise UserError(
                f"{self.what} {path} is not of the schema '{self.schema}'; give a folder that {self.command} wrote"
            )
        if content.get('schema_version') != self.version:
            raise UserError(
                f'{self.what} {path} has schema version {content.get("schema_version")}, this mmadv reads '
                f'{self.version}; use the mmadv that wrote it, or run {self.command} again'
            )
        return content

    def read_any(self, path: Path) -> Any:
        """Returns the content of a file of any schema."""
        check_regular(path, self.what)
        try:
            return json.loads(path.read_text(encoding='utf-8'), parse_constant=_refuse_constant)
        except OSError as error:
            raise UserError(
                f'{self.what} {path} cannot be read: {error.strerror}; give a folder that {self.command} wrote'
            ) from None
        except (ValueError, RecursionError) as error:
            raise UserError(f'{self.what} {path} is not JSON ({error}); run {self.command} again') from None


def _refuse_constant(name: str) -> Any:
    raise ValueError(f'{name} is not a number')
