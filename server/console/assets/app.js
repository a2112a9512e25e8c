// The shell: where one is, how to get elsewhere, and whether the server answers.

import { html, render, useEffect, useRef, useState } from "./vendor/preact.js";
import { Charts } from "./charts.js";
import { Chat } from "./chat.js";
import { Graph } from "./graph.js";
import { Logs } from "./logs.js";
import { Models } from "./models.js";
import { Rollouts } from "./rollouts.js";
import { Traces } from "./traces.js";
import { Try } from "./try.js";
import { Connection, KeyForm, useConnection } from "./widgets.js";

const PAGES = {
  models: ["Models", Models],
  try: ["Try", Try],
  chat: ["Chat", Chat],
  charts: ["Charts", Charts],
  rollouts: ["Roll-outs", Rollouts],
  traces: ["Traces", Traces],
  graph: ["Ensembles", Graph],
  logs: ["Log", Logs],
};

function place() {
  const [, page, ...rest] = location.hash.split("/");
  return { page: PAGES[page] ? page : "models", argument: decodeURIComponent(rest.join("/")) };
}

function App() {
  const [{ page, argument }, setPlace] = useState(place);
  const { key } = useConnection();
  const main = useRef(null);
  useEffect(() => {
    const moved = () => {
      setPlace(place());
      main.current?.focus();
    };
    addEventListener("hashchange", moved);
    return () => removeEventListener("hashchange", moved);
  }, []);
  useEffect(() => {
    const pressed = (event) => {
      const isTyping = /^(INPUT|TEXTAREA|SELECT)$/.test(event.target.tagName);
      if (event.key !== "/" || isTyping || event.ctrlKey || event.metaKey) return;
      const search = document.querySelector("[data-search]");
      if (search) {
        event.preventDefault();
        search.focus();
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, []);
  const [label, Page] = PAGES[page];
  useEffect(() => {
    document.title = `${argument ? `${argument} - ` : ""}${label} - trivet`;
  }, [label, argument]);
  return html`
    <a class="skip" href="#main" onClick=${(event) => {
      event.preventDefault();
      main.current.focus();
    }}>To the content</a>
    <header>
      <a class="mark" href="#/models">trivet</a>
      <nav aria-label="Pages">
        ${Object.entries(PAGES).map(([name, [shown]]) => html`
          <a href=${`#/${name}`} aria-current=${name === page ? "page" : undefined}>${shown}</a>`)}
        <a href="/docs">API</a>
      </nav>
      <details class="menu">
        <summary>${key ? "Key in use" : "Key"}</summary>
        <div class="sheet"><${KeyForm} /></div>
      </details>
      <button type="button" class="plain" onClick=${() => globalThis.toggleTheme()}>
        Light or dark
      </button>
    </header>
    <main id="main" tabindex="-1" ref=${main}>
      <${Connection} />
      <h1>${label}${argument && html`<span class="of"> ${argument}</span>`}</h1>
      <${Page} key=${page} argument=${argument} />
    </main>
  `;
}

render(html`<${App} />`, document.getElementById("app"));
