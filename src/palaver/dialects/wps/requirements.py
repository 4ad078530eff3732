"""The dialect's requirements, one per row. Pages are headings of the vendor's "创建对话"; sections are those of the
wire specification's ``wps.md`` (``README n``: of the part shared by all dialects)."""

from palaver.wire.requirements import choice, deviation, open_point, spec, vendor

# The vendor's page --------------------------------------------------------------------------------------------------

chat_is_posted = vendor("请求说明", "POST /v7/devhub/app/{app_id}/chat/create begins a chat")
kso_1_signs = vendor("请求说明", "the call is signed with KSO-1")
needs_the_chat_scope = vendor("请求说明", "a user token needs kso.devhub_chat.readwrite")
app_id_in_the_path = vendor("路径参数", "app_id, a string, names the agent")
the_page_s_body = vendor("请求体示例", "files, session_id, stream, text and variables are accepted")
envelope = vendor("响应体", "code 0 is success; msg; data with session_id and chat_id, and nothing else")
new_session_without_id = vendor("非流式对话响应体", "without session_id a new session is created and its id returned")
each_stream_message = vendor("流式响应", 'a stream is messages of the form {"event": "end", "data": {}}')
event_names = vendor("流式响应", "event is vertices_sorted, add_message, end_vertex, token or end")
sample_message = vendor("流式响应", "add_message has the members of the page's sample, in its order and form")
end_is_last = vendor("流式响应", "end is the whole flow's end")
reply_is_in_add_message = vendor(
    "流式对话中获取智能体回复", "data.text of sender Machine, sender_name Agent is the reply so far"
)
message_id = vendor("流式对话中获取智能体回复", "data.id is the message's id, unchanged in every repetition")
chat_id_cancels = vendor("流式对话中获取智能体回复", "the message has the chat_id needed to cancel the chat")
documented_client_works = vendor("流式对话中获取智能体回复", "the documented client reads a conversation of two turns")

# Endpoints ----------------------------------------------------------------------------------------------------------

twins = spec("1", "singular and plural spellings are equivalent")
sse_twin = spec("1", "create chat is also served under /v7/sse/, where an absent stream means true")
cancel_by_body_or_query = spec("1", "the plural cancel takes chat_id from the body or the query")

# KSO-1 --------------------------------------------------------------------------------------------------------------

vectors = spec("7.1", "K1 to K11 are accepted unchanged")
must_be_refused = spec("7.1", "the hash of an empty body, a different body, path or query order are refused")
target_as_sent = spec("2.1", "path and query are signed exactly as sent, including a trailing question mark")
date_forms = spec("2.1", "the date ends in GMT or UTC, and is signed as text")
date_window = spec("2.1", "the date may be off by date_window_s, 900 by default")
any_media_type = spec("2.1", "any Content-Type is accepted if it is signed; a GET may omit it")
hex_of_either_case = spec("2.1", "the signature's hex digits may be in either case")
header_form = spec("2.1", "X-Kso-Authorization is KSO-1, one space, APPID, one colon, signature")
missing_signature = spec("3", "no authorization or no date: 401, 401000001, missing signature")
invalid_access_key = spec("3", "malformed, or an unknown or disabled APPID: 401, 401000001, invalid access key")
date_out_of_range = spec("3", "a malformed or out-of-range date: 401, 401000001, date out of range")
signature_mismatch = spec("3", "a different signature: 401, 401000001, signature mismatch")
new_credentials = choice("an APPID is AK and 16 hex digits, an APPKEY 32")

# User tokens --------------------------------------------------------------------------------------------------------

tokens_are_optional = spec("2.2", "a token is optional; without one the end user is default_user")
empty_token_is_none = choice(
    "Authorization: Bearer without a token: 401, 400001001, missing, even if a token is optional"
)
token_can_be_required = spec("2.2", "user_token required: without one 401, 400001001, missing")
token_must_be_good = spec("2.2", "unknown, expired or another credential's: 401, 400001001, invalid or expired")
token_needs_scope = spec("2.2", "chats, sessions and apps each need their own scope, otherwise 403, 400000003")
token_names_the_user = spec("2.2", "the end user is the token's")
token_without_signature = spec(
    "2.2", "require_signature false: the token is required, signature headers only name the key"
)
disabled_credential_s_token = spec("2.2", "require_signature false, disabled: 401, 400001001, invalid or expired")
unknown_token_alone = open_point(
    "2.2", "an unknown token sent without a signature is reported as an invalid token, not as a missing signature"
)

