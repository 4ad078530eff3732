"""The requirements of surface A, one per row. Pages are headings of the vendor's "对话接口"; sections are those of the
wire specification's ``snail.md`` (``README n``: of the part shared by all dialects)."""

from palaver.wire.requirements import choice, deviation, open_point, spec, vendor

# The call -----------------------------------------------------------------------------------------------------------

chat_is_posted = vendor("智能体流式对话", "POST /snail-ai/open-api/chat sends a message and streams the answer")
agent_id_is_a_number = vendor("请求体", "agentId, a number, is required")
open_id_is_required = vendor("请求体", "openId, a string, is required")
content_is_required = vendor("请求体", "content, a string, is required")
conversation_id_is_optional = vendor("请求体", "conversationId, a string, is optional")
mcp_servers_can_be_off = vendor("请求体", "disabledMcpServerIds, number[], is optional")
skills_can_be_off = vendor("请求体", "disabledSkillIds, number[], is optional")
curl_samples_work = vendor("curl 示例", "the three curl commands of the page work unchanged")
samples_use_a_bare_token = vendor("curl 示例", "Snail-Ai-Auth carries a bare token that begins eyJhbGciOiJIUzI1NiJ9")
reasoning_and_history_in_one_call = vendor("智能体流式对话", "reasoning and several turns of context in one call")

# The answer ---------------------------------------------------------------------------------------------------------

answer_is_ndjson = vendor("响应格式", "the answer is NDJSON: each line is one JSON object, distinguished by type")
thinking_lines = vendor("事件类型", "thinking is the agent's reasoning")
text_lines_are_joined = vendor("事件类型", "text is the answer; the client joins all of them")
javascript_client_works = vendor("客户端处理示例", "the JavaScript client reads a conversation of two turns")
python_client_works = vendor("客户端处理示例", "the Python client reads a conversation of two turns")
clients_skip_blank_lines = vendor("客户端处理示例", "both clients skip blank lines and unknown types")
every_line_has_a_type = vendor(
    "客户端处理示例", "the Python client reads event['type'] of every line, including errors"
)

# Who and where ------------------------------------------------------------------------------------------------------

open_ids_are_kept_apart = vendor("openId 说明", "context is separate for each openId")
open_id_is_any_text = vendor("openId 说明", "openId is the calling system's own id for its user")
first_message_makes_a_conversation = vendor(
    "conversationId 说明", "without conversationId, a new conversation is created"
)
conversation_id_comes_back = vendor("conversationId 说明", "the response contains the new conversation's id")
conversation_goes_on = vendor("conversationId 说明", "a known conversationId continues that conversation")
unknown_conversation_is_new = vendor("conversationId 说明", "a new conversationId starts a new conversation")

# Failures -----------------------------------------------------------------------------------------------------------

unknown_agent = vendor(
    "错误处理", "an agent that is unknown or disabled: code 0, msg 智能体不存在或已被禁用, data null"
)
missing_members = vendor("错误处理", "agentId or content missing: code 0, msg agentId 和 content 为必填参数, data null")
failure_breaks_the_connection = vendor("错误处理", "an error mid-stream aborts the connection, and clients notice it")

# Authentication -----------------------------------------------------------------------------------------------------

bearer_is_allowed = spec("2.1", "a leading 'Bearer ' is accepted")
token_is_hs256 = spec("2.1", "alg must be HS256, nothing else, never none")
key_is_the_secret = spec("2.1", "the key is the credential's secret, UTF-8")
claims_name_the_credential = spec("2.1", "appId or iss is the credential's id; both: equal")
exp_is_required = spec("2.1", "exp is required")
exp_has_leeway = spec("2.1", "exp has 60 s leeway")
nbf_has_leeway = spec("2.1", "nbf more than 60 s ahead is a wrong token")
other_claims_are_ignored = spec("2.1", "claims other than appId, iss, exp, nbf, openId are ignored")
secret_is_a_token = spec("2.1", "the secret itself is a token")
token_may_bind_a_user = spec("2.1", "with an openId claim, a different openId in the body is rejected")
several_secrets = spec("2", "an application may have several credentials")
secret_has_a_form = spec("2", "a secret is SAI_ and 32 lower-case hex digits")
no_header = spec("2.3", "header absent: 5001 缺少认证信息，请提供 Snail-Ai-Auth")
unknown_application = spec("2.3", "application unknown: 5001 Token 验证失败")
disabled_application = spec("2.3", "application disabled: 5001 应用已禁用: <appId>")
wrong_token = spec("2.3", "token or signature wrong, malformed, other alg, no exp: 5001 Token 验证失败")
expired_token = spec("2.3", "JWT expired: 5001 登录已过期，请重新登录")
foreign_open_id = spec("2.3", "openId differs from the claim: 5001 OpenId 无效: <openId>")
auth_errors_are_in_order = spec("2.3", "unknown, disabled, wrong, expired, in this order")
j1 = spec("9.1", "J1: accepted, any openId")
j2 = spec("9.1", "J2: accepted for its openId alone")
j3 = spec("9.1", "J3: expired")
j4 = spec("9.1", "J4: signed with another key")
j5 = spec("9.1", "J5: alg none")
j6 = spec("9.1", "J6: no exp")
j7 = spec("9.1", "J7: the secret, also with Bearer")
garbage_is_a_wrong_token = choice("any other header value is rejected as a wrong token, without side effects")
exp_is_a_number = choice(
    "exp and nbf are JSON numbers; strings, booleans and lists are a wrong token; a null nbf counts as absent"
)
crit_is_refused = choice("a token with crit is wrong: no extensions are supported")
one_text_per_token = choice("base64url has no padding, no stray bits and no foreign characters")
numeric_open_id_claim = choice("an openId claim that is an integer counts as a string of its digits")

