"""The default icon of agents without one. Source: the vendor's page, ``data.agent.icon``. Pages load it without an API
key.
"""

from __future__ import annotations

from hashlib import sha256
from xml.sax.saxutils import escape

from palaver.core.types import Principal
from palaver.wire.contract import Request, Response, Services

SVG = "image/svg+xml"
_COLOURS = ("#2563eb", "#0f766e", "#b45309", "#9333ea", "#be123c", "#4d7c0f", "#0369a1", "#475569")
_HEADERS = (("Cache-Control", "public, max-age=86400"), ("X-Content-Type-Options", "nosniff"))


async def logo(request: Request, _principal: Principal, _services: Services) -> Response:
    """The name's first letter on a coloured square, whether or not the agent exists."""
    return Response(body=icon_svg(request.path_params["name"]).encode(), media_type=SVG, headers=_HEADERS)


def icon_svg(name: str) -> str:
    """An SVG image for an agent's name."""
    colour = _COLOURS[sha256(name.encode()).digest()[0] % len(_COLOURS)]
    letter = next((character.upper() for character in name if character.isalnum()), "?")[:1]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
        f'<rect width="64" height="64" rx="14" fill="{colour}"/>'
        '<text x="32" y="43" text-anchor="middle" font-family="sans-serif" font-size="32" fill="#fff">'
        f"{escape(letter)}</text></svg>"
    )
