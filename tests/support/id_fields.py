"""Where ids stand in the calls of a dialect: path, query or body, by route.

``IdField`` marks such a place; everything else is sent as it is. A field whose name begins with ``?`` goes into the
query of a POST. A route without probes has no ids. Each dialect's test folder has three mappings in ``id_fields.py``:
``FIELDS`` has the probes by route; ``EXEMPT``, by route or by route and field, where the vendor wants another's to look
unlike an absent one, or where nothing is looked up; ``NOT_IDS`` fields that look like ids of a conversation, message,
run, file or agent and are none.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Probe = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class IdField:
    """A place for an id of the caller's own. ``silent``: the call answers an absent one like an own one."""

    kind: str
    forms: tuple[str, ...]
    silent: bool = False


UUIDS = ("hex", "uuid")
ANY_NAME = (*UUIDS, "alias")
