// One act of OpenAI's client for Node: `node client.mjs ACT [JSON]` prints its result as JSON on one line.
// It is made with nothing but OPENAI_BASE_URL and OPENAI_API_KEY, as its users make it.
import OpenAI from "openai";

const client = new OpenAI({ maxRetries: 0 });
const model = "scripted-echo";
const user = (content) => [{ role: "user", content }];
const adder = {
  type: "function",
  function: {
    name: "adder",
    parameters: {
      type: "object",
      properties: { a: { type: "integer" }, b: { type: "integer" } },
      required: ["a", "b"],
    },
  },
};

const acts = {
  async chat() {
    return client.chat.completions.create({ model, messages: user("hello from Node") });
  },

  async stream() {
    const stream = await client.chat.completions.create({
      model,
      messages: user("hello from Node"),
      stream: true,
      stream_options: { include_usage: true },
    });
    const chunks = [];
    for await (const chunk of stream) chunks.push(chunk);
    return chunks;
  },

  async streamHelper() {
    const heard = [];
    const stream = client.chat.completions.stream({ model, messages: user("hello from Node") });
    stream.on("content", (delta) => heard.push(delta));
    const final = await stream.finalChatCompletion();
    return { heard: heard.join(""), final };
  },

  async leave() {
    const stream = await client.chat.completions.create({
      model: "scripted-endless",
      messages: user("never mind"),
      stream: true,
    });
    for await (const chunk of stream) if (chunk.choices[0]?.delta.content) break;
    return { aborted: stream.controller.signal.aborted };
  },

  async tools() {
    const asked = user("use adder on 17 and 25");
    const first = await client.chat.completions.create({ model, messages: asked, tools: [adder] });
    const { message } = first.choices[0];
    const result = { role: "tool", tool_call_id: message.tool_calls[0].id, content: "42" };
    const final = await client.chat.completions.create({
      model,
      messages: [...asked, message, result],
      tools: [adder],
    });
    return { call: message.tool_calls[0], final: final.choices[0].message.content };
  },

  async streamedTools() {
    const stream = client.chat.completions.stream({ model, messages: user("use adder on 17 and 25"), tools: [adder] });
    return (await stream.finalChatCompletion()).choices[0];
  },

  async runTools() {
    const runner = client.chat.completions.runTools({
      model,
      messages: user("use adder on 17 and 25"),
      tools: [
        { type: "function", function: { ...adder.function, parse: JSON.parse, function: ({ a, b }) => String(a + b) } },
      ],
    });
    return runner.finalContent();
  },

  async json() {
    const answer = await client.chat.completions.create({
      model,
      messages: user("a 'name' as JSON, please"),
      response_format: { type: "json_object" },
    });
    return JSON.parse(answer.choices[0].message.content);
  },

  async error({ model: asked, stream = false, key, conversation }) {
    const asking = key === undefined ? client : new OpenAI({ maxRetries: 0, apiKey: key });
    try {
      await asking.chat.completions.create({ model: asked, messages: user("hello"), stream, conversation });
    } catch (error) {
      return {
        class: error.constructor.name,
        isApiError: error instanceof OpenAI.APIError,
        status: error.status,
        type: error.type,
        code: error.code,
        requestID: error.requestID,
        retryAfter: error.headers?.get("retry-after"),
      };
    }
    throw new Error("it was answered");
  },

  async brokenStream() {
    const stream = await client.chat.completions.create({
      model: "scripted-cut",
      messages: user("hello"),
      stream: true,
    });
    try {
      for await (const _ of stream);
    } catch (error) {
      return { isApiError: error instanceof OpenAI.APIError, message: error.message };
    }
    throw new Error("the stream ended as if it were whole");
  },

  async models() {
    const ids = [];
    for await (const one of client.models.list()) ids.push(one.id);
    return { ids, one: await client.models.retrieve(`openai/${model}`) };
  },

  async conversation() {
    const opened = await client.chat.completions
      .create({ model, messages: user("I am Noor") }, { headers: { "X-BaatCheet-Conversation": "new" } })
      .withResponse();
    const id = opened.response.headers.get("x-baatcheet-conversation");
    const next = await client.chat.completions.create(
      { model, messages: user("who?") },
      { headers: { "X-BaatCheet-Conversation": id } },
    );
    return { id, requestId: opened.request_id, answers: [opened.data, next].map((one) => one.choices[0].message.content) };
  },

  async embeddings() {
    // Without `encoding_format` this client asks for base64 and decodes it.
    return client.embeddings.create({ model: "text-embedding-scripted", input: ["one", "two"] });
  },
};

const [act, given = "{}"] = process.argv.slice(2);
process.stdout.write(JSON.stringify(await acts[act](JSON.parse(given))) + "\n");
