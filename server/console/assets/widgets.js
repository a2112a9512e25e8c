// What several pages are made of.

import { html, useEffect, useLayoutEffect, useRef, useState } from "./vendor/preact.js";
import { ask, state, subscribe, useKey } from "./api.js";

/** Draws anew whenever the connection or the key changes. */
export function useConnection() {
  const [, draw] = useState(0);
  useEffect(() => subscribe(() => draw((count) => count + 1)), []);
  return state;
}

/** Calls `load` now, every so many seconds while the page is seen, and when its inputs change.
 * After a failure it goes on: the server may come back. */
export function usePolled(load, seconds, inputs = []) {
  const [found, setFound] = useState({ data: undefined, error: null });
  const [again, setAgain] = useState(0);
  const { key } = useConnection();
  useEffect(() => {
    let isOver = false;
    let timer;
    const run = async () => {
      clearTimeout(timer);
      if (!document.hidden) {
        try {
          const data = await load();
          if (!isOver) setFound({ data, error: null });
        } catch (error) {
          if (!isOver) setFound((before) => ({ data: before.data, error }));
        }
      }
      if (!isOver && seconds) timer = setTimeout(run, seconds * 1000);
    };
    const seen = () => !document.hidden && run();
    document.addEventListener("visibilitychange", seen);
    run();
    return () => {
      isOver = true;
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", seen);
    };
  }, [again, key, ...inputs]);
  return { ...found, reload: () => setAgain((count) => count + 1) };
}

export const askFor = (path, options) => () => ask(path, options);

/** Runs what a button does; says what came of it. */
export function useAction() {
  const [told, setTold] = useState({ isBusy: false, error: null, note: "" });
  const run = async (work, note = "") => {
    setTold({ isBusy: true, error: null, note: "" });
    try {
      const made = await work();
      setTold({ isBusy: false, error: null, note });
      return made;
    } catch (error) {
      setTold({ isBusy: false, error, note: "" });
      return undefined;
    }
  };
  return { ...told, run };
}

export function Failure({ error }) {
  if (!error || error.status === 0 || error.status === 401) return null;
  return html`<p class="failure" role="alert">${error.message}</p>`;
}

export function Told({ action }) {
  return html`
    <${Failure} error=${action.error} />
    <p class="note" role="status">${action.isBusy ? "Working ..." : action.note}</p>
  `;
}

export function KeyForm() {
  const [text, setText] = useState("");
  const submit = (event) => {
    event.preventDefault();
    useKey(text.trim());
    setText("");
  };
  return html`
    <form class="row" onSubmit=${submit}>
      <label>Key${" "}
        <input
          type="password" autocomplete="off" spellcheck="false" value=${text}
          onInput=${(event) => setText(event.target.value)}
        />
      </label>
      <button type="submit">Use it</button>
      ${state.key && html`<button type="button" onClick=${() => useKey("")}>Forget it</button>`}
    </form>
  `;
}

export function Connection() {
  const { needsKey, isReachable } = useConnection();
  if (!isReachable) {
    return html`<p class="banner bad" role="alert">
      The server does not answer. This page goes on trying.
    </p>`;
  }
  if (!needsKey) return null;
  return html`<div class="banner" role="alert">
    <p>This server asks for a key, which this tab keeps until it is closed.</p>
    <${KeyForm} />
  </div>`;
}

const TONES = { READY: "good", LOADING: "busy", UNLOADING: "busy", UNAVAILABLE: "bad" };

export function State({ of }) {
  return html`<span class=${`state ${TONES[of] || ""}`}>${of || "not loaded"}</span>`;
}

