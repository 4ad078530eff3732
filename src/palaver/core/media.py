"""Pictures and speech, made by the models that the agent or the server names."""

from __future__ import annotations

from palaver.core.ports.models import GeneratedImage, Models
from palaver.core.problems import Upstream
from palaver.core.types import Agent


class Media:
    """Asks the endpoints. What no model is named for cannot be done: ``Upstream(reason="configuration")``."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def can_generate_images(self, agent: Agent) -> bool:
        return self._models.image_model(agent.spec.image_model) is not None

    def can_synthesize_speech(self, agent: Agent) -> bool:
        return self._models.speech_model(agent.spec.speech_model) is not None

    async def generate_image(self, agent: Agent, text: str) -> GeneratedImage:
        painter = self._models.image_model(agent.spec.image_model)
        if painter is None:
            raise Upstream(reason="configuration", detail="no image model: set PALAVER_IMAGE_MODEL=openai:NAME")
        return await painter[0].generate(painter[1], text)

    async def synthesize_speech(self, agent: Agent, text: str, voice: str) -> bytes:
        """An MP3 file."""
        speaker = self._models.speech_model(agent.spec.speech_model)
        if speaker is None:
            raise Upstream(reason="configuration", detail="no speech model: set PALAVER_SPEECH_MODEL=openai:NAME")
        return await speaker[0].synthesize(speaker[1], text, voice)
