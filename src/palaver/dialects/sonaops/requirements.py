"""The dialect's requirements, one per row. Pages are headings of the vendor's "创建会话"; sections are those of the
wire specification's ``sonaops.md`` (``README n``: of the part shared by all dialects)."""

from palaver.wire.requirements import choice, deviation, open_point, spec, vendor

# Creating a conversation --------------------------------------------------------------------------------------------

create_is_posted = vendor("基本信息", "POST /v1/chat/conversation returns application/json")
agent_id_is_required = vendor("请求体", "agentId, a string, is required")
agent_id_comes_from_the_list = vendor("请求体", "agentId is an id from /v1/agent/list")
success_envelope = vendor("成功响应", "code 10200, success true, message OK, data, traceId, timestamp, in this order")
id_is_a_bare_uuid = vendor("成功响应", "data.conversationId is a UUID without hyphens")
trace_id_is_32_letters = vendor("成功响应", "traceId is 32 letters and digits, timestamp milliseconds as text")
http_401 = vendor("错误响应", "401: authentication failed")
http_400 = vendor("错误响应", "400: parameters missing or malformed")
http_500 = vendor("错误响应", "500: internal error")
agent_id_missing = vendor("业务错误", "HTTP 200, agentId is required")
key_invalid = vendor("业务错误", "HTTP 200, Invalid API key: unknown or disabled")
too_often = vendor("业务错误", "HTTP 200, Too many requests, please try again later")
used_up = vendor("业务错误", "HTTP 200, API key usage limit reached")
signed_example = vendor("请求体", "X-Signature is sha256 of agentId=agent-uuid and the secret")
javascript_client = vendor("客户端示例", "createConversation returns the id, and throws the error message on failure")
row_before_answer = vendor("使用时序", "the conversation is stored before the response is sent")
one_id_for_the_dialogue = vendor("接口说明", "the id serves stream, inspiration and image for the whole dialogue")
new_id_each_call = vendor("conversationId 生命周期", "each request creates a new conversation, even for the same agent")
id_stays_valid = vendor("conversationId 生命周期", "the id can be kept across reloads and stays valid")

# Authentication -----------------------------------------------------------------------------------------------------

bearer_scheme = spec("2.1", "Authorization is Bearer <apiKey>; the scheme is case-insensitive")
signature_case = spec("2.1", "X-Signature is 64 hex digits in either case")
timestamp_window = spec("2.1", "X-Timestamp is decimal seconds, at most 300 off; optional for sha256")
user_header = spec("2.1", "X-User-ID is the end user; if absent with sha256: default_user")
request_id_echoed = spec("2.1", "X-Request-ID is returned; generated if absent or longer than 128 characters")
content_type_unchecked = spec("2.1", "Content-Type is not checked")
repeated_request_id = spec(
    "2.1", "a repeated X-Request-ID is accepted, unless reject_repeated_request_id: Request repeated"
)
blank_members_drop = spec("2.2", "members that are null, empty or white space are not signed")
strings_are_trimmed = spec("2.2", "strings are trimmed of JavaScript's white space")
values_are_compact = spec("2.2", "other values are compact JSON, order and numbers as sent, non-ASCII raw")
repeated_members = spec("2.2", "a repeated nested member keeps its first position and last value")
empty_containers_count = spec("2.2", "{} and [] are signed")
sorted_by_name = spec("2.2", "members are sorted by code points and joined without URL encoding")
no_body_is_empty = spec("2.2", "no body is the empty string")
query_of_get = spec("2.2", "for a GET, the query's decoded fields are signed, repeated names in the order sent")
sha256_rule = spec("2.3", "sha256 covers the canonical body and the secret, nothing else")
hmac_rule = spec("2.3", "hmac-sha256 covers method, path, time, user, query and body, one per line")
vectors_sha256 = spec("7.1", "S1 to S8")
vectors_hmac = spec("7.1", "H1 to H5")
vectors_refused = spec("7.1", "a different body, generation, path or user: Invalid signature")
setting_signature = spec("2.1", "the credential's setting signature selects the generation")
header_user_is_decoded = spec("README 5", "a percent-encoded X-User-ID is signed as sent, then decoded")
multipart_body = open_point(
    "2.2 against 4",
    "no route accepts a multipart body: it is rejected because it is not a JSON object, and never "
    "counts as an empty body for the signature",
)
user_is_utf8 = choice("an X-User-ID that is not UTF-8, raw or percent-encoded, is refused: must be UTF-8")
user_has_a_length = open_point("2.1", "X-User-ID has at most 255 characters")

