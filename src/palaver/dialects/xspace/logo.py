"""The picture of an agent that has none of its own. Source: the vendor's page, ``data.agent.icon``, whose address every
conversation carries; pages load it without a key.
"""

from __future__ import annotations

from hashlib import sha256
from xml.sax.saxutils import escape

from palaver.core.types import Principal
from palaver.wire.contract import Request, Response, Services

SVG = "image/svg+xml"
_COLOURS = ("#2563eb", "#0f766e", "#b45309", "#9333ea", "#be123c", "#4d7c0f", "#0369a1", "#475569")
_FOR_A_DAY = (("Cache-Control", "public, max-age=86400"), ("X-Content-Type-Options", "nosniff"))


async def logo(request: Request, _: Principal, __: Services) -> Response:
    """A tile with the name's first letter. It says nothing of whether there is such an agent."""
    return Response(body=tile(request.path_params["name"]).encode(), media_type=SVG, headers=_FOR_A_DAY)


def tile(name: str) -> str:
    colour = _COLOURS[sha256(name.encode()).digest()[0] % len(_COLOURS)]
    letter = next((one.upper() for one in name if one.isalnum()), "?")[:1]
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64" width="64" height="64">'
        f'<rect width="64" height="64" rx="14" fill="{colour}"/>'
        '<text x="32" y="43" text-anchor="middle" font-family="sans-serif" font-size="32" fill="#fff">'
        f"{escape(letter)}</text></svg>"
    )
