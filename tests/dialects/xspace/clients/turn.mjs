// A reader of turns as the vendor's web client is described: it posts with an `Accept` of JSON, parses `data` of every
// block, acts on `eventType`, appends the text of every MESSAGE by `type`, keeps steps by `executeId`, and closes
// 200 ms after an event with `completed` true.
//
//   node turn.mjs BASE_URL KEY CONVERSATION_ID MESSAGE

const [, , base, key, conversationId, message] = process.argv;
const turn = { text: "", thinking: "", steps: {}, kinds: [], ids: [], error: null, completed: false, after: 0 };

const response = await fetch(`${base}/api/v1/chat/${conversationId}`, {
  method: "POST",
  headers: {
    "Content-Type": "application/json",
    Accept: "application/json, text/plain, */*",
    Authorization: `Bearer ${key}`,
  },
  body: JSON.stringify({ conversationId: Number(conversationId), message, debug: false }),
});
if (response.status >= 400) throw new Error(`HTTP ${response.status}`);

const decoder = new TextDecoder();
let rest = "";
for await (const chunk of response.body) {
  rest += decoder.decode(chunk, { stream: true });
  const blocks = rest.split("\n\n");
  rest = blocks.pop();
  for (const block of blocks) take(JSON.parse(block.replace(/^data: ?/, "")));
}

function take(event) {
  if (turn.completed) turn.after += 1;
  if (!turn.kinds.includes(event.eventType)) turn.kinds.push(event.eventType);
  if (!turn.ids.includes(event.requestId)) turn.ids.push(event.requestId);
  if (event.eventType === "MESSAGE") turn[event.data.type === "THINK" ? "thinking" : "text"] += event.data.text;
  if (event.eventType === "PROCESSING") turn.steps[event.data.result.executeId] = event.data.status;
  if (event.eventType === "FINAL_RESULT") turn.error = event.error;
  turn.completed ||= event.completed;
}

console.log(JSON.stringify({ ...turn, rest }));
