"""The dialect's requirements, one per row. Pages are headings of the vendor's "更新会话主题", sections those of
the wire specification ``xspace.md`` (``README n``: of the part that all dialects share)."""

from palaver.wire.requirements import choice, deviation, open_point, spec, vendor

# The vendor's page --------------------------------------------------------------------------------------------------

update_is_posted = vendor("接口信息", "POST /api/v1/chat/conversation/{conversationId}/update sets the topic")
bearer_key = vendor("请求头", "Authorization: Bearer ak-… is the API key")
topic_or_first_message = vendor("接口描述", "at least one of firstMessage and topic is required")
topic_from_first_message = vendor("测试用例", "firstMessage only: 0000, the topic is the message's text")
topic_as_sent = vendor("测试用例", "topic: 0000, the topic is stored as sent")
envelope_members = vendor("响应参数", "code, displayCode, message, data, tid, success, in this order")
conversation_members = vendor("响应示例", "data is a ConversationDto with the members, formats and order of the sample")
curl_sample = vendor("CURL示例", "the page's curl command works")
typescript_client = vendor("TS模板示例", "the page's TypeScript function works, with firstMessage, topic or both")

# Keys ---------------------------------------------------------------------------------------------------------------

schemes = spec("2", "the prefixes Basic and Bearer are removed; a bare key is accepted")
key_prefixes = spec("2", "a value without the prefix ak- or ck- counts as no key; ck- keys are unknown")
new_keys = spec("2", "a new key is ak- followed by 32 lower-case hex digits")
key_states = spec("4", "unknown or disabled key: 4000; expired or missing key: 4030")
expire_setting = spec("2", "expire is the key's expiry time in UTC")
key_kinds = spec("2", "personal keys may not use the legacy routes, agent-bound keys may use all routes")
conversation_owners = spec("2", "a conversation belongs to the key's user; another user's is reported as nonexistent")
act_for_users = spec(
    "2", "with act_for_users, nuwax-user-uid or nuwax-user-id names the end user; otherwise both are ignored"
)
users_are_utf8 = choice(
    "an end user's name in a header that is not valid UTF-8, raw or percent-encoded, is rejected: 4000"
)
storage_quota = choice("a storage quota has been reached: 4290, Storage quota exceeded.")
limits = spec("2", "requests beyond rpm, rpd or total are rejected: 4290")
languages = spec(
    "2", "messages are in Chinese if the cookie, else Accept-Language, else the server's language is zh-CN"
)

# Envelope and errors ------------------------------------------------------------------------------------------------

tid_form = spec("3", "tid: a number from 100 to 999998, then the time in milliseconds")
messages_of_success = spec("3", "the message is success, or 成功 if there is no data")
status_200 = spec("3", "every envelope has HTTP status 200")
scalars = spec(
    "3", "scalars are accepted as strings, a number as its literal text; strings of digits are accepted as numbers"
)
routing_errors = spec("4", "unknown path: 4040; wrong method: 4050")
routing_order = spec(
    "4", "unknown path and wrong method are reported after size, key, expiry, rate limit and kind of key"
)
body_errors = spec("4", "empty and malformed bodies and wrong types: 4000")
max_nodes = deviation(
    "README 5", "a body with more than 20,000 objects, arrays and members is malformed, however few bytes it has"
)
size_limit = spec("4", "a body over the size limit: 4000, Request body too large")
idempotency_form = spec("4", "a malformed Idempotency-Key: 4000; a key used with a different request: 4220")
internal_errors = spec("4", "unexpected errors: 5000")

# Topics, conversations ----------------------------------------------------------------------------------------------

ownership_first = spec("5.1", "ownership is checked before the fields")
topic_exactly = spec("5.1", "a topic is stored exactly as sent; more than 255 characters: 4000")
first_message_rule = spec(
    "5.1", "a first message's white space is collapsed and trimmed, the result truncated to 255 characters"
)
auto_title = spec(
    "5.1", "with auto_title: model, the model generates the topic; if it fails, the first message's text is the topic"
)
icon_rule = spec("5.1", "icon: up to 500 characters, stored; not sufficient without a topic or a first message")
updated_members = spec("5.1", "topicUpdated becomes 1, modified the current time; summary and taskStatus do not change")
uid_in_paths = spec("5.1", "a path may contain a conversation's uid or UUID instead of its id")
add_rules = spec("5.2", "add returns the id; agentId is required; a topic is validated and stored")
agent_errors = spec("4", "add: unknown or disabled agent: 4000; not one of the key's agents: 0001")
untitled = spec("5.3", "the default topic is Start conversation with …")
list_rules = spec(
    "5.3", "list: the agent's conversations with a topic, most recently modified first; lastId, limit, topic"
)
delete_rules = spec("5.3", "delete: data is null; afterwards 0001")
agent_member = spec("6.1", "agent: type, icon and publishDate, with their defaults")
task_status = spec("6.1", "taskStatus: CREATE, EXECUTING, COMPLETE, FAILED")
disabled_agent = spec("4", "1.1: a conversation whose agent is disabled: 0001")
idempotent_creation = spec("README 5", "calls that create something support Idempotency-Key")

