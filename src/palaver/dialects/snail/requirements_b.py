"""The requirements of surface B and of surface A's knowledge search, one per row. ``requirements`` imports these rows;
sections are those of the wire specification's ``snail.md``."""

from palaver.wire.requirements import choice, deviation, open_point, spec

# Authentication -----------------------------------------------------------------------------------------------------

b_id_and_token = spec("2.2", "Snail-Ai-App-Id and Snail-Ai-Token: the credential's id and secret")
b_header_absent = spec("2.3", "a header absent: 5001 缺少认证信息，请提供 Snail-Ai-App-Id 和 Snail-Ai-Token")
b_unknown_application = spec("2.3", "B: application unknown: 5001 应用认证失败: <appId>")
b_disabled_application = spec("2.3", "B: application disabled: 5001 应用已禁用: <appId>")
b_wrong_token = spec("2.3", "B: token wrong: 5001 Token 验证失败")
b_unknown_open_id = spec("2.3", "B: openId not registered: 5001 OpenId 无效: <openId>")
b_auth_in_order = spec("2.3", "B: absent, unknown, disabled, wrong, in this order")
b_same_secret = spec("2", "one secret is B's token, signs A's tokens, and is A's opaque token")

# Envelope and general errors ----------------------------------------------------------------------------------------

b_envelope = spec("3", "code, msg, data, status, message; no type on B; data is always written")
b_pages = spec("3", "B's paged lists have page, size and total in addition to data")
b_unknown_path = spec("3", "B: unknown path 404 接口不存在; wrong method 405 请求方法不支持")
b_limits = spec("3", "B: rate limit, lifetime count: 429 and Retry-After, 请求过于频繁，请稍后再试")
b_no_json = spec("3", "B: body not a JSON object: 请求体不是合法的 JSON; too large: 413 请求体过大")
b_wrong_type = spec("3", "B: wrong type: 参数格式错误: <field>; digits in a string count as a number")
b_field_rules = spec("3", "B: field rule broken: <field> <rule text>, the first in the table's order")
b_chat_unknown_agent = spec("3", "B: agent unknown or disabled, in chat: 智能体不存在或已被禁用")
b_conversation_id_form = spec("3", "B: conversationId over 128 characters or with control characters: 参数格式错误")
b_other_agents_conversation = spec("3", "B: conversationId of another agent: conversationId 与 agentId 不匹配")
b_busy = spec("3", "B: too many messages waiting: 会话繁忙，请稍后再试")

# Reading requests ---------------------------------------------------------------------------------------------------

b_query_or_body = spec("7", "GET and DELETE take query fields, POST a JSON body; explicit nulls are normal")
b_blank_is_absent = spec("7", "blank counts as absent")
b_query_rules = spec("README 5", "+ is a space, percent-decoded UTF-8, the last of repeated names wins")

# Agents -------------------------------------------------------------------------------------------------------------

b_agents = open_point(
    "7",
    "the list of agents, GET /agents, has the active ones that the credential may use, while the "
    "vendor's server lists all; newest updateDt first, 50 per page",
)
b_page_rules = spec("7", "page must be greater than 0, size must be greater than 0; size above 200 counts as 200")
b_agent = spec("7", "GET /agent: any status, disabled is 4; unknown: Agent 不存在: <id>")
b_agent_members = spec("7", "Agent: the members in wire order, at most 8 presetQuestions, subscribed null")
b_agent_dates = spec("7", "dates of Agent and EmbedToken YYYY-MM-DD HH:MM:SS in the server's zone")
b_no_servers_no_skills = spec("7", "mcpServers and skills are [] when the switch is off")
b_user_agents = spec("7", "GET /user/agents: the active agents that the user is subscribed to, subscribed true")
b_subscribe = spec("7", "POST /user/agent: null, repeatable; inactive or unknown: Agent 不存在或不可用: <id>")
b_unsubscribe = spec("7", "DELETE /user/agent: null, also if not subscribed")

# Users --------------------------------------------------------------------------------------------------------------

b_register = spec("7", "POST /user/register: same externalId, same user, created false; without it a new one")
b_user_members = spec("7", "User: openId <32hex>, externalId, nickname, avatarUrl, created")
b_user = spec("7", "GET /user: User; unknown: status 0 用户不存在: <openId>")
b_unknown_user = spec("7", "unknown openId: 用户不存在 on /user, /user/agents, /user/agent; elsewhere 5001")
b_auto_register = spec("7", "with auto_register an unknown openId is registered, externalId = the openId sent")
b_external_ids = spec("README 3", "B accepts an issued openId or its externalId")
b_same_people = spec("7", "the end user of an issued openId is its externalId, or itself; A also accepts issued ones")
b_n13 = spec("9.2", "N13: register twice; after N1 created is false at once, and N1's conversation is listed")
b_embed_token = spec("7", "GET, POST /embed-token: the EmbedToken's members; ttlSeconds is 3600 by default")
b_embed_ttl = spec("7", "ttlSeconds 60 to 86400, with the vendor's error messages")
b_embed_jwt = spec("7", "embed token: HS256 with the secret; aud, exp, appId, openId, trustedCredential if given")
b_embed_ends = choice(
    "an embed token is revoked permanently when its credential is disabled; the claim palaver_generation has the "
    "credential's generation"
)
b_embed_on_a = spec("2.1", "B's embed tokens are valid on A, for their openId")

# Conversations ------------------------------------------------------------------------------------------------------