/** A table of which only what is seen is drawn. `columns`: name, label, render and class of each. */
export function LongTable({ label, rows, columns, keyOf, height = 40, onSeen }) {
  const region = useRef(null);
  const [top, setTop] = useState(0);
  const [space, setSpace] = useState(600);
  useLayoutEffect(() => {
    const watch = new ResizeObserver(() => setSpace(region.current?.clientHeight || 600));
    watch.observe(region.current);
    return () => watch.disconnect();
  }, []);
  const first = Math.max(0, Math.min(Math.floor(top / height) - 8, rows.length - 1));
  const last = Math.min(rows.length, Math.ceil((top + space) / height) + 8);
  const seen = rows.slice(first, last);
  const names = seen.map(keyOf).join("\n");
  useEffect(() => onSeen?.(seen), [names]);
  const spacer = (size) =>
    size > 0 && html`<tr class="spacer" aria-hidden="true" style=${{ height: `${size}px` }}></tr>`;
  return html`
    <div
      class="region" ref=${region} tabindex="0" role="region" aria-label=${label}
      onScroll=${(event) => setTop(event.target.scrollTop)}
    >
      <table class="long" aria-rowcount=${rows.length + 1}>
        <thead><tr>
          ${columns.map((each) => html`<th scope="col" class=${each.class || ""}>${each.label}</th>`)}
        </tr></thead>
        <tbody>
          ${spacer(first * height)}
          ${seen.map((row, at) => html`
            <tr key=${keyOf(row)} aria-rowindex=${first + at + 2} style=${{ height: `${height}px` }}>
              ${columns.map((each) => html`<td class=${each.class || ""}>${each.render(row)}</td>`)}
            </tr>`)}
          ${spacer((rows.length - last) * height)}
        </tbody>
      </table>
    </div>
  `;
}

export function Choice({ id, label, value, options, onChoose }) {
  return html`<span class="field">
    <label for=${id}>${label}</label>
    <select id=${id} value=${value} onChange=${(event) => onChoose(event.target.value)}>
      ${options.map((each) => {
        const [told, shown] = Array.isArray(each) ? each : [each, each];
        return html`<option value=${told} selected=${told === value}>${shown}</option>`;
      })}
    </select>
  </span>`;
}

export function Entry({ id, label, value, onText, ...more }) {
  return html`<span class="field">
    <label for=${id}>${label}</label>
    <input id=${id} value=${value} onInput=${(event) => onText(event.target.value)} ...${more} />
  </span>`;
}

/** A name among many: typed or chosen. */
export function ModelEntry({ id, label = "Model", names, value, onChoose }) {
  const [text, setText] = useState(value);
  useEffect(() => setText(value), [value]);
  const typed = (event) => {
    setText(event.target.value);
    if (names.includes(event.target.value)) onChoose(event.target.value);
  };
  return html`<span class="field">
    <label for=${id}>${label}</label>
    <input
      id=${id} list=${`${id}-names`} autocomplete="off" value=${text} onInput=${typed}
      onChange=${(event) => onChoose(event.target.value.trim())}
    />
    <datalist id=${`${id}-names`}>${names.map((each) => html`<option value=${each}></option>`)}</datalist>
  </span>`;
}

export function CopyText({ text, label }) {
  const [told, setTold] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setTold("Copied");
    } catch {
      setTold("Select the text and copy it");
    }
  };
  return html`<div class="code">
    <div class="row"><button type="button" onClick=${copy}>Copy</button>
      <span class="note" role="status">${told}</span></div>
    <pre tabindex="0" aria-label=${label}>${text}</pre>
  </div>`;
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB"];

export function bytes(size) {
  let at = 0;
  let rest = size;
  while (rest >= 1024 && at < UNITS.length - 1) {
    rest /= 1024;
    at += 1;
  }
  return `${at ? rest.toFixed(rest < 10 ? 1 : 0) : rest} ${UNITS[at]}`;
}

export function micros(us) {
  if (us >= 1e6) return `${(us / 1e6).toFixed(2)} s`;
  return us >= 1000 ? `${(us / 1000).toFixed(2)} ms` : `${us.toFixed(0)} \u00b5s`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString(undefined, { hour12: false });
