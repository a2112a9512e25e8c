// Conversations with language models: one, or two side by side that are asked the same.

import { html, useEffect, useReducer, useRef, useState } from "./vendor/preact.js";
import { ask, events, modelPath, send } from "./api.js";
import { Markdown } from "./markdown.js";
import { Choice, Entry, Failure, Told, useAction, usePolled } from "./widgets.js";

const SIDES = ["left", "right"];
const VOTE = "vote";

export function Chat() {
  const models = usePolled(() => ask("/v1/models"), 10);
  const names = (models.data?.data || []).map((each) => each.id);
  const [isCompared, setCompared] = useState(false);
  const [settings, setSettings] = useState({ system: "", temperature: "0.7", max_tokens: "256" });
  const [text, setText] = useState("");
  const [picture, setPicture] = useState("");
  const sides = [useSide(names, 0), useSide(names, 1)].slice(0, isCompared ? 2 : 1);
  const isBusy = sides.some((each) => each.isBusy);
  const submit = (event) => {
    event.preventDefault();
    if (!text.trim() || isBusy) return;
    const content = picture
      ? [{ type: "text", text }, { type: "image_url", image_url: { url: picture } }] : text;
    for (const side of sides) side.say(content, settings);
    setText("");
    setPicture("");
  };
  const keyed = (event) => {
    if (event.key === "Enter" && !event.shiftKey) submit(event);
  };
  const set = (name) => (value) => setSettings((before) => ({ ...before, [name]: value }));
  if (models.data && !names.length) {
    return html`<p>No language model serves here. <a href="#/models">The models</a> say what does.</p>`;
  }
  return html`
    <${Failure} error=${models.error} />
    <div class="row">
      <label class="check"><input type="checkbox" checked=${isCompared}
        onChange=${(event) => setCompared(event.target.checked)} /> Compare two</label>
      <button type="button" onClick=${() => sides.forEach((each) => each.clear())}>New conversation</button>
      <details><summary>Settings</summary><div class="row">
        <${Entry} id="system" label="System prompt" value=${settings.system} onText=${set("system")} />
        <${Entry} id="temperature" label="Temperature" value=${settings.temperature} onText=${set("temperature")} inputmode="decimal" />
        <${Entry} id="tokens" label="Most tokens" value=${settings.max_tokens} onText=${set("max_tokens")} inputmode="numeric" />
      </div></details>
    </div>
    <div class=${isCompared ? "sides" : ""}>
      ${sides.map((side, at) => html`<${Side} side=${side} at=${at} names=${names} />`)}
    </div>
    ${isCompared && html`<${Votes} sides=${sides} />`}
    <form class="say" onSubmit=${submit}>
      <label for="say">Say</label>
      <textarea id="say" rows="3" value=${text} onInput=${(event) => setText(event.target.value)} onKeyDown=${keyed}></textarea>
      <div class="row">
        <button type="submit" disabled=${isBusy || !text.trim()}>Send</button>
        ${isBusy && html`<button type="button" onClick=${() => sides.forEach((each) => each.stop())}>Stop</button>`}
        <${PictureEntry} picture=${picture} onPicture=${setPicture} />
      </div>
    </form>
  `;
}

function PictureEntry({ picture, onPicture }) {
  const choose = (event) => {
    const [file] = event.target.files;
    if (!file) return;
    const reader = new FileReader();
    reader.onload = () => onPicture(reader.result);
    reader.readAsDataURL(file);
    event.target.value = "";
  };
  return html`
    <span class="field"><label for="picture">Image, for models that see</label>
      <input id="picture" type="file" accept="image/*" onChange=${choose} /></span>
    ${picture && html`<img class="thumb" src=${picture} alt="The image that goes with it" />
      <button type="button" class="small" onClick=${() => onPicture("")}>Without it</button>`}
  `;
}

/** One conversation: which model, what was said, and what is being said. */
function useSide(names, place) {
  const [model, setModel] = useState("");
  const [version, setVersion] = useState("");
  const [, draw] = useReducer((count) => count + 1, 0);
  const kept = useRef({ said: [], stopper: null });
  const chosen = names.includes(model) ? model : names[Math.min(place, names.length - 1)] || "";
  const { said } = kept.current;
  const say = async (content, settings) => {
    const answer = { role: "assistant", content: "", isOpen: true };
    said.push({ role: "user", content }, answer);
    kept.current.stopper = new AbortController();
    draw();
    try {
      await generate(answer, said.slice(0, -1), { model: chosen, version, settings, signal: kept.current.stopper.signal, draw });
    } catch (error) {
      if (error.name === "AbortError") answer.isStopped = true;
      else answer.error = error;
    }
    answer.isOpen = false;
    kept.current.stopper = null;
    draw();
  };
  useEffect(() => () => kept.current.stopper?.abort(), []);
  return {
    model: chosen,
    version,
    said,
    isBusy: Boolean(kept.current.stopper),
    last: said.at(-1),
    say,
    stop: () => kept.current.stopper?.abort(),
    clear: () => {
      kept.current.stopper?.abort();
      kept.current.said = [];
      draw();
    },
    setModel: (name) => {
      setModel(name);
      setVersion("");
    },
    setVersion,
  };
}