# Errors -------------------------------------------------------------------------------------------------------------

any_key_is_a_key = spec("4", "rows 2, 3: anything after Bearer is a key, even with blanks and quotes")
e_unknown_route = spec("4", "row 0: unknown route 404, 10404; wrong method 405, 10405; no credential needed")
e_too_large = spec("4", "row 1: 413, 10413, Request body too large")
e_no_key = spec("4", "row 2: 401, 10401, Missing API key")
e_unknown_key = open_point(
    "4, row 3",
    "the page documents an invalid key both as HTTP 401 and as a business error: a missing or wrong "
    "proof is 401, an unknown key is always HTTP 200, 10401, Invalid API key",
)
e_disabled_key = spec("4", "row 4: 200 / 401, 10401, Invalid API key")
e_no_signature = spec("4", "row 5: 401, 10401, Missing signature")
e_no_headers = spec("4", "row 6: 401, 10401, Missing timestamp, Missing user id, only for hmac")
e_expired = spec("4", "row 7: 401, 10401, Request expired")
e_bad_body = spec("4", "row 8: 400 / 200, 10400, Invalid request body")
many_members = deviation(
    "README 5", "a body with more than 20,000 objects, arrays and members is malformed, however few bytes it has"
)
e_bad_signature = spec("4", "row 9: 401, 10401, Invalid signature")
full = choice("a storage quota is used up: 200, 10403, storage quota exceeded")
e_rate = spec("4", "row 10: 200, 10429 and Retry-After")
e_total = spec("4", "row 11: 200, 10403")
e_bad_idempotency_key = spec("4", "row 12: 400 / 200, 10400, Invalid Idempotency-Key")
e_wrong_type = spec("4", "row 13: 400 / 200, 10400, <field> must be …; first in the table's order")
e_required = spec("4", "row 14: 200, 10400, <field> is required; first in the table's order")
e_agent = spec("4", "row 15: 200, 10404, Agent not found: unknown, disabled or not the key's")
e_conversation = spec("4", "row 16: 200, 10404, Conversation not found: unknown or not this end user's")
e_other_agent = spec("4", "row 17: 200, 10400, agentId does not match the conversation")
e_conflict = spec("4", "row 18: 422, 10422")
e_waiting = spec("4", "row 19: 200, 10429 when too many messages wait")
e_internal = spec("4", "row 20: 500 / 200, 10500, Internal server error")
e_order = spec("4", "the rows are checked in order")
e_overload = spec("README 6", "above max_live_runs, or while the server shuts down: 200, 10429, without Retry-After")
fuzz = choice("whatever a signed body contains, the response is an envelope and never a 5xx")
values_are_trimmed = spec("4", "values are trimmed before look-up")

# Endpoints ----------------------------------------------------------------------------------------------------------

