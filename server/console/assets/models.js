// Which models there are, how they do, and why not; load and unload.

import { html, useMemo, useRef, useState } from "./vendor/preact.js";
import { ask, modelPath } from "./api.js";
import {
  askFor, bytes, CopyText, Entry, Failure, LongTable, micros, State, Told, useAction, usePolled,
} from "./widgets.js";

const INDEX = "/v2/repository/index";
const fullName = (row) => (row.namespace ? `${row.namespace}::${row.name}` : row.name);
const control = (name, verb, body = {}) =>
  ask(`/v2/repository/models/${encodeURIComponent(name)}/${verb}`, { body });

export function useIndex(seconds = 3) {
  return usePolled(askFor(INDEX, { body: {} }), seconds);
}

/** Names of all models that have a version that serves. */
export function useReadyNames() {
  const { data = [] } = useIndex(10);
  return [...new Set(data.filter((row) => row.state === "READY").map(fullName))];
}

export function Models({ argument }) {
  return argument ? html`<${Model} name=${argument} key=${argument} />` : html`<${All} />`;
}

function All() {
  const { data, error } = useIndex();
  const [text, setText] = useState("");
  const labels = useLabels();
  const action = useAction();
  const rows = useMemo(() => chosen(data || [], text), [data, text]);
  const columns = [
    { label: "Model", class: "wide", render: (row) => html`
      <a href=${`#/models/${encodeURIComponent(fullName(row))}`}>${fullName(row)}</a>` },
    { label: "Version", class: "short", render: (row) => row.version || "" },
    { label: "State", class: "short", render: (row) => html`<${State} of=${row.state} />` },
    { label: "Labels", class: "short spare", render: (row) =>
      (labels.of(row) || []).map((each) => html`<span class="tag">${each}</span>`) },
    { label: "Why", class: "spare", render: (row) => html`<span title=${row.reason}>${row.reason}</span>` },
    { label: "Do", class: "short", render: (row) => html`<${Buttons} row=${row} action=${action} />` },
  ];
  return html`
    <div class="row">
      <${Entry} id="search" label="Search" value=${text} onText=${setText} data-search="yes" type="search" />
      <span class="note" role="status">${data ? tally(data) : "Loading ..."}</span>
    </div>
    <${Failure} error=${error} />
    <${Told} action=${action} />
    <${LongTable}
      label="Models" rows=${rows} columns=${columns} onSeen=${labels.want}
      keyOf=${(row) => `${fullName(row)}/${row.version || ""}`}
    />
    ${data && !rows.length && html`<p>No model ${text ? `has "${text}" in its name or state` : "is here"}.</p>`}
  `;
}

function chosen(rows, text) {
  const wanted = text.toLowerCase();
  if (!wanted) return rows;
  return rows.filter((row) =>
    `${fullName(row)} ${row.state || ""} ${row.reason || ""}`.toLowerCase().includes(wanted));
}

function tally(rows) {
  const counts = {};
  for (const row of rows) counts[row.state || "not loaded"] = (counts[row.state || "not loaded"] || 0) + 1;
  const told = Object.entries(counts).map(([state, count]) => `${count} ${state}`);
  return told.join(", ") || "no models";
}

function Buttons({ row, action }) {
  const name = fullName(row);
  const verb = row.state === "READY" ? "unload" : "load";
  const act = () => action.run(() => control(name, verb), `${verb} of ${name}: done`);
  return html`<button
    type="button" class="small" disabled=${action.isBusy} aria-label=${`${verb} ${name}`} onClick=${act}
  >${verb}</button>`;
}

/** Labels of the versions that are seen: asked once for each model. */
function useLabels() {
  const known = useRef(new Map());
  const [, draw] = useState(0);
  const want = (rows) => {
    const ready = rows.filter((row) => row.state === "READY").map(fullName);
    for (const name of new Set(ready)) {
      if (known.current.has(name)) continue;
      known.current.set(name, {});
      ask(modelPath(name, "/traffic")).then((found) => {
        known.current.set(name, found.labels);
        if (Object.keys(found.labels).length) draw((count) => count + 1);
      }, () => known.current.delete(name));
    }
  };
  const of = (row) => Object.entries(known.current.get(fullName(row)) || {})
    .filter(([, version]) => String(version) === row.version).map(([label]) => label);
  return { want, of };
}

function Model({ name }) {
  const { data: index, error } = useIndex();
  const rows = (index || []).filter((row) => fullName(row) === name);
  const isReady = rows.some((row) => row.state === "READY");
  const about = usePolled(async () => (isReady ? described(name) : null), 5, [isReady]);
  const action = useAction();
  const change = (verb, body) => action.run(() => control(name, verb, body), `${verb}: done`);
  const known = about.data;
  const versions = new Map((known?.stats.model_stats || []).map((each) => [each.version, each]));
  const isEnsemble = Boolean(known?.config.ensemble_scheduling);
  return html`
    <p><a href="#/models">All models</a></p>
    <${Failure} error=${error || about.error} />
    ${index && !rows.length && html`<p>No model is called "${name}".</p>`}
    <div class="row">
      <button type="button" disabled=${action.isBusy} onClick=${() => change("load")}>
        ${isReady ? "Load again" : "Load"}</button>
      <button type="button" disabled=${action.isBusy || !isReady} onClick=${() => change("unload")}>Unload</button>
      ${isEnsemble && html`<button type="button" disabled=${action.isBusy}
        onClick=${() => change("unload", { parameters: { unload_dependents: true } })}>Unload with its steps</button>`}
      ${isReady && html`<a class="button" href=${`#/try/${encodeURIComponent(name)}`}>Try it</a>`}
      ${isEnsemble && html`<a class="button" href=${`#/graph/${encodeURIComponent(name)}`}>Its graph</a>`}
    </div>
    <${Told} action=${action} />
    <h2>Versions</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Versions"><table>
      <thead><tr><th scope="col">Version</th><th scope="col">State</th><th scope="col">Labels</th>
        <th scope="col">Requests</th><th scope="col">Failed</th><th scope="col">Mean time</th>
        <th scope="col">Why</th></tr></thead>
      <tbody>${rows.map((row) => html`<${Version} row=${row} known=${known} stats=${versions.get(row.version)} />`)}</tbody>
    </table></div>
    ${known && html`<${Signature} metadata=${known.metadata} />
      <h2>Config</h2>
      <${CopyText} label="Config" text=${JSON.stringify(known.config, null, 2)} />`}
  `;
}

async function described(name) {
  const paths = ["", "/config", "/stats", "/traffic"];
  const [metadata, config, stats, traffic] = await Promise.all(
    paths.map((each) => ask(modelPath(name, each))));
  return { metadata, config, stats, traffic };
}

function Version({ row, known, stats }) {
  const labels = Object.entries(known?.traffic.labels || {})
    .filter(([, version]) => String(version) === row.version).map(([label]) => label);
  const answered = Number(stats?.inference_stats?.success?.count || 0);
  const failed = Number(stats?.inference_stats?.fail?.count || 0);
  const total = Number(stats?.inference_stats?.success?.ns || 0);
  return html`<tr>
    <td>${row.version}</td><td><${State} of=${row.state} /></td>
    <td>${labels.map((each) => html`<span class="tag">${each}</span>`)}</td>
    <td>${answered}</td><td>${failed}</td>
    <td>${answered ? micros(total / answered / 1000) : ""}</td><td class="reason">${row.reason}
      ${stats?.memory_usage?.map((each) => html` ${each.type} ${bytes(Number(each.byte_size))}`)}</td>
  </tr>`;
}

function Signature({ metadata }) {
  const tensors = [
    ...metadata.inputs.map((each) => ["input", each]), ...metadata.outputs.map((each) => ["output", each])];
  return html`
    <h2>Tensors</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Tensors"><table>
      <thead><tr><th scope="col">Way</th><th scope="col">Name</th><th scope="col">Type</th>
        <th scope="col">Shape</th></tr></thead>
      <tbody>${tensors.map(([way, each]) => html`<tr><td>${way}</td><td>${each.name}</td>
        <td>${each.datatype}</td><td>[${each.shape.join(", ")}]</td></tr>`)}</tbody>
    </table></div>
    <p class="note">Runs on ${metadata.platform}.</p>
  `;
}
