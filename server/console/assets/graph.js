// An ensemble as the graph that it is, with times and copies of a request that was traced.

import { html, useState } from "./vendor/preact.js";
import { ask, modelPath } from "./api.js";
import { useReadyNames } from "./models.js";
import { copiedBytes, traceModel, useTraces } from "./traces.js";
import { bytes, Choice, Failure, micros, ModelEntry, Told, useAction, usePolled } from "./widgets.js";

const WIDTH = 190;
const HEIGHT = 74;
const GAP = { across: 130, down: 34 };

export function Graph({ argument }) {
  const names = useReadyNames();
  const choose = (name) => {
    if (name !== argument) location.hash = `#/graph/${encodeURIComponent(name)}`;
  };
  const config = usePolled(
    async () => (argument ? { name: argument, ...(await ask(modelPath(argument, "/config"))) } : null), 0, [argument]);
  const found = config.data?.name === argument ? config.data : null;
  return html`
    <div class="row"><${ModelEntry} id="graph-model" label="Ensemble" names=${names} value=${argument} onChoose=${choose} /></div>
    <${Failure} error=${config.error} />
    ${!argument && html`<p>Choose an ensemble; its graph comes below.</p>`}
    ${found && !found.ensemble_scheduling && html`<p>Model "${argument}" is no ensemble.</p>`}
    ${found?.ensemble_scheduling && html`<${Drawing} key=${argument} name=${argument} config=${found} />`}
  `;
}

function Drawing({ name, config }) {
  const { data } = useTraces(3);
  const action = useAction();
  const [number, setNumber] = useState("");
  const traces = (data?.traces || []).filter((each) => each.model === name && each.spans.some((span) => span.model && span.model !== name));
  const trace = traces.find((each) => String(each.number) === number) || traces[0];
  const graph = laidOut(config, trace);
  return html`
    <div class="row">
      <button type="button" disabled=${action.isBusy} onClick=${() => action.run(() => traceModel(name), "The next 20 requests of it are traced; ask it.")}>Trace its next requests</button>
      <a class="button" href=${`#/try/${encodeURIComponent(name)}`}>Ask it</a>
      ${traces.length > 0 && html`<${Choice} id="graph-trace" label="Times of" value=${String(trace.number)} onChoose=${setNumber}
        options=${traces.slice(0, 50).map((each) => [String(each.number), `${new Date(each.t).toLocaleTimeString()}, ${micros(each.us)}`])} />`}
    </div>
    <${Told} action=${action} />
    ${!trace && html`<p class="note">Times and copies come with the first request that is traced.</p>`}
    <div class="scroll graph" tabindex="0" role="region" aria-label=${`Graph of ${name}`}><${Picture} graph=${graph} name=${name} /></div>
    <${Steps} graph=${graph} />
    <${Edges} graph=${graph} />
  `;
}

/** Nodes by layers, and edges between them, each with what the trace says. */
function laidOut(config, trace) {
  const steps = (config.ensemble_scheduling.step || []).map((step, at) => ({
    id: `step ${at}`, title: step.model_name, step, takes: Object.values(step.input_map || {}), gives: Object.values(step.output_map || {}),
  }));
  const source = { id: "inputs", title: "inputs", takes: [], gives: (config.input || []).map((each) => each.name) };
  const target = { id: "outputs", title: "outputs", takes: (config.output || []).map((each) => each.name), gives: [] };
  addSpans(steps, config.name, trace);
  if (trace) {
    source.until = 0;
    target.from = trace.us;
  }
  const nodes = [source, ...steps, target];
  const maker = new Map();
  for (const node of nodes) for (const tensor of node.gives) maker.set(tensor, node);
  const edges = nodes.flatMap((node) => node.takes.filter((tensor) => maker.has(tensor)).map((tensor) => ({
    from: maker.get(tensor), to: node, tensor, ...costs(maker.get(tensor), node),
  })));
  for (const node of nodes) node.layer = 0;
  for (let round = 0; round < nodes.length; round += 1) {
    for (const { from, to } of edges) to.layer = Math.max(to.layer, from.layer + 1);
    if (target.layer > nodes.length) break;
  }
  target.layer = Math.max(...nodes.map((each) => each.layer), 1);
  const counts = [];
  for (const node of nodes) {
    counts[node.layer] = (counts[node.layer] || 0) + 1;
    node.row = counts[node.layer] - 1;
  }
  const most = Math.max(...counts.filter(Boolean));
  for (const node of nodes) {
    node.x = 10 + node.layer * (WIDTH + GAP.across);
    node.y = 10 + (node.row + (most - counts[node.layer]) / 2) * (HEIGHT + GAP.down);
  }
  return {
    steps, edges, nodes,
    width: 20 + (target.layer + 1) * WIDTH + target.layer * GAP.across, height: 20 + most * (HEIGHT + GAP.down),
  };
}

/** Each step its part of the trace: the first of its model that no other step has. */
function addSpans(steps, name, trace) {
  const taken = new Set();
  for (const node of steps) {
    node.span = trace?.spans.find((each) => each.model === node.title && each.model !== name && !taken.has(each.id));
    if (!node.span) continue;
    taken.add(node.span.id);
    node.from = node.span.from_us;
    node.until = node.span.to_us;
  }
}

/** Of an edge: how long a tensor waited between the two, and what was copied for the step that takes it. */
function costs(from, to) {
  const waited = from.until !== undefined && to.from !== undefined ? Math.max(0, to.from - from.until) : null;
  const queue = to.span?.stages.queue;
  const queued = queue ? queue[1] - queue[0] : 0;
  return { waited: waited === null ? null : waited + queued, copied: to.span ? copiedBytes(to.span) : null };
}

function Picture({ graph, name }) {
  const line = ({ from, to }) => {
    const [x1, y1, x2, y2] = [from.x + WIDTH, from.y + HEIGHT / 2, to.x, to.y + HEIGHT / 2];
    const middle = (x1 + x2) / 2;
    return `M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`;
  };
  const placed = new Map();
  const label = (edge) => {
    const key = `${edge.from.id} ${edge.to.id}`;
    const nth = placed.get(key) || 0;
    placed.set(key, nth + 1);
    return { x: (edge.from.x + WIDTH + edge.to.x) / 2, y: (edge.from.y + edge.to.y + HEIGHT) / 2 - 20 + nth * 26 };
  };
  return html`
    <svg width=${graph.width} height=${graph.height} viewBox=${`0 0 ${graph.width} ${graph.height}`} role="img"
      aria-label=${`${name}: ${graph.edges.map((each) => `${each.from.title} to ${each.to.title}`).join(", ")}`}>
      ${graph.edges.map((edge) => html`<path class="edge" d=${line(edge)} />`)}
      ${graph.edges.map((edge) => {
        const at = label(edge);
        return html`<g class="edge-label"><text x=${at.x} y=${at.y}>${cut(edge.tensor, 18)}</text>
          ${edge.waited !== null && html`<text class="cost" x=${at.x} y=${at.y + 12}>${micros(edge.waited)}${edge.copied === null ? "" : `, ${bytes(edge.copied)}`}</text>`}</g>`;
      })}
      ${graph.nodes.map((node) => html`<g class=${node.step ? "node" : "node end"}>
        <rect x=${node.x} y=${node.y} width=${WIDTH} height=${HEIGHT} rx="8" />
        <text class="title" x=${node.x + 12} y=${node.y + 26}>${cut(node.title, 22)}</text>
        <text x=${node.x + 12} y=${node.y + 46}>${node.step ? versionOf(node) : cut([...node.gives, ...node.takes].join(", "), 26)}</text>
        ${node.span && html`<text x=${node.x + 12} y=${node.y + 62}>${micros(node.until - node.from)}</text>`}
      </g>`)}
    </svg>
  `;
}

const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 3)}...` : text);

