"""The requirements of surface C, one per row. ``requirements`` imports these rows; sections are those of the wire
specification's ``snail.md``."""

from palaver.wire.requirements import choice, open_point, spec

# Signing in ---------------------------------------------------------------------------------------------------------

c_config = spec("8", "GET /config, without credential: gatewayPath, pageTitle, logo, resourceBaseUrl")
c_config_elsewhere = choice("for a page from another origin, gatewayPath and resourceBaseUrl are absolute URLs")
c_session = spec("8", "POST /session, without credential: {openId, trustedCredential?}, EmbedToken")
c_session_proof = open_point(
    "8",
    "on surface C, trustedCredential is an embed token for that openId, or any JWT that surface A "
    "accepts with that openId; the session expires no later than this token",
)
c_open_session = open_point(
    "8",
    "without trustedCredential, POST /session signs in a registered openId only if exactly one "
    "credential has the setting open_sessions, and never registers one",
)
c_token = spec("8", "Snail-Ai-Auth = embed token, Bearer allowed")
c_token_only = choice("surface C accepts neither the secret nor a token without openId: 5001")
c_token_refused = spec("2.3", "C: absent, unknown, disabled, wrong, expired: 5001 with A's messages")
c_token_replaces = spec("8", "the token's openId replaces any in the body")

# Calls --------------------------------------------------------------------------------------------------------------

c_agents = spec("8", "GET /agents, /agent, /my-agents as B; subscribed filled")
c_subscribe = spec("8", "POST, DELETE /agent/subscribe as B; agentId in the query or in a body")
c_conversations = spec("8", "GET, POST, DELETE /conversations as B without openId; list size 50")
c_messages = spec("8", "GET /messages, also /conversations/messages, as B without openId")
c_completions = spec("8", "POST /completions: ChatRequest, stream of section 6")
c_refusal_frames = spec(
    "8", "completions: a failure before the run is an error frame, whatever Accept says, or 404, 405, 413"
)
c_envelope = spec("8", "C: envelopes as on B, with a numeric status")
c_event_names = spec("10", "no event names but thinking, text, done and error on C")
c_replay = choice("C: Idempotency-Key on POST /conversations and /completions")

# The vendor's chat page ---------------------------------------------------------------------------------------------

c_page = spec("10", "the chat page signs in, lists, creates, chats, reads history, deletes")
c_page_stop = spec("README 6", "the page's stop closes the connection; its next message stops the abandoned run")
c_page_browser = spec("10", "the chat page in a browser, from another origin")
