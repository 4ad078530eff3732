"""The requirements of palaver's own API, one per row. Sections are those of ``docs/native.md``."""

from palaver.wire.requirements import choice, spec

# 2 and 3: authentication and problems -------------------------------------------------------------------------------

bearer = spec("2", "Authorization is Bearer and the credential's secret; the scheme is case-insensitive")
secret_has_a_form = spec("2", "a secret is pv- and 32 hex digits")
no_credential = spec("3", "a missing, wrong or disabled credential: 401 with WWW-Authenticate")
user_is_named = spec("2", "X-User-ID names the end user, in raw or percent-encoded UTF-8")
user_is_needed = spec("2", "a call that needs an end user is rejected without X-User-ID and default_user")
user_is_checked = spec("2", "an X-User-ID that is not UTF-8, or longer than 255 characters, is rejected")
default_user = spec("2", "default_user is the end user of calls without X-User-ID")
agents_of_a_credential = spec("2", "with the setting agents, conversations and runs of other agents return not_found")
full = spec("3", "a storage quota is used up: 429 full, without Retry-After")
limits = spec("3", "limits of the credential: 429 rate_limited with Retry-After, 429 used_up without it")
problem_document = spec("3", "an error is application/problem+json with type, title, status, detail, code, trace")
codes = spec("3", "GET /problems returns every code, as documented, without a credential")
unknown_path = spec("3", "an unknown path is 404 no_such_path, a wrong method 405 with Allow")
malformed = spec("3", "a body that is not a JSON object is 400 malformed, one that is too large 413 too_large")
invalid = spec("3", "a field that violates a rule is 400 invalid, with field and rule")
not_found = spec("3", "a nonexistent resource, or another user's, is 404 not_found with noun")

# 4: objects ---------------------------------------------------------------------------------------------------------

documents = spec("4", "agents, conversations, questions, answers and files always have all documented members")
references = spec("1", "a ref is an id, a uid in either spelling, or an alias")
parts = spec("4", "the parts of a message: text, thinking, tool_call, tool_result, file")
answer_state = spec("4", "an answer has status, reason, problem, usage, steps, position, cursor, ended")

# 5: agents and conversations ----------------------------------------------------------------------------------------

agents = spec("5", "the list has the enabled agents that the credential may use, by name")
create = spec("5", "POST /conversations creates one with an enabled agent, title and variables: 201, Location")
listing = spec("5", "conversations are listed once each, most recently changed first, in pages linked by next")
filters = spec("5", "the list can be filtered by agent and by a text in the title")
title = spec("5", "PUT title sets the title: not blank, up to 255 characters")
delete = spec("5", "DELETE deletes a conversation with its messages, and stops its run")
history = spec("5", "messages are returned oldest first: the newest, or those before or after one; more if there are")
long_history = spec("5", "a page of long messages has fewer than limit, at least one, and more is true")
large_variables = spec("5", "a page of conversations with large variables has fewer than limit, and a next")

# 6: messages --------------------------------------------------------------------------------------------------------

begin = spec("6", "POST /messages starts a conversation and returns the complete Sent")
go_on = spec("6", "POST /conversations/{conversation}/messages continues one")
unread = spec("4", "an answer has a file part with a problem for each unreadable file of the question")
content = spec("6", "content must not be blank unless there are files")
required_variables = choice("a required variable that neither the message nor the conversation has: invalid")
agent_by_name = choice("a name also identifies an agent; an alias takes precedence over another agent's name")
variables = spec(
    "6", "variables of POST /messages are stored with the conversation; those of later messages override them"
)
attached = spec("6", "files are keys of the user's files, or URLs, at most 20")
failed_run = spec("6", "a message whose run fails returns 200 with a failed answer and its problem")
streamed = spec("6", "stream or Accept requests events, run.created first; stream takes precedence over Accept")
respond_async = spec("6", "Prefer: respond-async returns 202 with the run's Location; with wait=, after that time")
turns = spec("6", "one run at a time per conversation; others are queued, above the limit 429 busy")
sent_at_once = spec("7", "run.created is sent at once, even if the run is queued")

# 7: events ----------------------------------------------------------------------------------------------------------

frames = spec("7", "events are written as documented, byte for byte; only the first has retry")
from_any_cursor = spec("7", "the events after any cursor complete the text before it, character for character")
live_resume = spec("7", "a live run can be followed from a cursor to its end")
last_event_id = spec("7", "Last-Event-ID takes precedence over after; an empty one counts as absent")
bad_cursor = spec("7", "a cursor that is not a whole number from 0 to 2^53 - 1 is 400 invalid")
nothing_behind = spec("7", "204 if nothing follows the cursor, also past the end")
ahead = spec("7", "a cursor ahead of a live run: the server waits for it")
heartbeat = spec("7", "an idle stream sends ': alive' and an empty line")
failed_stream = spec("7", "a failed run's stream ends normally, with run.ended and its problem")
any_process = spec("7", "a run can be followed and stopped in every process on the database")
clients = spec("7", "the documented Python and JavaScript clients read a run to its end over broken connections")
receipt = spec("7", "a stop returns the receipt once the end is stored: status, usage, steps, position, cursor")
stop_again = spec("7", "a stop can be repeated, and does not change a run that has ended")
stop_waiting = spec("7", "a queued run that is stopped is dropped: stopped, empty")
stop_all = spec("7", "the conversation's stop ends the running turn and drops the queued ones")

# 8 and 9: files, retries --------------------------------------------------------------------------------------------

upload = spec("8", "POST /files stores the body as the user's file, 201")
download = spec("8", "GET /files/{key} returns the bytes, as an attachment")
delete_file = spec("8", "DELETE /files/{key} deletes a file permanently; another end user's is not_found")
delete_with = spec("8", "a file is deleted with the last conversation that attaches it")
quota = spec("8", "a file beyond the quota of the end user or the application is invalid: file, size")
upload_rules = spec("8", "an empty file, or a name of more than 255 characters, is rejected")
replay_whole = spec("9", "a retried creating call returns the same bytes, with Idempotency-Replayed")
replay_stream = spec("9", "a retried streaming call follows the same run from the beginning")
replay_in_another_form = spec("9", "Accept and Prefer are not compared: the retry may request another format")
idempotency_conflict = spec("9", "the same key with another body is 422 idempotency_conflict")

# Ours ---------------------------------------------------------------------------------------------------------------

problem_is_not_told = choice("a problem never contains messages of the endpoint, the database or a parser")
