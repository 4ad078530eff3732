// A Langflow page's chat, after the published behaviour of its reader and its store of messages:
//
// - Its reader decodes each chunk alone, cuts it at blank lines, gathers pieces until one parses, and goes on only when
//   the event before has been handled.
// - end_vertex is handled no sooner than 300 ms after its node began, so that a node appears to work.
// - A token is appended 10 ms after it came. A message of a known id takes the place of what is there, at once; newer
//   pages ("append") append the text of one that is still partial instead.
// - A failed node's reason is shown if errorMessage and stackTrace are both texts, and nothing is read after it.
// - An error event adds a message, and shows its text as the reason.
//
// node langflow.mjs BASE_URL APPID APPKEY STORE APP_ID…
//
// "late" says that the page stood still meanwhile, so that its own clock is no judge of what came when.
//
// STORE is "replace" or "append". Asks all apps at the same time and prints one JSON object for each of them, in order.

import { createHash, createHmac } from 'node:crypto';

const [baseUrl, appId, appKey, store, ...agents] = process.argv.slice(2);
const NODE_MS = 300;
const TOKEN_MS = 10;
const LATE_MS = 8; // a token read so late and appended so late again is still before the message 30 ms after it
let latest = 0; // how late the page itself was at most: it reads what came meanwhile as if it came at once
let tick = performance.now();
setInterval(() => {
  const now = performance.now();
  latest = Math.max(latest, now - tick - 1);
  tick = now;
}, 1);

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

function signed(path, body) {
  const date = new Date().toUTCString();
  const type = 'application/json';
  const digest = createHash('sha256').update(body).digest('hex');
  const signature = createHmac('sha256', appKey).update(`KSO-1POST${path}${type}${date}${digest}`).digest('hex');
  return { 'Content-Type': type, 'X-Kso-Date': date, 'X-Kso-Authorization': `KSO-1 ${appId}:${signature}` };
}

class Page {
  messages = [];
  seen = []; // every text that an answer had on the screen
  alerts = [];
  valid = []; // of each node that ended
  complete = null;
  nodes = new Map();

  change(id, update) {
    this.messages = this.messages.map((message) => (message.id === id ? update(message) : message));
    const changed = this.messages.find((message) => message.id === id);
    if (changed && changed.sender === 'Machine') this.seen.push(changed.text);
  }

  append(id, chunk) {
    this.change(id, (message) => ({ ...message, text: (message.text || '') + chunk }));
  }

  add(message) {
    if (!this.messages.some((known) => known.id === message.id)) {
      this.messages.push(message);
    } else if (store === 'append' && message.properties?.state === 'partial') {
      const { text, ...rest } = message;
      this.append(message.id, text || '');
      this.change(message.id, (known) => ({ ...known, ...rest }));
    } else {
      this.change(message.id, (known) => (store === 'append' ? message : { ...known, ...message }));
    }
  }

  begin(ids) {
    for (const id of ids) this.nodes.set(id, Date.now());
  }

  async take({ event, data }) {
    switch (event) {
      case 'vertices_sorted':
        this.begin(data.ids);
        return true;
      case 'add_message':
        this.add(data);
        return true;
      case 'token':
        setTimeout(() => this.append(data.id, data.chunk), TOKEN_MS);
        return true;
      case 'end_vertex':
        return this.end(data.build_data);
      case 'error':
        if (data?.category === 'error') {
          this.add(data);
          if (!data.properties?.source?.id) this.alerts.push(data.text);
        }
        this.valid.push(false);
        return true;
      case 'end':
        this.complete = this.valid.every((valid) => valid);
        return true;
      default:
        throw new Error(`an event that the page does not know: ${event}`);
    }
  }

  async end(node) {
    const began = this.nodes.get(node.id);
    if (began !== undefined && Date.now() - began < NODE_MS) await sleep(NODE_MS - (Date.now() - began));
    this.valid.push(node.valid);
    if (!node.valid) {
      for (const { message } of Object.values(node.data.outputs))
        if (typeof message?.errorMessage === 'string' && typeof message?.stackTrace === 'string')
          this.alerts.push(message.errorMessage);
      return false;
    }
    this.begin(node.next_vertices_ids);
    return true;
  }
}

async function read(body, page) {
  const decoder = new TextDecoder();
  let gathered = [];
  for await (const chunk of body) {
    for (const piece of decoder.decode(chunk).split('\n\n')) {
      if (!piece.endsWith('}')) {
        gathered.push(piece);
        continue;
      }
      let event;
      try {
        event = JSON.parse(gathered.join('') + piece);
        gathered = [];
      } catch {
        gathered.push(piece);
        continue;
      }
      if (!(await page.take(event))) return;
    }
  }
  const rest = gathered.join('');
  if (rest) await page.take(JSON.parse(rest));
}

async function ask(agent) {
  const path = `/v7/devhub/app/${agent}/chat/create`;
  const body = JSON.stringify({ text: 'hi', stream: true });
  const response = await fetch(baseUrl + path, { method: 'POST', headers: signed(path, body), body });
  const page = new Page();
  await read(response.body, page);
  await sleep(10 * TOKEN_MS);
  const answers = page.messages.filter((message) => message.sender === 'Machine').map((message) => message.text);
  return { late: latest > LATE_MS, answers, seen: page.seen, alerts: page.alerts, complete: page.complete };
}

for (const shown of await Promise.all(agents.map(ask))) console.log(JSON.stringify(shown));
process.exit();
