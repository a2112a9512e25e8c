// How the pages ask the server: with the key that somebody typed, which this tab alone keeps.

const KEY = "trivet-key";
const listeners = new Set();

export const state = {
  key: sessionStorage.getItem(KEY) || "",
  needsKey: false,
  isReachable: true,
};

export function subscribe(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function change(what) {
  if (Object.keys(what).every((name) => state[name] === what[name])) return;
  Object.assign(state, what);
  for (const listener of listeners) listener();
}

export function useKey(key) {
  if (key) sessionStorage.setItem(KEY, key);
  else sessionStorage.removeItem(KEY);
  change({ key, needsKey: false });
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

/** The answer itself; raises Refused with the server's own words. */
export async function send(path, { method, body, headers, signal } = {}) {
  const all = { ...headers };
  if (state.key) all.Authorization = `Bearer ${state.key}`;
  let data = body;
  if (body !== undefined && !(body instanceof Uint8Array) && typeof body !== "string") {
    data = JSON.stringify(body);
  }
  if (data !== undefined && !all["Content-Type"]) all["Content-Type"] = "application/json";
  const options = {
    method: method || (data === undefined ? "GET" : "POST"),
    body: data,
    headers: all,
    signal,
    cache: "no-store",
    credentials: "omit",
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    change({ isReachable: false });
    throw new Refused(0, "The server cannot be reached.");
  }
  change({ isReachable: true });
  if (answer.ok) return answer;
  if (answer.status === 401) change({ needsKey: true });
  throw new Refused(answer.status, await told(answer));
}

/** The JSON of an answer, or null where it has none. */
export async function ask(path, options) {
  const text = await (await send(path, options)).text();
  return text ? JSON.parse(text) : null;
}

async function told(answer) {
  const text = await answer.text();
  try {
    const { error } = JSON.parse(text);
    return (typeof error === "string" ? error : error?.message) || text;
  } catch {
    return text || `${answer.status} ${answer.statusText}`;
  }
}

export const modelPath = (name, rest = "") => `/v2/models/${encodeURIComponent(name)}${rest}`;

/** The chunks of a stream of events, as they come. */
export async function* events(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const parts = (rest + value).split(/\r?\n\r?\n/);
    rest = parts.pop();
    for (const part of parts) {
      const data = part.split(/\r?\n/).filter((line) => line.startsWith("data:"));
      const text = data.map((line) => line.slice(5).trim()).join("\n");
      if (text === "[DONE]") return;
      if (text) yield JSON.parse(text);
    }
  }
}