grants = spec("2.3", "a code, a refresh token or client credentials are exchanged for an access token")
refresh_token_stays = spec("2.3", "a refresh returns the same refresh token; older access tokens stay valid")
codes_are_used_once = spec("2.3", "a code is valid once, with the redirect_uri of the consent")
reuse_revokes = deviation(
    "2.3",
    "using a code again revokes the tokens issued for it, as RFC 6749 recommends; the specification revokes nothing",
)
token_failures = spec("2.3", "failures are 400, or 401 for invalid_client, with both known error formats in one object")
token_ttls = deviation(
    "README 8",
    "token_ttl_s, refresh_token_ttl_s and code_ttl_s are settings of the credential, with the specification's"
    " defaults; there they are the server's",
)
token_answers_are_not_kept = choice("token responses have Cache-Control: no-store")
consent_redirects = spec("2.4", "consent redirects with code and state added to the URI's query")
consent_without_redirect = spec("2.4", "an unknown client or unregistered URI: 400, no redirect")
consent_errors_redirect = spec("2.4", "any other error redirects with error, error_description and state")
consent_without_user = deviation(
    "2.4",
    "there is no sign-in page: without auto_approve_user, nobody can consent, and a page explains who must set it",
)

# Errors -------------------------------------------------------------------------------------------------------------

failures_have_no_data = spec("3", "error responses have code, msg and debug.desc, but no data")
unknown_route = spec("3", "an unknown path or method: 404, 404000001, 404 Route Not Found")
size_before_route = spec("3", "body size is checked before the route")
too_large = spec("3", "a body over the limit: 413, 413000001")
full = choice("a storage quota is used up: 429, 429000001, storage quota exceeded, without Retry-After")
limits = spec("3", "a rate limit: 429, 429000001, with Retry-After, except for the lifetime count")
no_json_object = spec("3", "a body that is not a JSON object: 400, invalid request body")
many_members = deviation(
    "README 5", "a body with more than 20,000 objects, arrays and members is malformed, however few bytes it has"
)
text_is_required = spec("3", "text absent, null or blank: 400, text is required")
wrong_types = spec("3", "a wrong type or range: 400, invalid and the top-level member's name")
errors_are_in_order = spec(
    "3", "checked in order: body, Idempotency-Key, missing fields, malformed fields, agent, session"
)
app_not_found = spec("3", "an agent that is unknown, disabled or not the credential's: 404, app not found")
session_not_found = spec("3", "a session that is unknown, another user's or another agent's: 404, session not found")

# Create chat --------------------------------------------------------------------------------------------------------

no_text_without_stream = open_point(
    "4.2",
    "without stream, the response has only session_id and chat_id, immediately; the text is read "
    "from the messages endpoint",
)
chat_headers = spec("4.2", "every create chat response has X-Chat-Id and X-Session-Id")
goes_on_in_a_session = spec("4.1", "a session_id continues that session, whose messages the agent sees")
aliases_come_back = open_point(
    "5.3", "a session is shown with the alias that the client gave it; every other session has its UUID"
)
user_header = choice("X-User-ID identifies the end user of a request without a token, only with user_header=true")
app_by_name = deviation(
    "README 3", "app_id can also be an agent's name, after UUID and alias; the debug text for an unknown one says so"
)
required_is_information = spec(
    "4.1", "required in the app's detail is information only: a chat without the variable is accepted"
)
variables_fill_in = spec("4.1", "variables are passed to the agent; if a key is repeated, the last value wins")
files_are_kept = spec("4.1", "files are stored and returned with the message")
idempotency = spec(
    "README 5", "identical requests with one Idempotency-Key get the same response, byte for byte, and one run"
)
idempotency_conflict = spec("3", "a different request with the same key: 422, 422000001")
streams_are_replayed = spec("README 5", "a streamed replay has the same messages with the same ids and times")

# Streams ------------------------------------------------------------------------------------------------------------