# Envelope and general errors ----------------------------------------------------------------------------------------

envelope_is_one_line = open_point(
    "3",
    "besides the documented code, msg and data, an envelope has status, message and type, in this "
    "order, compact, on one line",
)
null_is_written = spec("3", "data is present and null on failure")
failures_have_a_type = spec("3", "type is error, on failures of A")
body_too_large = spec("3", "body over the limit: 413 请求体过大")
unknown_path = spec("3", "unknown path: 404 接口不存在")
wrong_method = spec("3", "wrong method: 405 请求方法不支持")
rate_limited = spec("3", "rate limit: 429 and Retry-After, 请求过于频繁，请稍后再试")
used_up = spec("3", "lifetime count: 429 and Retry-After, 请求过于频繁，请稍后再试")
full = choice("a storage quota is used up: 存储配额已用完")
too_many_waiting = spec("3", "too many messages waiting: 会话繁忙，请稍后再试")
no_json_object = spec("3", "body not a JSON object: 请求体不是合法的 JSON")
malformed_idempotency_key = spec("3", "malformed Idempotency-Key: Idempotency-Key 格式错误")
idempotency_conflict = spec("3", "422 Idempotency-Key already used with a different request")
wrong_type = spec("3", "wrong JSON type: 参数格式错误: <field>")
digits_are_numbers = spec("3", "digits in a string count as a number")
conversation_id_has_a_form = spec("3", "over 128 characters or control characters: 参数格式错误: conversationId")
conversation_of_another_agent = open_point(
    "3", "a conversationId of this user that belongs to another agent is rejected: conversationId 与 agentId 不匹配"
)
unforeseen = spec("3", "an unexpected error: HTTP 200, 系统异常")

# Fields -------------------------------------------------------------------------------------------------------------

blank_is_missing = spec("4.1", "agentId or content absent, null or blank: agentId 和 content 为必填参数")
open_id_is_missing = spec("4.1", "openId absent, null or blank: openId 为必填参数")
rows_are_in_order = spec("4.1", "checked in order: agentId and content, openId, the agent")
foreign_agent = spec("4.1", "an agent that is not the application's: 智能体不存在或已被禁用")
unknown_users_are_registered = open_point(
    "4.1", "on surface A, an unknown openId is registered automatically, per application"
)
conversations_are_found_by_owner = spec("4.1", "a conversationId is looked up by (application, openId, id) only")
alias_is_verbatim = spec("4.1", "an unknown conversationId becomes the conversation's alias, kept verbatim")
blank_conversation_id = spec("4.1", "a blank conversationId is none")
other_members_are_ignored = spec("4.1", "sid, timeout, deepPlanEnabled, webSearchEnabled are accepted and ignored")
unknown_disabled_ids = spec("4.1", "unknown disabled ids are ignored")
open_id_has_a_length = choice("openId has at most 255 characters")
numbers_that_name_nothing = choice("an agentId that is an integer out of range is an unknown agent")
whole_floats_are_numbers = choice("1.0 is the number 1; 1.5 is not a valid agentId")
upgrades_are_passed_over = choice("an Upgrade header, as sent by Java's HttpClient, is ignored")
types_come_first = choice("a wrong type is reported before a missing member, the first field of the table first")
nul_in_conversation_id = open_point(
    "3 against README 5",
    "a U+0000 in conversationId is passed on as U+FFFD, and therefore does not count as a control character",
)

# Answer -------------------------------------------------------------------------------------------------------------