async function generate(answer, before, { model, version, settings, signal, draw }) {
  const messages = before.filter((each) => each.content && !each.error)
    .map(({ role, content }) => ({ role, content }));
  if (settings.system) messages.unshift({ role: "system", content: settings.system });
  const started = performance.now();
  const body = {
    model, messages, stream: true, stream_options: { include_usage: true },
    temperature: Number(settings.temperature), max_tokens: Number(settings.max_tokens),
  };
  const headers = version ? { "x-model-version": version } : {};
  const stream = await send("/v1/chat/completions", { body, headers, signal });
  answer.version = stream.headers.get("x-trivet-version") || version;
  let firstAt = 0;
  let drawnAt = 0;
  for await (const event of events(stream)) {
    if (event.error) throw new Error(event.error.message || event.error);
    answer.id = event.id;
    const delta = event.choices?.[0]?.delta;
    const piece = delta?.content || "";
    if (delta?.reasoning_content) answer.thoughts = (answer.thoughts || "") + delta.reasoning_content;
    if (piece && !firstAt) firstAt = performance.now();
    answer.content += piece;
    if (event.usage) {
      const { completion_tokens: tokens } = event.usage;
      const seconds = (performance.now() - (firstAt || started)) / 1000;
      const speed = tokens > 1 ? `, ${(tokens / Math.max(seconds, 1e-3)).toFixed(1)} a second` : "";
      answer.told = `${tokens} tokens${speed}, first after ${((firstAt || performance.now()) - started).toFixed(0)} ms`;
    }
    const now = performance.now();
    if (now - drawnAt > 50) {
      drawnAt = now;
      draw();
    }
  }
}

const textOf = (content) => (typeof content === "string" ? content : content[0].text);

function Side({ side, at, names }) {
  const versions = usePolled(
    async () => (side.model ? (await ask(modelPath(side.model)))?.versions || [] : []), 0, [side.model]);
  const name = SIDES[at];
  return html`
    <section class="side" aria-label=${`Conversation on the ${name}`}>
      <div class="row">
        <${Choice} id=${`model-${name}`} label="Model" value=${side.model} options=${names} onChoose=${side.setModel} />
        <${Choice} id=${`version-${name}`} label="Version" value=${side.version} onChoose=${side.setVersion}
          options=${[["", "whichever answers"], ...(versions.data || []).map((each) => [each, each])]} />
      </div>
      <div class="said" role="log" aria-label=${`What was said on the ${name}`} tabindex="0">
        ${side.said.map((each) => html`<${Said} said=${each} />`)}
      </div>
    </section>
  `;
}

function Said({ said }) {
  if (said.role === "user") return html`<div class="bubble mine"><p>${textOf(said.content)}</p></div>`;
  return html`
    <div class="bubble">
      ${said.thoughts && html`<details><summary>Thoughts</summary><p class="thoughts">${said.thoughts}</p></details>`}
      <${Markdown} text=${said.content} />
      ${said.isOpen && html`<span class="note">...</span>`}
      ${said.error && html`<p class="failure" role="alert">${said.error.message}</p>`}
      ${(said.told || said.isStopped || said.version) && html`<p class="note">
        ${said.isStopped ? "Stopped. " : ""}${said.version ? `Version ${said.version}. ` : ""}${said.told || ""}</p>`}
    </div>
  `;
}

function Votes({ sides }) {
  const action = useAction();
  const [voted, setVoted] = useState("");
  const counted = usePolled(() => ask("/v2/feedback"), 0, [voted]);
  const answers = sides.map((each) => each.last);
  const isReady = answers.every((each) => each?.role === "assistant" && !each.isOpen && !each.error && each.content);
  const round = answers.map((each) => each?.id).join(" ");
  const vote = (left) => action.run(async () => {
    const values = [left, 1 - left];
    for (const [at, side] of sides.entries()) {
      const body = { model: side.model, name: VOTE, value: values[at] };
      const version = Number(answers[at].version);
      if (Number.isInteger(version) && version > 0) body.version = version;
      await ask("/v2/feedback", { body });
    }
    setVoted(round);
  }, "Thank you; the vote is kept.");
  const rows = (counted.data || []).filter((each) => each.name === VOTE);
  return html`
    <div class="row votes" role="group" aria-label="Which answer is better">
      <button type="button" disabled=${!isReady || voted === round || action.isBusy} onClick=${() => vote(1)}>Left is better</button>
      <button type="button" disabled=${!isReady || voted === round || action.isBusy} onClick=${() => vote(0.5)}>Equally good</button>
      <button type="button" disabled=${!isReady || voted === round || action.isBusy} onClick=${() => vote(0)}>Right is better</button>
    </div>
    <${Told} action=${action} />
    ${rows.length > 0 && html`<div class="scroll" tabindex="0" role="region" aria-label="Votes"><table>
      <thead><tr><th scope="col">Model</th><th scope="col">Version</th><th scope="col">Votes</th><th scope="col">Won</th></tr></thead>
      <tbody>${rows.map((each) => html`<tr><td>${each.model}</td><td>${each.version}</td><td>${each.count}</td>
        <td>${(each.mean * 100).toFixed(0)} %</td></tr>`)}</tbody></table></div>`}
  `;
}