order = spec("5.5", "eight steps in this order")
one_write = spec("5.1", "a message and its two newlines are a single write")
ascii_form = spec("5.1", "JSON as written by Python's json.dumps, no character above U+007E")
stream_headers = spec("README 6", "streams are not cached, not buffered, and have no length")
heartbeat = spec("5.1", "a heartbeat is two newlines")
data_prefix = open_point(
    "5.1",
    "a stream is declared as text/event-stream and its messages have no data: prefix, as in the "
    "page's samples; with sse_data_prefix, messages are data: lines and heartbeats are comments",
)
media_types = spec("5.1", "stream_media_type sets the media type of streams")
text_is_cumulative = spec("5.5", "an agent's message repeats the text of the preceding tokens, and nothing more")
partials_are_merged = spec(
    "5.5", "partial messages are at least partial_every_ms apart; a pending one is sent when due"
)
partial_after_every_token = spec("5.5", "partial_every_ms 0: a message after every token")
messages_keep_away_from_tokens = spec(
    "5.5", "no message follows a token it repeats within token_gap_ms; text arriving meanwhile is a token after it"
)
page_pause = open_point(
    "5.5",
    "a Langflow page handles everything from a stream's first 300 ms at once afterwards: no message repeats text from"
    " the first 450 ms until these and token_gap_ms have passed",
)
langflow_pages = spec("5.5", "a Langflow page shows an answer once, whatever its length and chunking")
streams_without_tokens = spec("5.5", "tokens false: no token events, messages unchanged")
langflow_failures = spec("5.4", "a Langflow page shows the reason of a failed run")
reasoning_is_a_step = open_point("5.5", "thinking has no token events; it is an entry Thinking in the next message")
tool_calls_are_steps = spec("5.3", "a tool call is an entry once it has ended")
user_message = spec("5.3", "the user's message has its own id and the same chat_id")
times_have_the_server_s_zone = spec("5.3", "timestamp is in the server's time zone, six digits, no zone")
vertices = spec("5.4", "end_vertex has the members of the example in its order")
durations = spec("5.4", "durations are 12 ms, 3.4 seconds, 1 minute, 2.5 seconds")
failed_run = spec(
    "5.6", "a failure sends a message with error true and a second block, end_vertex with valid false, then end"
)
error_event = spec(
    "5.6", "error_event: the message is repeated as an error event, with the reason as text and its own id"
)
cancelled_run = spec("5.6", "a cancelled run ends like a completed one, with the text so far")
cancelled_while_waiting = spec("5.6", "a chat cancelled while queued sends steps 1 to 4 and the end")
beginning_before_words = spec("5.5", "the chat_id is sent before the model produces any output")
readers_of_any_pace = spec("README 9", "read byte by byte or all at once, a stream has the same messages")
leaving_cancels_nothing = spec("README 6", "a client that disconnects does not affect the run")
durations_are_stored = open_point(
    "5.4",
    "durations come from times stored with the message, so that a replay has the same values: 0 if none is stored",
)

# Other calls --------------------------------------------------------------------------------------------------------

cancel_is_idempotent = spec("6.1", "cancel returns {}, even if there is nothing to cancel")
sessions_are_made = spec("6.1", "create session takes an optional name of up to 255 characters")
sessions_are_listed = spec(
    "6.1", "the list has the user's sessions with the agent, most recently changed first, in pages"
)
page_tokens = spec("6.1", "next_page_token is empty on the last page; a token not issued by the server is refused")
session_names = spec("6.1", "a session's name is its title, otherwise the first 16 characters of its first message")
sessions_are_deleted = spec("6.1", "a deleted session is gone, and its run ends")
app_detail = spec("6.1", "app detail has name, description, icon and variables; app_id as in the path")
messages = spec("6.2", "messages are returned oldest first, in pages, an unfinished answer with its text so far")
waiting_answers = spec("6.2", "an answer is listed from the moment its run starts")
message_events = spec("6.2", "with_event adds the content blocks of each item")
long_history = choice("a page of long messages has fewer than page_size, at least one, and a next_page_token")
isolation = spec("README 3", "another user's resources get the same response as nonexistent ones")
curl_sample = choice("the curl sample signs with openssl and streams")

# Notes for client authors -------------------------------------------------------------------------------------------

chat_id_is_last = open_point(
    "5.3",
    "the page's sample message has no chat_id, although its text says messages have one: it is the last member of"
    " every add_message and token, and in the header X-Chat-Id",
)
no_later_form = deviation("1", "the later format of the stream, with data.role and data.type, is not supported")
members_without_effect = open_point("2.3", "app_ticket and company_id are accepted and have no effect")
tried_codes_are_used_up = open_point(
    "2.3", "an attempt to use a code with a different credential or redirect_uri uses it up"
)
