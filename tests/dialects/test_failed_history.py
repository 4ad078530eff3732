"""A turn that failed before its first word reads back as a failure, with the reason wherever its vendor has a place for
one: through every call that reads a conversation."""

from __future__ import annotations

import pytest
from support.adapters import ADAPTERS
from support.live_server import Served, Step
from support.turns import FailedTurnForm

WITHOUT_WORDS: tuple[Step, ...] = ({"fail": "refused"},)
HALFWAY: tuple[Step, ...] = ({"text": "so far"}, {"fail": "refused"})
FORMS = [pytest.param(form, id=form.name) for adapter in ADAPTERS.values() for form in adapter.failed_turns]


@pytest.mark.parametrize("form", FORMS)
def test_a_turn_without_words_reads_back_as_a_failure(served: Served, form: FailedTurnForm) -> None:
    text, failed = form.read(served, served.agent(*WITHOUT_WORDS))
    assert failed
    assert text.strip()


@pytest.mark.parametrize("form", FORMS)
def test_a_turn_that_failed_halfway_keeps_its_words_and_reads_back_as_a_failure(
    served: Served, form: FailedTurnForm
) -> None:
    text, failed = form.read(served, served.agent(*HALFWAY))
    assert (text, failed) == ("so far", True)
