// The function of the page's section "TS模板示例", by its described behaviour: a request helper that posts JSON with
// the key and gives back the parsed answer, whose `code` (or `success`) and typed `data` are read.
//
//   node update.mjs BASE_URL KEY CONVERSATION_ID '{"firstMessage": …}' …

const [, , base, key, conversationId, ...bodies] = process.argv;

const request = {
  async post(path, params) {
    const response = await fetch(base + path, {
      method: "POST",
      headers: {
        "Content-Type": "application/json",
        Accept: "application/json, text/plain, */*",
        Authorization: `Bearer ${key}`,
      },
      body: JSON.stringify(params),
    });
    if (response.status >= 400) throw new Error(`HTTP ${response.status}`);
    return response.json();
  },
};

const updateConversation = (id, params) => request.post(`/api/v1/chat/conversation/${id}/update`, params);

for (const body of bodies) {
  const { code, success, message, data } = await updateConversation(Number(conversationId), JSON.parse(body));
  console.log(
    JSON.stringify({
      code,
      success,
      message,
      topic: data?.topic,
      same: data?.id === Number(conversationId),
      types: data && [typeof data.id, typeof data.uid, typeof data.topicUpdated, typeof data.modified],
    }),
  );
}