b_list = spec("7", "GET /agent/conversations: the user's with the agent, newest updateDt first, 20 per page")
b_create = spec("7", "POST /agent/conversations: Conversation")
b_n16 = spec("9.2", "N16: create without title: status 0, title title is required")
b_conversation_members = spec("7", "Conversation: conversationId, agentId, title, createDt, updateDt (…T…)")
b_title = spec("7", "a conversation's title: its first message's first 16 characters, until one is set")
b_delete = spec("7", "DELETE /agent/conversations: null; unknown id too")
b_clear = spec("7", "without conversationId, all of the user's conversations with the agent are deleted")
b_blank_is_not_all = spec("7", "DELETE with a blank conversationId: conversationId conversationId is required")
b_n17 = spec("9.2", "N17: clear, then list: data null; data [], total 0")
b_messages = spec("7", "GET /agent/conversations/messages: oldest first, no paging; unknown: []")
b_message_members = spec("7", "Message: role, content, thinking, status 1, createDt")
b_failed_message = spec("7", "a failed turn has status 0; one without text has the reason as content")
b_messages_of_other_agent = spec("7", "messages with another agent's id: []")
b_being_written = spec("README 6", "an answer is in the history once it has ended")
b_isolation = spec("README 3", "another user's conversation is indistinguishable from a nonexistent one")
b_shared = spec("README 3", "A and B share conversations")
b_n12 = spec("9.2", "N12: a client disconnects from A's stream after one line: B's messages have the whole answer")

# Chat ---------------------------------------------------------------------------------------------------------------

b_frames = open_point(
    "6",
    "frames are event:<name> and data:<json>, without the empty data: line that the vendor's server "
    "writes after thinking and text; X-Conversation-Id; charset=UTF-8",
)
b_event_names = spec("6", "no event names but thinking, text, done and error, whatever the run does")
b_sid = spec("7", "sid is echoed in every thinking and text; absent: a random <uuid>")
b_n14 = spec("9.2", "N14: the SDK's body with its nulls; done.conversationId c-9")
b_n15 = spec("9.2", "N15: unknown openId and Accept: text/event-stream: one error frame, 5001")
b_refusal_frames = spec("6", "Accept names text/event-stream: HTTP 200 and one error frame, limits included")
b_refusal_envelopes = spec("6", "otherwise, and for 404, 405 and 413, the envelope")
b_failed_run = spec("6", "a failed run: error, last, no done; the stream ends normally")
b_stopped_run = spec("README 6", "B: a stopped run ends with done and the text so far")
b_chat_required = open_point(
    "7",
    "on surface B, agentId, openId and content are required (… is required), and conversationId is "
    "optional as on A, while the vendor's server requires it",
)
b_sync = spec("7", "/agent/chat/sync: conversationId, content, durationMs")
b_sync_time = spec("7", "sync waits at most 300 s; then status 0, 对话超时, and the run continues")
b_sync_failed = spec("7", "sync: a failed run is status 0 with the reason")
b_off = spec("7", "disabledMcpServerIds, disabledSkillIds as on A; deepPlanEnabled, webSearchEnabled, timeout ignored")

# Idempotency --------------------------------------------------------------------------------------------------------

b_replayed_stream = spec("README 5", "B chat: the same key replays the run with the same sid and done")
b_replayed_answers = spec("README 5", "register, create and sync: the stored response, byte for byte")
b_conflict = spec("README 5", "B: the same key for another request: 422; a malformed key: Idempotency-Key 格式错误")

# Knowledge search on A ----------------------------------------------------------------------------------------------

rag_results = spec("5", "rag/search: results with their members, score descending; no hits: []")
rag_metrics = spec("5", "metrics null without debug")
rag_missing = spec("9.2", "N18: ragId or query absent or blank: ragId 和 query 为必填参数")
rag_unknown = spec("5", "unknown or another application's: 知识库不存在")
rag_is_a = spec("5", "rag/search is surface A's: Snail-Ai-Auth, envelopes with type")

# The vendor's Java client -------------------------------------------------------------------------------------------

b_java_client = spec("10", "B's Java client: nulls skipped in queries, sent in bodies; dates of exactly one form")
b_java_reader = spec("10", "its stream reader requires event: and data: at the start of lines, and ignores a JSON body")

# Choices ------------------------------------------------------------------------------------------------------------

b_unknown_agent_has_none = open_point(
    "7",
    "on surface B, an unknown agent has no conversations and no messages; creating one is rejected like chat",
)
b_user_before_agent = choice("the openId is checked before the agent")
b_any_fields = choice("whatever the fields contain, the response is one of the vendor's, never an internal error")
b_types_in_order = choice("B: of several fields with a wrong type, the first in the table's order is reported")
b_lengths = choice("openId, externalId and sid have at most 255 characters: 参数格式错误")
b_sync_reason = open_point(
    "7", "the reason of a failed run of /agent/chat/sync is a word after 系统异常, without the endpoint's details"
)
b_register_key = choice("an Idempotency-Key of register is scoped to the credential, not to the registered user")
rag_known = choice("rag/search finds only the knowledge bases of agents that the caller may use; others: 知识库不存在")
rag_ten = choice("rag/search returns at most 10 passages; documentName is the path below the folder that was added")
b_sid_of_replay = open_point("7 against README 5", "a generated sid is the run's id, so that a replay has the same sid")
b_no_features_yet = deviation(
    "7", "an agent's MCP servers, skills, web search, view counts and features are off, none and zero"
)
b_required_variables = choice(
    "a message to an agent with a required variable is rejected with its name: this API has no variables"
)
