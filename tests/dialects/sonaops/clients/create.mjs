// The JavaScript client of the page's section "客户端示例", by its described behaviour: signs the object it is about to
// send, posts it, reads JSON whatever the status, throws the message of what failed, gives the conversation's id.
//
// node create.mjs BASE_URL API_KEY API_SECRET USER_ID SIGNATURE AGENT_ID…
//
// Creates one conversation for each AGENT_ID, and says "hi" in it; prints one JSON object for each: the id, the joined
// answer, the message's id, or what was thrown. SIGNATURE is sha256 or hmac-sha256.

import { createHash, createHmac, randomUUID } from 'node:crypto';

const [baseUrl, apiKey, apiSecret, userId, generation, ...agentIds] = process.argv.slice(2);

function canonical(body) {
  return Object.keys(body)
    .map((name) => [name, typeof body[name] === 'string' ? body[name].trim() : body[name]])
    .filter(([, value]) => value !== null && value !== undefined && value !== '')
    .sort(([one], [other]) => (one < other ? -1 : 1))
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join('&');
}

function buildAuthHeaders(path, body) {
  const timestamp = String(Math.floor(Date.now() / 1000));
  const signed =
    generation === 'sha256'
      ? createHash('sha256').update(canonical(body) + apiSecret)
      : createHmac('sha256', apiSecret).update(['POST', path, timestamp, userId, '', canonical(body)].join('\n'));
  return {
    'Content-Type': 'application/json',
    Authorization: `Bearer ${apiKey}`,
    'X-Signature': signed.digest('hex'),
    'X-Timestamp': timestamp,
    'X-User-Id': userId,
    'X-Request-ID': randomUUID().replaceAll('-', ''),
  };
}

function post(path, body) {
  return fetch(baseUrl + path, {
    method: 'POST',
    headers: buildAuthHeaders(path, body),
    body: JSON.stringify(body),
  });
}

async function createConversation(agentId) {
  const response = await post('/v1/chat/conversation', { agentId });
  const result = await response.json();
  if (!result.success) throw new Error('创建会话失败:' + result.message);
  return result.data.conversationId;
}

async function chat(agentId, conversationId) {
  const body = { text: ' hi 用户 ', conversationId, agentId, metadata: { n: 1.5, empty: {}, list: ['é', null] } };
  const response = await post('/v1/chat/stream', body);
  const decoder = new TextDecoder();
  let rest = '';
  const heard = { conversationId, answer: '', messageId: null };
  for await (const piece of response.body) {
    rest += decoder.decode(piece, { stream: true });
    const frames = rest.split('\n\n');
    rest = frames.pop();
    for (const frame of frames) {
      const line = frame.split('\n').find((one) => one.startsWith('data: '));
      if (!line) continue;
      const event = JSON.parse(line.slice(6));
      if (event.answer) heard.answer += event.answer;
      if (event.event === 'message_saved') heard.messageId = event.messageId;
    }
  }
  return heard;
}

for (const agentId of agentIds) {
  try {
    const conversationId = await createConversation(agentId);
    console.log(JSON.stringify(await chat(agentId, conversationId)));
  } catch (error) {
    console.log(JSON.stringify({ thrown: error.message }));
  }
}
