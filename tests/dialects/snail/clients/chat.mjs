// The JavaScript client of the page's section "客户端处理示例", by its described behaviour: reads the body piece by
// piece, splits at newlines, passes over blank lines and types it does not know, takes a line that is no JSON as text.
//
// node chat.mjs BASE_URL TOKEN AGENT_ID OPEN_ID CONVERSATION_ID CONTENT…
//
// Asks one CONTENT after the other in one conversation ("" is a new one, which goes on with the id that came back) and
// prints one JSON object for each answer: what was shown as text and as thinking, and whether the read failed.

const [baseUrl, token, agentId, openId, named, ...contents] = process.argv.slice(2);

async function chatWithAgent(content, conversationId, show) {
  const response = await fetch(`${baseUrl}/snail-ai/open-api/chat`, {
    method: 'POST',
    headers: { 'Content-Type': 'application/json', 'Snail-Ai-Auth': token },
    body: JSON.stringify({ agentId: Number(agentId), openId, content, conversationId }),
  });
  const decoder = new TextDecoder();
  let rest = '';
  for await (const piece of response.body) {
    rest += decoder.decode(piece, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() || '';
    for (const line of lines) {
      if (line.trim()) show(line);
    }
  }
}

function screen() {
  const shown = { text: '', thinking: '', others: [], failed: false, conversationId: null };
  const show = (line) => {
    let event;
    try {
      event = JSON.parse(line);
    } catch {
      shown.text += line;
      return;
    }
    if (event.type === 'text') shown.text += event.content;
    else if (event.type === 'thinking') shown.thinking += event.content;
    else shown.others.push(event.type);
    shown.conversationId = event.conversationId ?? shown.conversationId;
  };
  return { shown, show };
}

let conversationId = named || undefined;
for (const content of contents) {
  const { shown, show } = screen();
  try {
    await chatWithAgent(content, conversationId, show);
  } catch {
    shown.failed = true;
  }
  console.log(JSON.stringify(shown));
  conversationId = conversationId ?? shown.conversationId ?? undefined;
}
