"""Pictures and speech, made by the models that the agent or the server names."""

from __future__ import annotations

from palaver.core.ports import Models, Picture
from palaver.core.problems import Upstream
from palaver.core.types import Agent


class Studio:
    """Asks the endpoints. What no model is named for cannot be done: ``Upstream(reason="configuration")``."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def paints(self, agent: Agent) -> bool:
        return self._models.painter(agent.spec.image_model) is not None

    def speaks(self, agent: Agent) -> bool:
        return self._models.speaker(agent.spec.speech_model) is not None

    async def paint(self, agent: Agent, text: str) -> Picture:
        painter = self._models.painter(agent.spec.image_model)
        if painter is None:
            raise Upstream(reason="configuration", detail="no image model: set PALAVER_IMAGE_MODEL=openai:NAME")
        return await painter[0].paint(painter[1], text)

    async def speak(self, agent: Agent, text: str, voice: str) -> bytes:
        """An MP3 file."""
        speaker = self._models.speaker(agent.spec.speech_model)
        if speaker is None:
            raise Upstream(reason="configuration", detail="no speech model: set PALAVER_SPEECH_MODEL=openai:NAME")
        return await speaker[0].speak(speaker[1], text, voice)