function versionOf(node) {
  if (node.span) return `version ${node.span.version}`;
  const asked = Number(node.step.model_version ?? -1);
  return asked > 0 ? `version ${asked}` : "newest version";
}

const stage = (span, name) => (span?.stages[name] ? micros(span.stages[name][1] - span.stages[name][0]) : "");

function Steps({ graph }) {
  return html`
    <h2>Steps</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Steps"><table>
      <thead><tr><th scope="col">Step</th><th scope="col">Version</th><th scope="col">Took</th><th scope="col">Queue</th>
        <th scope="col">Input</th><th scope="col">Compute</th><th scope="col">Output</th><th scope="col">Copied</th></tr></thead>
      <tbody>${graph.steps.map((node) => html`<tr>
        <td><a href=${`#/models/${encodeURIComponent(node.title)}`}>${node.title}</a></td><td>${versionOf(node)}</td>
        <td>${node.span ? micros(node.until - node.from) : ""}</td>
        ${["queue", "input", "compute", "output"].map((each) => html`<td>${stage(node.span, each)}</td>`)}
        <td>${node.span ? bytes(copiedBytes(node.span)) : ""}</td></tr>`)}</tbody>
    </table></div>`;
}

function Edges({ graph }) {
  return html`
    <h2>Tensors between them</h2>
    <div class="scroll" tabindex="0" role="region" aria-label="Tensors between steps"><table>
      <thead><tr><th scope="col">Tensor</th><th scope="col">From</th><th scope="col">To</th>
        <th scope="col">Waited</th><th scope="col">Copied for all that the step takes</th></tr></thead>
      <tbody>${graph.edges.map((edge) => html`<tr><td>${edge.tensor}</td><td>${edge.from.title}</td><td>${edge.to.title}</td>
        <td>${edge.waited === null ? "" : micros(edge.waited)}</td><td>${edge.copied === null ? "" : bytes(edge.copied)}</td></tr>`)}</tbody>
    </table></div>`;
}
