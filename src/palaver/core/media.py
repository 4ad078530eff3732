"""Image generation and text-to-speech with the models configured for the agent or the server."""

from __future__ import annotations

from palaver.core.ports.models import GeneratedImage, Models
from palaver.core.problems import Upstream
from palaver.core.types import Agent


class Media:
    """Calls image and speech models. Raises ``Upstream(reason="configuration")`` if none is configured."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def can_generate_images(self, agent: Agent) -> bool:
        return self._models.image_model(agent.spec.image_model) is not None

    def can_synthesize_speech(self, agent: Agent) -> bool:
        return self._models.speech_model(agent.spec.speech_model) is not None

    async def generate_image(self, agent: Agent, text: str) -> GeneratedImage:
        configured = self._models.image_model(agent.spec.image_model)
        if configured is None:
            raise Upstream(reason="configuration", detail="no image model: set PALAVER_IMAGE_MODEL=openai:NAME")
        model, name = configured
        return await model.generate(name, text)

    async def synthesize_speech(self, agent: Agent, text: str, voice: str) -> bytes:
        """The speech as an MP3 file."""
        configured = self._models.speech_model(agent.spec.speech_model)
        if configured is None:
            raise Upstream(reason="configuration", detail="no speech model: set PALAVER_SPEECH_MODEL=openai:NAME")
        model, name = configured
        return await model.synthesize(name, text, voice)
