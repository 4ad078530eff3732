"""What is promised, one row a promise. Pages are headings of the vendor's "更新会话主题", sections those of the wire
specification's ``xspace.md`` (``README n``: of the part all dialects share)."""

from palaver.wire.requirements import choice, deviation, open_point, spec, vendor

# The vendor's page --------------------------------------------------------------------------------------------------

update_is_posted = vendor("接口信息", "POST /api/v1/chat/conversation/{conversationId}/update sets the topic")
bearer_key = vendor("请求头", "Authorization: Bearer ak-… is the API key")
one_of_the_two = vendor("接口描述", "firstMessage or topic: at least one of them is given")
topic_from_first_message = vendor("测试用例", "firstMessage alone: 0000, the topic is the message's content")
topic_as_given = vendor("测试用例", "topic: 0000, the topic is the one given")
envelope_members = vendor("响应参数", "code, displayCode, message, data, tid, success, in this order")
conversation_members = vendor("响应示例", "data is a ConversationDto: members, formats and order of the sample")
curl_sample = vendor("CURL示例", "the page's curl command works")
typescript_client = vendor("TS模板示例", "the page's TypeScript function works, with firstMessage, topic or both")

# Keys ---------------------------------------------------------------------------------------------------------------

schemes = spec("2", "Basic and Bearer are stripped and trimmed, a bare key works")
not_a_key = spec("2", "a value that begins neither ak- nor ck- counts as no key; ck- is unknown")
new_keys = spec("2", "a new key is ak- and 32 lower-case hex digits")
key_states = spec("4", "unknown or disabled: 4000; expired: 4030; none: 4030")
expire_setting = spec("2", "expire ends a key at a moment in UTC")
kinds = spec("2", "personal keys may not use the older paths, agent-bound ones may use both")
users_of_keys = spec("2", "a conversation is the key's user's; somebody else's behaves as not existing")
act_for_users = spec("2", "act_for_users: nuwax-user-uid or nuwax-user-id names the end user; else both are ignored")
users_are_utf8 = choice(
    "an end user's name in a header that is not UTF-8, as it is or percent-encoded, is refused: 4000"
)
full = choice("a quota of what is stored is used up: 4290, Storage quota exceeded.")
limits = spec("2", "rpm, rpd and total are counted, each refused with 4290")
languages = spec("2", "messages are Chinese by cookie, then Accept-Language, then the server's language: zh-CN")

# Envelope and errors ------------------------------------------------------------------------------------------------

tid_form = spec("3", "tid: 100 to 999998, then the milliseconds")
messages_of_success = spec("3", "success with data, 成功 where there is none")
status_200 = spec("3", "every envelope has HTTP status 200")
scalars = spec("3", "scalars become strings where one is due, a number its literal text; digits become numbers")
routing_errors = spec("4", "unknown path 4040, wrong method 4050")
routing_order = spec("4", "unknown path and wrong method are told after size, key, expiry, rate and kind of key")
body_errors = spec("4", "empty, broken or wrongly typed bodies: 4000")
many_members = deviation(
    "README 5", "a body with more than 20,000 objects, arrays and members is malformed, however few bytes it has"
)
size_limit = spec("4", "a body over its limit: 4000 Request body too large")
idempotency_form = spec("4", "a malformed Idempotency-Key: 4000; another request under one: 4220")
unforeseen = spec("4", "anything unforeseen: 5000")

# Topics, conversations ----------------------------------------------------------------------------------------------

ownership_first = spec("5.1", "ownership is checked before the fields")
topic_exactly = spec("5.1", "a topic is stored exactly as sent; over 255 characters: 4000")
first_message_rule = spec("5.1", "a first message's white space is joined and trimmed, the result cut after 255")
auto_title = spec("5.1", "auto_title: model asks the model; without an answer the first message's content is taken")
icon_rule = spec("5.1", "icon: stored, up to 500 characters, alone not enough")
untouched = spec("5.1", "topicUpdated is 1, modified is now; summary and taskStatus stay")
uid_in_paths = spec("5.1", "a conversation's uid or UUID works in place of its number")
add_rules = spec("5.2", "add answers the id; agentId is required; a topic is checked and stored")
add_agents = spec("4", "add: agent unknown or disabled 4000, not among the key's agents 0001")
untitled = spec("5.3", "an unset topic is shown as Start conversation with …")
list_rules = spec("5.3", "list: titled ones of the agent, newest first, lastId, limit, topic")
delete_rules = spec("5.3", "delete: data null; afterwards 0001")
agent_member = spec("6.1", "agent: type, icon and publishDate, with their defaults")
task_status = spec("6.1", "taskStatus: CREATE, EXECUTING, COMPLETE, FAILED")
disabled_agent = spec("4", "1.1: a conversation whose agent is disabled: 0001")
creating_once = spec("README 5", "creating calls honour Idempotency-Key")

