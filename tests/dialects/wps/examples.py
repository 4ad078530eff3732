"""Values of the specification's examples: an agent, a question and its answer."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from palaver.core.types import Agent, AgentSpec, AnyPart, File, Message, Text
from palaver.dialects.wps.stream import WpsEncoder, WpsStreamOptions

SESSION = "7038a190-c4e9-44c3-9305-f560266be942"
CHAT = "a550de06-0198-4a57-a5cd-75000522bf1d"
FLOW = "72cdefc1-940c-428d-bd8e-198386f3de5c"
QUESTION = "1c0ffee0-5a1d-4b3c-9e2f-7d6c5b4a3921"
ASKED = datetime(2025, 5, 9, 7, 3, 43, 100_000, tzinfo=UTC)
BEGAN = datetime(2025, 5, 9, 7, 3, 43, 200_000, tzinfo=UTC)
ENDED_MS = 1_746_774_224_650
"""2025-05-09T07:03:44.650Z"""
NOW = 1_746_774_223.5

AGENT = Agent(app=1, id=1, uid=UUID(FLOW), spec=AgentSpec(name="guide"), created=ASKED, modified=ASKED)


def encoder(
    form: WpsStreamOptions | None = None, *, text: str = "hi", files: tuple[str, ...] = (), waiting: bool = False
) -> WpsEncoder:
    """An encoder of the example's run."""
    parts: tuple[AnyPart, ...] = (Text(text=text), *(File(ref=ref) for ref in files))
    question = Message(app=1, id=1, uid=UUID(QUESTION), conversation=1, role="user", parts=parts, created=ASKED)
    answer = Message(app=1, id=2, uid=UUID(CHAT), conversation=1, role="assistant", created=BEGAN, waiting=waiting)
    return WpsEncoder(SESSION, AGENT, question, answer, form or WpsStreamOptions())
