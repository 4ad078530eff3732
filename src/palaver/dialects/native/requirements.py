"""What palaver's own API promises, one row a promise. Sections are those of ``docs/native.md``."""

from palaver.wire.requirements import choice, spec

# 2 and 3: who calls, and what is refused ----------------------------------------------------------------------------

bearer = spec("2", "Authorization is Bearer and the credential's secret; the scheme's case does not matter")
secret_has_a_form = spec("2", "a secret is pv- and 32 hex digits")
no_credential = spec("3", "without a credential, or with a wrong or disabled one: 401 with WWW-Authenticate")
user_is_named = spec("2", "X-User-ID names the end user, in UTF-8 as it is or percent-encoded")
user_is_needed = spec("2", "without X-User-ID and default_user a call is refused, unless it needs no end user")
user_is_checked = spec("2", "X-User-ID that is no UTF-8 or longer than 255 characters is refused")
default_user = spec("2", "default_user is the end user of calls that name none")
agents_of_a_credential = spec("2", "with the setting agents, conversations and runs of other agents are not found")
full = spec("3", "a quota of what is stored is used up: 429 full, without Retry-After")
limits = spec("3", "the credential's limits: 429 rate_limited with Retry-After, 429 used_up without")
problem_document = spec("3", "a refusal is application/problem+json with type, title, status, detail, code, trace")
codes = spec("3", "GET /problems has every code, without a credential, as the page has them")
unknown_path = spec("3", "an unknown path is 404 no_such_path, another method 405 with Allow")
malformed = spec("3", "a body that is no JSON object is 400 malformed, one that is too large 413 too_large")
invalid = spec("3", "a field that breaks a rule is 400 invalid with field and rule")
not_found = spec("3", "what is absent or somebody else's is 404 not_found with noun")

# 4: documents -------------------------------------------------------------------------------------------------------

documents = spec("4", "agents, conversations, questions, answers, files have the members of the page, always all")
references = spec("1", "a ref is an id, a uid in either spelling, or an alias")
parts = spec("4", "the parts of a message: text, thinking, tool_call, tool_result, file")
answer_state = spec("4", "an answer has status, reason, problem, usage, steps, position, cursor, ended")

# 5: agents and conversations ----------------------------------------------------------------------------------------

agents = spec("5", "agents are listed by name, the enabled ones that the credential may use")
create = spec("5", "POST /conversations makes one for an enabled agent, with title and variables, 201 and Location")
listing = spec("5", "conversations come the one changed last first, in pages that next joins, each once")
filters = spec("5", "conversations are found by agent and by a text in their title")
title = spec("5", "PUT title sets the title, which must not be blank or longer than 255 characters")
delete = spec("5", "DELETE removes a conversation with its messages and stops its run")
history = spec("5", "messages come oldest first: the newest, those before one, those after one; more says of others")
long_history = spec("5", "a page of long messages has fewer than limit, at least one, and more is true")
large_variables = spec("5", "a page of conversations with large variables has fewer than limit, and next leads on")

# 6: messages --------------------------------------------------------------------------------------------------------

begin = spec("6", "POST /messages begins a conversation and answers with the whole Sent")
go_on = spec("6", "POST /conversations/{conversation}/messages goes on with one")
unread = spec("4", "an answer has a file part with a problem for each file of the question that was not read")
content = spec("6", "content must not be blank unless there are files")
required_variables = choice("a variable that the agent requires and neither message nor conversation has: invalid")
agent_by_name = choice("an agent is named by its name too; an alias goes before another agent's name")
variables = spec("6", "variables of POST /messages stay with the conversation, a later message's come before them")
attached = spec("6", "files are keys of the user's files or addresses, at most 20")
failed_run = spec("6", "a message whose run fails is 200, its answer failed, with the problem")
streamed = spec("6", "with stream or Accept the answer is events, run.created first; stream comes before Accept")
respond_async = spec("6", "Prefer: respond-async is answered 202 with the run's Location, wait= after that time")
turns = spec("6", "one run at a time in a conversation; others wait, above the limit 429 busy")
sent_at_once = spec("7", "run.created comes at once, also where the run has to wait")

# 7: events ----------------------------------------------------------------------------------------------------------

frames = spec("7", "events are written as the page has them, byte for byte; retry stands in the first")
from_any_cursor = spec("7", "what follows any cursor completes what was before it, character for character")
live_resume = spec("7", "a run that lives is followed from a cursor on, to its end")
last_event_id = spec("7", "Last-Event-ID comes before after; an empty one counts as absent")
bad_cursor = spec("7", "a cursor that is no whole number from 0 to 2^53 - 1 is 400 invalid")
nothing_behind = spec("7", "where nothing comes behind a cursor: 204, also past the end")
ahead = spec("7", "a cursor ahead of a run that lives is waited for")
heartbeat = spec("7", "an idle stream sends ': alive' and an empty line")
failed_stream = spec("7", "a failed run's stream ends normally, with run.ended and its problem")
any_process = spec("7", "a run is followed and stopped from every process on the database")
clients = spec("7", "the page's Python and JavaScript clients read a run to its end through a connection that breaks")
receipt = spec("7", "a stop answers with the receipt: status, usage, steps, position, cursor, once the end is stored")
stop_again = spec("7", "a stop may be repeated, and leaves a run that has ended as it is")
stop_waiting = spec("7", "a waiting run that is stopped is dropped: stopped, empty")
stop_all = spec("7", "the conversation's stop ends the running turn and drops the waiting ones")

# 8 and 9: files, repeated calls -------------------------------------------------------------------------------------

upload = spec("8", "POST /files keeps the body as a file of the user's, 201")
download = spec("8", "GET /files/{key} has the bytes, as an attachment")
delete_file = spec("8", "DELETE /files/{key} removes a file for good; another end user's is not_found")
delete_with = spec("8", "a file goes with the last conversation that attaches it")
quota = spec("8", "a file beyond what an end user, or an application, may keep is invalid: file, size")
upload_rules = spec("8", "an empty file and a name of more than 255 characters are refused")
replay_whole = spec("9", "a creating call that is repeated is answered byte for byte, with Idempotency-Replayed")
replay_stream = spec("9", "a streamed call that is repeated follows the same run from the beginning")
replay_in_another_form = spec("9", "Accept and Prefer are not compared: the repeated call may ask for another form")
idempotency_conflict = spec("9", "the same key with another body is 422 idempotency_conflict")

# Ours ---------------------------------------------------------------------------------------------------------------

problem_is_not_told = choice("a problem never shows what the endpoint, the database or a parser said")
