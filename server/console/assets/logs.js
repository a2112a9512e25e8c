// The last lines of the server's log.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { Choice, clock, Entry, Failure, usePolled } from "./widgets.js";

const LEVELS = ["debug", "info", "warning", "error", "critical"];
const SHOWN = 500;
const KEPT = 2000;

export function Logs() {
  const kept = useRef({ started: 0, lines: [] });
  const { error, data } = usePolled(() => more(kept.current), 2);
  const [level, setLevel] = useState("debug");
  const [text, setText] = useState("");
  const [follows, setFollows] = useState(true);
  const end = useRef(null);
  const least = LEVELS.indexOf(level);
  const wanted = text.toLowerCase();
  const fitting = kept.current.lines.filter((each) =>
    LEVELS.indexOf(each.level) >= least &&
    (!wanted || `${each.text} ${each.logger} ${each.request_id} ${each.model}`.toLowerCase().includes(wanted)));
  const lines = fitting.slice(-SHOWN);
  useEffect(() => {
    if (follows && end.current) end.current.scrollTop = end.current.scrollHeight;
  }, [data, follows, lines.length]);
  return html`
    <div class="row">
      <${Choice} id="level" label="From level" value=${level} options=${LEVELS} onChoose=${setLevel} />
      <${Entry} id="log-text" label="With" value=${text} onText=${setText} data-search="yes" type="search" />
      <label class="check"><input type="checkbox" checked=${follows} onChange=${(event) => setFollows(event.target.checked)} /> Follow</label>
      <span class="note" role="status">${data ? `${fitting.length} lines` : "Loading ..."}</span>
    </div>
    <${Failure} error=${error} />
    <div class="log" ref=${end} tabindex="0" role="region" aria-label="Log lines"><ol>
      ${lines.map((each) => html`<li key=${each.number} class=${each.level}>
        <time>${clock(each.t)}</time> <b>${each.level}</b> <span class="logger">${each.logger}</span> ${each.text}
        ${each.request_id && html` <span class="note">${each.request_id}</span>`}</li>`)}
    </ol></div>
  `;
}

async function more(kept) {
  const last = kept.lines.at(-1)?.number || 0;
  const answer = await ask(`/v2/console/log?since=${last}`);
  if (answer.started !== kept.started) kept.lines = [];
  kept.started = answer.started;
  kept.lines = [...kept.lines, ...answer.lines].slice(-KEPT);
  return kept.lines.length ? kept.lines.at(-1).number : 0;
}