# Messages -----------------------------------------------------------------------------------------------------------

history_members = spec("6.2", "ChatMessageDto: members and their order")
history_pages = spec("6.2", "messages: below index, the newest limit of them, oldest first")
history_steps = spec(
    "6.2", "at the place of each finished step a history's text has a marker, from which pages draw it"
)
stream_form = spec("7.2", "data: without a space, five members in order, nothing but events")
message_members = spec("7.3", "MESSAGE: 21 members, deltas, one id")
processing = spec("7.3", "PROCESSING: start and end of a step share an executeId")
final_result = spec("7.3", "FINAL_RESULT: totals, outputText is all CHAT deltas joined")
heartbeats = spec("7.3", "HEART_BEAT comes at its interval in any case")
order = spec("7.3", "events in order, nothing after the one with completed true")
finish_reasons = spec("7.3", "finishReason is the model's, CANCEL or ERROR")
refused_before = spec("7.4", "refused before the run: exactly two events with requestId null")
failed_run = spec("7.4", "a failing run: reason in a code fence, or ERROR; FINAL_RESULT with error")
stopped_run = spec("7.4", "a stopped run: CANCEL, then success with the text so far; stop again is 0000")
waiting_turns = spec("README 6", "further messages wait; a stop drops them in the whole stop form; too many are busy")
user_header = choice(
    "X-User-ID names the end user for keys with user_header=true alone; the vendor's headers come first"
)
required_variables = choice(
    "a variable that the agent requires and neither variableParams nor the conversation has: 4000, is required"
)
chat_body = spec("7.1", "message or an attachment is required, variables reach the run, unknown fields do not matter")
ascii_stream = spec("README 6", "JSON inside a stream is ASCII, one event a write")
any_pace = spec("README 6", "a reader of any pace hears the same")
replay = spec("README 5", "an equal message under an equal Idempotency-Key is the same run again")

# Files --------------------------------------------------------------------------------------------------------------

upload_record = spec("6.3", "upload answers a FileRecordVO; key and url have their form")
upload_errors = spec("4", "upload without file: 4000")
stored_file = open_point(
    "1.1",
    "downloads under /api/f need the key of the file's user: 403 with another key or none, 404 for a nonexistent file",
)
conversation_files = spec("6.3", "a conversation's files: attachments by name, a second one of a name is numbered")
files_elsewhere = open_point(
    "6.3", "a file attached to a message by an external URL is listed; its fileProxyUrl redirects to that URL: 302"
)
file_addresses = spec(
    "1.1",
    "file/ak: the address of an own file with ?ak=, good without a key for that file alone, for an hour; with"
    " download=true browsers save it",
)
ranges = spec("6.3", "Range, Accept-Ranges, ETag, Last-Modified; 416 for a bad one")
default_icon = vendor("data.agent.icon", "the address of an agent's picture, which is there: a tile where it has none")
strict_forms = choice("multipart bodies are read strictly: what is not well-formed is refused")

# The older paths ----------------------------------------------------------------------------------------------------

older_agent = spec("6.4", "GET /api/v1/agent: 44 members in order, all written")
older_create = spec("1.2", "POST /api/v1/conversation/create makes one with the bound agent")
older_detail = spec("5.4", "detail has the last 20 messages behind the agent's opening text")
older_list = spec("5.4", "conversations: titled ones of the agent")
older_chat = spec("1.2", "POST /api/v1/chat: conversationId in the body")
older_errors = spec("4", "1.2: conversation missing, agent disabled, another agent's: 4000 each with its text")
older_suggest = spec("5.4", "suggest: up to three strings, none when openSuggest is not Open")
older_stop = spec("1.2", "stop and delete on the older paths")

# Choices ------------------------------------------------------------------------------------------------------------

reason_of_failures = open_point(
    "7.4", "the reason of a failed run is the text for unexpected errors, 系统开小差啦，请稍后重试"
)
growing_messages = open_point("6.2", "a message in progress has finished false")
refusal_in_two_writes = spec("README 6", "the two events of a message that is not accepted are a write each")
refused_in_an_envelope = open_point(
    "3", "an invalid key, a reached limit and a malformed body are reported in an envelope, even on streaming routes"
)
types_of_steps = open_point("7.3", "the targetId of a step is null, its type is Knowledge or ToolCall")
several_ranges = open_point("6.3", "several ranges in one Range header are ignored: the whole file is sent")