# Messages -----------------------------------------------------------------------------------------------------------

history_members = spec("6.2", "ChatMessageDto: members and their order")
history_pages = spec("6.2", "messages: the newest before index, at most limit, oldest first")
history_steps = spec("6.2", "the text of a history contains a marker at the place of each finished step")
stream_form = spec("7.2", "data: without a space, five members in order, nothing except events")
message_members = spec("7.3", "MESSAGE: a delta with 21 members; all have the same id")
step_events = spec("7.3", "PROCESSING: start and end of a step have the same executeId")
final_result = spec("7.3", "FINAL_RESULT: totals; outputText is the concatenation of all CHAT deltas")
heartbeats = spec("7.3", "HEART_BEAT is sent at every interval, also between other events")
event_order = spec("7.3", "events in order; nothing follows the one with completed true")
finish_reasons = spec("7.3", "finishReason is the model's, CANCEL or ERROR")
rejected_messages = spec("7.4", "a message rejected before its run: exactly two events, with requestId null")
failed_run = spec("7.4", "a failed run: the reason in a code block, or ERROR; FINAL_RESULT with error")
stopped_run = spec("7.4", "a stopped run: CANCEL, then success with the text so far; stopping again: 0000")
queued_turns = spec(
    "README 6", "further messages are queued; a stop ends them like a stopped run; too many are rejected as busy"
)
user_header = choice(
    "X-User-ID names the end user only for keys with user_header=true; the vendor's headers take precedence"
)
required_variables = choice(
    "a variable that the agent requires, and neither variableParams nor the conversation has: 4000, is required"
)
chat_body = spec(
    "7.1", "a message or an attachment is required; variables are passed to the run; unknown members are ignored"
)
ascii_stream = spec("README 6", "JSON in streams is ASCII, one event per write")
reader_pace = spec("README 6", "slow and fast readers receive the same events")
replay = spec("README 5", "an identical message with the same Idempotency-Key returns the same run")

# Files --------------------------------------------------------------------------------------------------------------

upload_record = spec("6.3", "upload returns a FileRecordVO; key and url have the documented form")
upload_errors = spec("4", "upload without a file: 4000")
stored_file = open_point(
    "1.1",
    "downloads under /api/f need the key of the file's user: 403 with another key or none, 404 for a nonexistent file",
)
conversation_files = spec("6.3", "a conversation's files: attachments by name; duplicate names are numbered")
external_files = open_point(
    "6.3", "a file attached to a message by an external URL is listed; its fileProxyUrl redirects to that URL: 302"
)
signed_urls = spec(
    "1.1",
    "file/ak: the URL of one of the user's files with ?ak=, valid without a key, for that file only, for one hour; with"
    " download=true browsers save the file",
)
ranges = spec("6.3", "Range, Accept-Ranges, ETag, Last-Modified; 416 for an unsatisfiable range")
default_icon = vendor("data.agent.icon", "the URL of an agent's icon, with a default image for agents without one")
strict_multipart = choice("multipart bodies are parsed strictly: malformed ones are rejected")

# Legacy routes ------------------------------------------------------------------------------------------------------

legacy_agent = spec("6.4", "GET /api/v1/agent: 44 members in order, nulls included")
legacy_create = spec("1.2", "POST /api/v1/conversation/create creates a conversation with the bound agent")
legacy_detail = spec("5.4", "detail contains the agent's opening message and the newest 20 messages")
legacy_list = spec("5.4", "conversations: those with the agent that have a topic")
legacy_chat = spec("1.2", "POST /api/v1/chat: conversationId in the body")
legacy_errors = spec(
    "4", "1.2: nonexistent conversation, disabled agent, another agent's conversation: 4000, each with its own message"
)
legacy_suggest = spec("5.4", "suggest: up to three strings, none unless openSuggest is Open")
legacy_stop = spec("1.2", "stop and delete on the legacy routes")

# Choices ------------------------------------------------------------------------------------------------------------

reason_of_failures = open_point(
    "7.4", "the reason of a failed run is the text for unexpected errors, 系统开小差啦，请稍后重试"
)
unfinished_messages = open_point("6.2", "a message in progress has finished false")
rejection_writes = spec("README 6", "the two events of a rejected message are one write each")
errors_in_envelopes = open_point(
    "3", "an invalid key, a reached limit and a malformed body are reported in an envelope, even on streaming routes"
)
types_of_steps = open_point("7.3", "the targetId of a step is null, its type is Knowledge or ToolCall")
several_ranges = open_point("6.3", "several ranges in one Range header are ignored: the whole file is sent")
