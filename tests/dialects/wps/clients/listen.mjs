// The client of the page's section "流式对话中获取智能体回复", by its described behaviour: it listens for add_message of
// sender Machine, sender_name Agent; data.text is the reply, data.id the message's id, chat_id is for cancelling.
//
// node listen.mjs BASE_URL APPID APPKEY APP_ID CUT TEXT…
//
// CUT "lines" reads line by line; "chunks" reads like Langflow's own reader, which decodes each chunk alone, cuts it at
// blank lines and gathers pieces until one parses. Says one TEXT after the other in one session, and prints one JSON
// object for each answer.

import { createHash, createHmac } from 'node:crypto';

const [baseUrl, appId, appKey, agent, cut, ...texts] = process.argv.slice(2);

function signed(path, body) {
  const date = new Date().toUTCString();
  const type = 'application/json';
  const digest = createHash('sha256').update(body).digest('hex');
  const signature = createHmac('sha256', appKey).update(`KSO-1POST${path}${type}${date}${digest}`).digest('hex');
  return { 'Content-Type': type, 'X-Kso-Date': date, 'X-Kso-Authorization': `KSO-1 ${appId}:${signature}` };
}

async function readLines(body, take) {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const piece of body) {
    rest += decoder.decode(piece, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() || '';
    for (const line of lines) if (line.trim()) take(JSON.parse(line));
  }
}

async function readChunks(body, take) {
  let gathered = [];
  for await (const piece of body) {
    for (const part of new TextDecoder().decode(piece).split('\n\n')) {
      if (!part) continue;
      gathered.push(part);
      if (!part.endsWith('}')) continue;
      try {
        take(JSON.parse(gathered.join('')));
        gathered = [];
      } catch {
        // a piece of a message: the next one completes it
      }
    }
  }
  if (gathered.length) throw new Error('a message was left over');
}

let session;
for (const text of texts) {
  const path = `/v7/devhub/app/${agent}/chat/create`;
  const body = JSON.stringify({ text, stream: true, session_id: session });
  const response = await fetch(baseUrl + path, { method: 'POST', headers: signed(path, body), body });
  const shown = { reply: '', ids: [], chats: [], streamed: '', last: '' };
  await (cut === 'lines' ? readLines : readChunks)(response.body, ({ event, data }) => {
    shown.last = event;
    if (event === 'token') shown.streamed += data.chunk;
    if (event !== 'add_message') return;
    session = data.session_id;
    if (data.sender !== 'Machine' || data.sender_name !== 'Agent') return;
    shown.reply = data.text;
    if (!shown.ids.includes(data.id)) shown.ids.push(data.id);
    if (!shown.chats.includes(data.chat_id)) shown.chats.push(data.chat_id);
  });
  console.log(JSON.stringify(shown));
}