both_uuid_forms = open_point(
    "5.1", "a conversation's id has no hyphens, whatever the signature scheme, and is accepted with hyphens too"
)
list_members = spec("5.2", "agentId, name, avatar, description, greeting, voiceId, in this order")
list_first_alias = spec("5.2", "agentId is the first alias, otherwise the UUID with hyphens; a name is not an id")
list_pages = spec("5.2", "pageNum and pageSize select a page, total counts all agents, pages past the end are empty")
list_by_get = spec("5.2", "a GET takes these in the query, numbers as strings")
list_order = spec("5.2", "only enabled agents, by name, then id")
stream_text_untrimmed = spec("5.3", "text is stored untrimmed")
named_by_name = deviation(
    "5.2", "an agent can also be identified by its name, after UUID and alias; the list never returns names as ids"
)
required_metadata = choice("a variable required by the agent and absent from metadata: metadata.<name> is required")
stream_metadata = spec("5.3", "metadata is passed to the agent as run variables, language as a hint")
inspiration_replies = spec("5.4", "up to three replies of at most 200 characters; nothing is stored")
inspiration_failure = spec("5.4", "[] when the model fails")
image_data_uri = spec("5.5", "base64Image is a data URI; metadata is returned unchanged, {} if absent")
image_unconfigured = spec("5.5", "200, 10400, Agent missing image generation config")
image_once = spec("5.5", "image is a creating request")
tts_url = spec("5.6", "audioUrl is <site>/saas/voice-broadcast/<messageId>.mp3")
tts_once = spec("5.6", "later requests for a message return the same URL, whatever their text")
tts_voice = spec("5.6", "voiceTimbreId selects the voice, English_radiant_girl by default")
tts_message = spec("5.6", "404 / 200, 10404, Message not found: unknown, or not this end user's")
tts_unconfigured = spec("5.6", "200, 10400, Agent missing voice config")
tts_any_message = spec("5.6", "speech is available for any message of the end user")
tts_file = spec("1", "GET /saas/voice-broadcast/{messageId}.mp3 needs no authentication")
tts_counts = spec("5.6", "repeated tts requests do not count towards total, and are refused when it is used up")
tts_ranges = choice("a single Range of an audio file can be requested, as some browsers' players do")
upstream_failure = open_point(
    "5.5, 5.6", "a failing image or text-to-speech endpoint is 10500, one that reports a rate limit is 10429"
)

# The stream ---------------------------------------------------------------------------------------------------------

stream_example = spec("6", "the complete stream, byte by byte")
stream_headers = spec("6", "HTTP 200, text/event-stream; charset=utf-8")
stream_ascii = spec("README 6", "JSON in the stream is ASCII, and each event is one write")
stream_order = spec("6", "(thinking | message)*, message_end, message_saved")
stream_finish = spec("6", "finishReason is stop, length or cancelled")
stream_error = spec(
    "6", "error with 10500, or 10429 for an upstream limit, is the last event; the stream ends normally"
)
stream_heartbeat = spec("6", "the heartbeat is ': ping' and a blank line; no id, retry or [DONE]")
stream_waiting = spec("README 6", "a second message is queued, and is cancelled if stopped")
stream_goes_on = spec("README 6", "a client that disconnects does not cancel the run")
stream_interrupted = spec("README 6", "an interrupted run counts as failed")
stream_saved_last = spec("6", "message_saved carries the stored message's id and is always last")
stream_replay = spec("README 5", "a replayed stream has the same events, ids and order")
read_any_way = spec("README 9", "read byte by byte or all at once, a stream has the same events")
stream_failure_before = spec("5.3", "a failure before the first byte is an envelope")
one_conversation = spec("README 3", "messages sent here are visible to the same end user through core")

# Requests and responses ---------------------------------------------------------------------------------------------

r1 = spec("7.2", "R1: an id of 32 hex digits, different the second time")
r2 = spec("7.2", "R2: without X-Timestamp, X-User-ID, X-Request-ID as R1")
r3 = spec("7.2", "R3: a timestamp 301 s old")
r4 = spec("7.2", "R4: without X-Signature")
r5 = spec("7.2", "R5: Bearer nope")
r6 = spec("7.2", "R6: agentId absent, null, blank")
r7 = spec("7.2", "R7: a malformed body")
r8 = spec("7.2", "R8: agentId a number")
r9 = spec("7.2", "R9: an unknown agent")
r10 = spec("7.2", "R10: a stream whose messageId is usable in tts")
r11 = spec("7.2", "R11: a stream on another end user's id")
r12 = spec("7.2", "R12: a client that disconnects after the first event")
r13 = spec("7.2", "R13: the same Idempotency-Key twice: identical bytes, Idempotency-Replayed")
r14 = spec("7.2", "R14: the same key with another agent")
r15 = spec("7.2", "R15: rpm 1, second call")
r16 = spec("7.2", "R16: total 1, second call")

# What real clients do -----------------------------------------------------------------------------------------------

c_json_always = spec("8", "every failure is a JSON envelope with a text message")
c_cors = spec("8", "CORS is enabled for browsers")
c_header_names = spec("8", "header names may arrive as X-User-Id")
c_member_order = spec("8", "the client signs the object it sends, members in any order")