media_type = spec("4.2", "HTTP 200, Content-Type application/x-ndjson")
conversation_header = open_point(
    "4.2",
    "according to the page, a new conversation's id comes in a later response: it is in the header "
    "X-Conversation-Id, and in the line done",
)
lines_are_compact_ascii = spec("4.2", "each event is one compact JSON object and a newline, ASCII only")
two_members = spec("4.2", "thinking and text have exactly type and content, in this order")
done_line = spec("4.2", "done: type, conversationId, fullText; once, last, at normal end")
full_text = spec("4.2", "fullText is the whole text")
heartbeat_is_an_empty_line = spec("4.2", "the heartbeat is an empty line")
error_line = spec("4.2", "error: type, code, msg, data, status, message; the last line")
order_of_lines = open_point(
    "4.2", "besides the documented thinking and text, there are done and error: one of these two is the last line"
)
alias_or_uuid = spec(
    "4.2", "conversationId in done and in the header is the client's own id, otherwise the UUID with hyphens"
)
stopped_run = spec("4.2", "a run stopped through another dialect ends with done and the text so far")
broken_off = open_point(
    "4.2",
    "a failure in mid-stream is an error line, after which the connection is aborted: HTTP/1.1 "
    "closes without the last chunk",
)
retry_is_a_new_message = spec(
    "4.2", "a retry without Idempotency-Key is a new message, and waits for a run that a client is reading"
)
abandoned_runs_are_stopped = spec(
    "README 6", "a message that arrives while no client reads the active run stops that run; its text is kept"
)
abandoned_setting = spec("README 8", "abandoned: stop by default, or wait if set in the credential")
accept_chooses = open_point(
    "4.3",
    "the page calls the answer SSE and shows lines of JSON: it is NDJSON unless Accept names "
    "text/event-stream and not application/x-ndjson",
)
accept_star = spec("10", "the samples send Accept: */* and receive NDJSON")
events_form = spec("6", "event:<name>, data:<json>, an empty line; no space after the colons")
events_headers = spec("6", "text/event-stream;charset=UTF-8, X-Conversation-Id")
events_data = spec("6", "thinking and text: type, sid, content; done: conversationId, fullText")
events_sid = spec("4.3", "sid is the run's UUID")
events_heartbeat = spec("6", "the heartbeat is ': ping'")
events_error = spec("6", "error: message, code, msg, data, status; the stream ends normally")
events_refusal = spec("6", "a failure before the run is HTTP 200 and one error frame")
events_refusal_by_status = spec("6", "404, 405 and 413 stay envelopes")
blank_thinking = spec("6", "a thinking delta is not blank")

# What all dialects share: requests ----------------------------------------------------------------------------------

unknown_members = spec("README 5", "unknown members are ignored")
null_is_absent = spec("README 5", "an explicit null equals an absent member")
last_member_counts = spec("README 5", "the last of repeated members wins")
depth = spec("README 5", "nesting deeper than 64 is a malformed body")
many_members = deviation(
    "README 5", "a body with more than 20,000 objects, arrays and members is malformed, however few bytes it has"
)
utf8 = spec("README 5", "invalid UTF-8 is a malformed body")
byte_order_mark = spec("README 5", "a byte order mark is a malformed body")
lone_surrogates = spec("README 5", "an escaped lone surrogate is a malformed body")
empty_body = spec("README 5", "a body of only white space is empty")
nul = spec("README 5", "U+0000 in a string is valid; it is stored and passed on as U+FFFD")
any_media_type = spec("README 5", "a JSON body is read as JSON whatever Content-Type says")
size_limit = spec("README 5", "a body of max_body_bytes is accepted")
size_is_declared = spec("README 5", "a larger body is rejected by its Content-Length")
size_is_counted = spec("README 5", "a larger body is rejected while it is read")
header_names = spec("README 5", "header names are case-insensitive")
header_values = spec("README 5", "header values are trimmed")
route_is_first = spec("README 5", "route and method are checked before size and credential")
size_before_credential = spec("README 5", "size is checked before the credential")
credential_before_json = spec("README 5", "the credential is checked before the JSON")
rate_before_json = spec("README 5", "the rate is counted before the JSON is read")
fields_before_agent = spec("README 5", "fields are checked before the agent")
agent_before_conversation = spec("README 5", "the agent is checked before the conversation")
agent_before_idempotency = spec("README 5", "fields and agent are checked before the Idempotency-Key")
conversation_before_idempotency = spec("README 5", "the conversation is checked before the Idempotency-Key's use")
cors_echoes = spec("README 5", "the Origin is echoed, credentials are allowed, headers are exposed")
cors_preflight = spec("README 5", "OPTIONS names the methods and echoes the requested headers")
ids_in_headers = spec("README 5", "an id with characters outside 0x21-0x7E is percent-encoded UTF-8 in a header")
odd_but_legal = spec("README 5", "100,000 characters, emoji and right-to-left text are answered")

# Idempotency --------------------------------------------------------------------------------------------------------

