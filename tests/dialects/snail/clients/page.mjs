// The vendor's chat page, written anew from what the specification and its published code do on the wire: what it asks,
// in which order, with which headers, and what it makes of the answers. Runs in Node and in a browser; no package.

const AUTH_HEADER = 'Snail-Ai-Auth'

/** Its configuration, from its own `config.json` (here: `gatewayPath`), then from the gateway. */
export async function configured(gatewayPath) {
  const response = await fetch(`${gatewayPath}/config`, { cache: 'no-store' })
  const { data } = await response.json()
  return { pageTitle: 'Snail AI Chat', ...data, gatewayPath: data.gatewayPath ?? gatewayPath }
}

export class Gateway {
  constructor(gatewayPath, origin) {
    this.gatewayPath = gatewayPath
    this.origin = origin
    this.token = ''
    this.authHeader = AUTH_HEADER
  }

  async signIn(openId, trustedCredential) {
    const session = await this.#ask('POST', '/session', { body: { openId, trustedCredential }, signed: false })
    this.token = session.data.token
    this.authHeader = session.data.authHeader || AUTH_HEADER
    return session.data
  }

  agents = () => this.#data('GET', '/agents', { query: { page: 1, size: 200 } })
  agent = (agentId) => this.#data('GET', '/agent', { query: { agentId } })
  myAgents = () => this.#data('GET', '/my-agents')
  subscribe = (agentId) => this.#data('POST', '/agent/subscribe', { query: { agentId } })
  unsubscribe = (agentId) => this.#data('DELETE', '/agent/subscribe', { query: { agentId } })
  conversations = (agentId) => this.#data('GET', '/conversations', { query: { agentId, page: 1, size: 50 } })
  create = (agentId, title) => this.#data('POST', '/conversations', { body: { agentId, title } })
  remove = (agentId, conversationId) => this.#data('DELETE', '/conversations', { query: { agentId, conversationId } })
  clear = (agentId) => this.#data('DELETE', '/conversations', { query: { agentId } })
  messages = (agentId, conversationId) => this.#data('GET', '/messages', { query: { agentId, conversationId } })

  /** `shown` grows while the answer comes; `signal` is the page's stop. */
  async complete(members, shown, signal) {
    const response = await fetch(this.#url('/completions'), {
      method: 'POST',
      headers: this.#headers(),
      body: JSON.stringify(members),
      signal,
    })
    if (!response.ok) throw new Error(`HTTP ${response.status}`)
    const decoder = new TextDecoder()
    let buffer = ''
    for await (const piece of pieces(response.body)) {
      buffer += decoder.decode(piece, { stream: true })
      const frames = buffer.split('\n\n')
      buffer = frames.pop()
      for (const frame of frames) show(frame, shown)
    }
    if (buffer.trim()) show(buffer, shown)
  }

  #data = async (...call) => (await this.#ask(...call)).data

  async #ask(method, path, { query = {}, body, signed = true } = {}) {
    const response = await fetch(this.#url(path, query), {
      method,
      headers: this.#headers(signed),
      body: body === undefined ? undefined : JSON.stringify(body),
    })
    const said = await response.json()
    if (!response.ok || said.status !== 1) throw new Error(said.message)
    return said
  }

  #url(path, query = {}) {
    const url = new URL(`${this.gatewayPath}${path}`, this.origin)
    for (const [name, value] of Object.entries(query)) url.searchParams.set(name, value)
    return url
  }

  #headers(signed = true) {
    const headers = { 'Content-Type': 'application/json' }
    return signed && this.token ? { ...headers, [this.authHeader]: this.token } : headers
  }
}

async function* pieces(body) {
  const reader = body.getReader()
  for (let read; !(read = await reader.read()).done; ) yield read.value
}

/** One frame, as the page takes it: whatever is no `error`, `thinking` or `done` is text. */
function show(frame, shown) {
  let name = 'text'
  const data = []
  for (const line of frame.split('\n')) {
    if (line.startsWith('event:')) name = line.slice(6).trim()
    else if (line.startsWith('data:')) data.push(line.slice(5).trimStart())
  }
  if (!data.length) return
  const said = JSON.parse(data.join('\n'))
  if (name === 'error') shown.text += `\n\n[Error] ${said.message}`
  else if (name === 'thinking') shown.thinking += said.content
  else if (name === 'done') shown.done = said
  else shown.text += said.content
}

/** A visit: signed in, an agent chosen, two messages in a new conversation, a reload, and everything put away. */
export async function visit(gatewayPath, origin, { openId, trustedCredential, agentId }) {
  const config = await configured(gatewayPath)
  const page = new Gateway(config.gatewayPath, origin)
  const seen = { config }
  seen.session = await page.signIn(openId, trustedCredential)
  const [agents, mine] = await Promise.all([page.agents(), page.myAgents()])
  seen.chosen = [...mine, ...agents].find((one) => one.id === agentId) ?? (await page.agent(agentId))
  await page.subscribe(agentId)
  seen.mine = (await page.myAgents()).map((one) => one.id)
  seen.before = await page.conversations(agentId)
  const { conversationId } = await page.create(agentId, '你好')
  seen.answers = []
  for (const content of ['你好', '再见']) {
    const shown = { text: '', thinking: '' }
    const members = { agentId, conversationId, content, webSearchEnabled: false, timeout: 300000 }
    await page.complete(members, shown)
    seen.answers.push(shown)
  }
  const reloaded = new Gateway(config.gatewayPath, origin)
  await reloaded.signIn(openId, trustedCredential)
  seen.listed = await reloaded.conversations(agentId)
  seen.messages = await reloaded.messages(agentId, conversationId)
  await reloaded.remove(agentId, conversationId)
  seen.after = await reloaded.conversations(agentId)
  await reloaded.create(agentId, 'another')
  await reloaded.clear(agentId)
  await reloaded.unsubscribe(agentId)
  seen.mineAfter = await reloaded.myAgents()
  seen.failure = await new Gateway(config.gatewayPath, origin).myAgents().catch((error) => error.message)
  return seen
}

/** The page's stop: the connection is closed once something is shown, and the next message is sent at once. */
export async function stopAndGoOn(gatewayPath, origin, { openId, trustedCredential, agentId }) {
  const page = new Gateway(gatewayPath, origin)
  await page.signIn(openId, trustedCredential)
  const { conversationId } = await page.create(agentId, 'stopped')
  const begin = async (content) => {
    const stopping = new AbortController()
    const shown = {
      thinking: '',
      begun: '',
      set text(text) {
        this.begun += text
        stopping.abort()
      },
      get text() {
        return ''
      },
    }
    const asked = performance.now()
    const ended = await page.complete({ agentId, conversationId, content }, shown, stopping.signal).catch((error) => error)
    return { begun: shown.begun, ended: ended?.name, milliseconds: performance.now() - asked }
  }
  const turns = [await begin('one'), await begin('two')]
  const messages = await page.messages(agentId, conversationId)
  await page.remove(agentId, conversationId)
  return { turns, messages }
}

const acts = { visit, stopAndGoOn }
const [act, gatewayPath, given] = globalThis.process?.argv.slice(2) ?? []
if (act in acts) {
  const origin = new URL(gatewayPath).origin
  console.log(JSON.stringify(await acts[act](gatewayPath, origin, JSON.parse(given))))
}
