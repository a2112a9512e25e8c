// Where the time of single requests went, as waterfalls; and which requests are traced.

import { html, useState } from "./vendor/preact.js";
import { ask, modelPath } from "./api.js";
import { askFor, bytes, Choice, clock, Entry, Failure, micros, Told, useAction, usePolled } from "./widgets.js";

export const TRACE_SOME = { trace_level: ["TIMESTAMPS"], trace_rate: "1", trace_count: "20" };
const STAGES = ["queue", "input", "compute", "output"];
const MOST = 100;

export function useTraces(seconds = 3) {
  return usePolled(askFor("/v2/console/traces"), seconds);
}

export function Traces({ argument }) {
  const { data, error } = useTraces();
  const [model, setModel] = useState(argument || "");
  const [open, setOpen] = useState(null);
  const all = data?.traces || [];
  const names = [...new Set(all.map((each) => each.model))].sort();
  const shown = all.filter((each) => !model || each.model === model).slice(0, MOST);
  const chosen = shown.find((each) => each.number === open) || shown[0];
  return html`
    <${Settings} />
    <${Failure} error=${error} />
    ${data && !all.length && html`<p>No request has been traced yet. Trace the next ones with the button above, and ask a model.</p>`}
    ${all.length > 0 && html`
      <div class="row"><${Choice} id="trace-model" label="Of" value=${model} onChoose=${setModel}
        options=${[["", "all models"], ...names.filter(Boolean).map((each) => [each, each])]} /></div>
      <div class="scroll short-list" tabindex="0" role="region" aria-label="Traces"><table>
        <thead><tr><th scope="col">At</th><th scope="col">Model</th><th scope="col">Took</th>
          <th scope="col">Parts</th><th scope="col">Request</th></tr></thead>
        <tbody>${shown.map((each) => html`<tr key=${each.number} class=${each === chosen ? "chosen" : ""}>
          <td><button type="button" class="small" aria-pressed=${each === chosen} onClick=${() => setOpen(each.number)}>${clock(each.t)}</button></td>
          <td>${each.model || "none"}</td><td>${micros(each.us)}</td><td>${each.spans.length}</td>
          <td>${each.error ? html`<span class="failure">${each.error}</span>` : each.request_id}</td></tr>`)}</tbody>
      </table></div>`}
    ${chosen && html`<${Waterfall} trace=${chosen} />`}
  `;
}

function Settings() {
  const settings = usePolled(askFor("/v2/trace/setting"), 5);
  const [count, setCount] = useState("20");
  const action = useAction();
  const change = (body, note) => action.run(async () => {
    await ask("/v2/trace/setting", { body });
    settings.reload();
  }, note);
  const levels = settings.data?.trace_level || [];
  const isOn = levels.length > 0 && levels[0] !== "OFF" && settings.data.trace_count !== "0";
  return html`
    <div class="row">
      <${Entry} id="trace-count" label="Requests" value=${count} onText=${setCount} inputmode="numeric" />
      <button type="button" disabled=${action.isBusy} onClick=${() =>
        change({ ...TRACE_SOME, trace_count: count }, `The next ${count} requests are traced.`)}>Trace the next ones</button>
      <button type="button" disabled=${action.isBusy || !isOn} onClick=${() => change({ trace_level: ["OFF"] }, "Nothing is traced.")}>Stop</button>
      <span class="note">${settings.data && (isOn
        ? `On: ${levels.join(", ")}, one request of ${settings.data.trace_rate}, ${settings.data.trace_count === "-1" ? "any number" : `${settings.data.trace_count} more`}.`
        : "Off.")}</span>
    </div>
    <${Failure} error=${settings.error} />
    <${Told} action=${action} />
  `;
}

/** Spans in the order of a tree, each with its depth. */
export function ordered(spans) {
  const ids = new Set(spans.map((each) => each.id));
  const made = [];
  const visit = (parent, depth) => {
    for (const span of spans) {
      if ((ids.has(span.parent) ? span.parent : "") === parent) {
        made.push({ span, depth });
        visit(span.id, depth + 1);
      }
    }
  };
  visit("", 0);
  return made;
}

export function copiedBytes(span) {
  return Object.values(span.copied).reduce((sum, each) => sum + each, 0);
}

function Waterfall({ trace }) {
  const whole = Math.max(trace.us, 1e-3);
  const share = (us) => `${Math.max(0, Math.min(100, (us / whole) * 100)).toFixed(3)}%`;
  const bar = (from, to, name, title) => html`<span class=${`bar ${name}`} title=${title}
    style=${{ left: share(from), width: share(Math.max(to - from, whole / 500)) }}></span>`;
  return html`
    <section class="card" aria-label="One trace">
      <h2>${trace.model || "A request"} <span class="note">${micros(trace.us)}, trace ${trace.trace_id}</span></h2>
      ${trace.error && html`<p class="failure">${trace.error}</p>`}
      <p class="legend">${STAGES.map((each) => html`<span class="key"><span class=${`dot ${each}`} aria-hidden="true"></span> ${each}</span>`)}</p>
      <div class="scroll" tabindex="0" role="region" aria-label="Waterfall"><table class="waterfall">
        <thead><tr><th scope="col">Part</th><th scope="col">Took</th><th scope="col">Copied</th>
          <th scope="col" class="wide">From 0 to ${micros(trace.us)}</th></tr></thead>
        <tbody>${ordered(trace.spans).map(({ span, depth }) => html`<tr key=${span.id}>
          <th scope="row" style=${{ paddingLeft: `${0.5 + depth}rem` }}>${span.name}${span.version ? ` ${span.version}` : ""}</th>
          <td>${micros(span.to_us - span.from_us)}</td>
          <td>${span.model ? bytes(copiedBytes(span)) : ""}</td>
          <td class="lane">${bar(span.from_us, span.to_us, "span", `${span.name}: ${micros(span.to_us - span.from_us)}`)}
            ${STAGES.map((name) => span.stages[name] && bar(...span.stages[name], name,
              `${name}: ${micros(span.stages[name][1] - span.stages[name][0])}`))}</td>
        </tr>`)}</tbody>
      </table></div>
      <${Details} trace=${trace} />
    </section>
  `;
}

function Details({ trace }) {
  const rows = trace.spans.flatMap((span) => [
    ...Object.entries(span.attributes).map(([name, value]) => [span.name, name, String(value)]),
    ...(span.waits ? [[span.name, "waits for a device", String(span.waits)]] : []),
    ...span.tensors.map((each) => [span.name, `${each.activity} ${each.name}`, `${each.datatype} [${each.shape.join(", ")}]`]),
    ...(span.error ? [[span.name, "error", span.error]] : []),
  ]);
  if (!rows.length) return null;
  return html`<details><summary>What else is known of it</summary><table>
    <thead><tr><th scope="col">Part</th><th scope="col">What</th><th scope="col">Value</th></tr></thead>
    <tbody>${rows.map((row) => html`<tr>${row.map((each) => html`<td>${each}</td>`)}</tr>`)}</tbody></table></details>`;
}

/** Has the next requests of one model traced. */
export const traceModel = (name) => ask(modelPath(name, "/trace/setting"), { body: TRACE_SOME });