key_form = spec("README 5", "Idempotency-Key is 1 to 255 characters 0x21-0x7E; empty is malformed")
replay_finished = spec("README 5", "same key, same request: the same response, with Idempotency-Replayed: true")
replay_live = spec("README 5", "same key while it streams: the same run from its beginning, live until its end")
replay_failed = spec("README 5", "a run that failed mid-stream is replayed with its failure")
replay_is_one_run = spec("9.2", "N19: one run, the same thinking and text, the same done line")
same_request = spec("README 5", "same request: equal query string and equal body")
key_is_free_again = spec("README 5", "an error response releases the key")
key_scope = spec("README 5", "a key belongs to (credential, end user, method, path)")
key_expires = spec("README 5", "a key is remembered for idempotency_ttl_s")
replay_in_any_form = choice("a replay has the format that its own Accept requests")
replay_needs_no_room = spec("README 6", "max_live_runs rejects new messages; replays do not count as new")

# Runs and streams ---------------------------------------------------------------------------------------------------

stored_before = spec("README 6", "the user's message is stored before the run starts; partial answers are kept")
reader_may_leave = spec("README 6", "a client that disconnects never cancels a run")
run_timeout = spec("README 6", "a run longer than run_timeout_s fails")
turns_wait = spec("README 6", "further messages wait in order of arrival; headers at once, then heartbeats")
waiting_is_stopped = spec("README 6", "a queued message that is stopped ends like a stopped run, empty")
none_may_wait = spec("README 6", "max_waiting_turns 0: no message is queued")
stream_headers = spec("README 6", "Cache-Control: no-cache, X-Accel-Buffering: no, no Content-Length, no compression")
headers_come_first = spec("README 6", "headers are flushed before the first event")
one_event_one_write = spec("README 6", "one event, newline included, is one write and one chunk")
stream_is_ascii = spec("README 6", "JSON in a stream is ASCII: above U+007E everything is \\uXXXX")
heartbeats = spec("README 6", "a heartbeat after heartbeat_s without an event, repeated")
no_empty_deltas = spec("README 6", "deltas are never empty")
upstream_refuses = spec("README 6", "a refusal by the model's endpoint has the in-stream form")
interrupted_run = spec("README 6", "an interrupted run: its text so far, then the in-stream failure form")
too_many_runs = spec("README 6", "above max_live_runs: the busy error, immediately")
database_away = spec("README 6", "while the database is unavailable: the form of an internal error")
deleted_conversation = spec("README 3", "deleting a conversation ends its run like a stop")
lone_surrogates_from_models = choice("a model's output is repaired: no lone surrogate reaches a reader or the database")

# Limits and settings ------------------------------------------------------------------------------------------------

rpm_window = spec("README 7", "rpm admits so many calls in a window of 60 s")
refused_calls_are_free = spec("README 7", "a call refused by authentication or a limit counts for neither limit")
failed_calls_count = spec("README 7", "calls that pass authentication count, replays and later failures included")
agents_setting = spec("README 8", "agents lists the agents that a credential may use, by uid, id, alias or name")
conversations_are_the_applications = spec(
    "README 3", "every credential of the application has access to the conversation"
)
uuid_forms = spec("README 3", "a UUID with or without hyphens, in any case, is one id; an alias is exact")
issued_open_ids = spec("7", "A also accepts an openId issued by the application, and an embed token that contains one")

# Requests and answers of the specification --------------------------------------------------------------------------

n1 = spec("9.2", "N1: NDJSON in order, done.conversationId = header, fullText = joined text")
n2 = spec("9.2", "N2: conv-abc123 twice is one conversation, the second message sees the first")
n3 = spec("9.2", "N3: the same conversationId with another openId is a separate conversation")
n4 = spec("9.2", "N4: disabled ids are accepted, null counts as absent")
n5 = spec("9.2", "N5: agentId 999")
n6 = spec("9.2", "N6: no content, no agentId, a blank content")
n7 = spec("9.2", "N7: no openId")
n8 = spec("9.2", "N8: no Snail-Ai-Auth")
n9 = spec("9.2", "N9: a model that fails after one delta: text, error, then the read raises; history keeps the text")
n10 = spec("9.2", "N10: a silent model: empty lines, which the sample clients ignore")
n11 = spec("9.2", "N11: Accept: text/event-stream")
n12 = spec("9.2", "N12: a client that disconnects after one line: the history has the whole answer")

malformed_key_before_conversation = deviation(
    "README 5", "a malformed Idempotency-Key is reported before a conversation of another agent"
)

# Surfaces B and C ---------------------------------------------------------------------------------------------------

from palaver.dialects.snail.requirements_b import *  # noqa: E402, F403  rows of the same manifest, after A's
from palaver.dialects.snail.requirements_c import *  # noqa: E402, F403
