// Versions that take the traffic step by step: how far they are, what was found, and the buttons.

import { html, useState } from "./vendor/preact.js";
import { ask, modelPath } from "./api.js";
import { useReadyNames } from "./models.js";
import { askFor, Entry, Failure, ModelEntry, Told, useAction, usePolled } from "./widgets.js";

const ENDED = new Set(["promoted", "rolled back", "aborted"]);

export function Rollouts({ argument }) {
  const { data, error, reload } = usePolled(askFor("/v2/rollouts"), 3);
  const shown = (data || []).filter((each) => !argument || each.model === argument);
  return html`
    <${Failure} error=${error} />
    <${Start} onDone=${reload} model=${argument} />
    ${argument && html`<p><a href="#/rollouts">All roll-outs</a></p>`}
    ${data && !shown.length && html`<p>Nothing has been rolled out.</p>`}
    ${shown.map((each) => html`<${Rollout} key=${each.model} rollout=${each} onDone=${reload} isOpen=${Boolean(argument)} />`)}
  `;
}

function Start({ onDone, model: given }) {
  const names = useReadyNames();
  const [model, setModel] = useState(given || "");
  const [version, setVersion] = useState("");
  const [policy, setPolicy] = useState("");
  const action = useAction();
  const submit = (event) => {
    event.preventDefault();
    action.run(async () => {
      const body = {};
      if (version.trim()) body.version = Number(version);
      if (policy.trim()) body.policy = JSON.parse(policy);
      await ask(modelPath(model, "/rollout/start"), { body });
      onDone();
    }, "It has begun.");
  };
  return html`<details class="card"><summary>Start one</summary>
    <form class="row" onSubmit=${submit}>
      <${ModelEntry} id="rollout-model" names=${names} value=${model} onChoose=${setModel} />
      <${Entry} id="rollout-version" label="Version" value=${version} onText=${setVersion} inputmode="numeric" />
      <${Entry} id="rollout-policy" label="Policy (JSON; empty: the server's)" value=${policy} onText=${setPolicy} placeholder='{"steps": [10, 50], "bake_s": 60}' />
      <button type="submit" disabled=${!model || action.isBusy}>Start</button>
    </form>
    <${Told} action=${action} />
  </details>`;
}

function Rollout({ rollout, onDone, isOpen }) {
  const action = useAction();
  const [reason, setReason] = useState("");
  const { model, phase } = rollout;
  const change = (command) => action.run(async () => {
    const body = command === "abort" && reason ? { reason } : {};
    await ask(modelPath(model, `/rollout/${command}`), { body });
    onDone();
  }, `${command}: done`);
  const isGoing = phase && !ENDED.has(phase);
  const button = (command) => html`<button type="button" disabled=${!isGoing || action.isBusy}
    aria-label=${`${command} the roll-out of ${model}`} onClick=${() => change(command)}>${command}</button>`;
  const refused = Object.entries(rollout.refused || {});
  return html`
    <section class="card" aria-label=${`Roll-out of ${model}`}>
      <h2><a href=${`#/rollouts/${encodeURIComponent(model)}`}>${model}</a> <span class="state">${phase || "none"}</span></h2>
      ${phase && html`
        <p>Version ${rollout.candidate} gets ${rollout.percent} % of what version ${rollout.stable} got.
          ${rollout.samples} of at least ${rollout.min_samples} requests seen, ${Math.round(rollout.elapsed_s)} of ${rollout.bake_s} s at this step.</p>
        <ol class="steps">${[...rollout.steps, 100].filter((each, at, all) => all.indexOf(each) === at).map((each) => html`
          <li class=${each <= rollout.percent ? "done" : ""} aria-current=${each === rollout.percent ? "step" : undefined}>${each} %</li>`)}</ol>
        ${rollout.reason && html`<p>${rollout.reason}</p>`}
        <div class="row">
          ${["pause", "resume", "promote", "abort"].map(button)}
          <${Entry} id=${`reason-${model}`} label="Reason to abort" value=${reason} onText=${setReason} />
        </div>
        <${Told} action=${action} />
        ${rollout.guards.length > 0 && html`<${Guards} guards=${rollout.guards} model=${model} />`}`}
      ${refused.length > 0 && html`<p>Refused: ${refused.map(([version, why]) => `version ${version} (${why})`).join(", ")}</p>`}
      ${isOpen && html`<${History} model=${model} />`}
    </section>
  `;
}

const part = ({ requests, events }) => `${events} of ${requests}`;

function Guards({ guards, model }) {
  return html`<div class="scroll" tabindex="0" role="region" aria-label=${`Tests of ${model}`}><table>
    <thead><tr><th scope="col">Test</th><th scope="col">New</th><th scope="col">Old</th>
      <th scope="col">Tolerance</th><th scope="col">Chance if alike</th></tr></thead>
    <tbody>${guards.map((each) => html`<tr><td>${each.name}</td><td>${part(each.candidate)}</td>
      <td>${part(each.stable)}</td><td>${each.tolerance}</td><td>${Number(each.chance.toPrecision(3))}</td></tr>`)}</tbody>
  </table></div>`;
}

function History({ model }) {
  const { data, error } = usePolled(askFor(modelPath(model, "/rollout/history")), 5, [model]);
  const rows = [...(data || [])].reverse().slice(0, 200);
  const told = ({ at, event, by, model: _, ...more }) => Object.entries(more).map(([name, value]) => `${name} ${JSON.stringify(value)}`).join(", ");
  return html`
    <h3>What happened</h3>
    <${Failure} error=${error} />
    <ol class="history">${rows.map((each) => html`<li>${new Date(each.at).toLocaleString()} <b>${each.event}</b> ${each.by ? `by ${each.by}` : ""} <span class="note">${told(each)}</span></li>`)}</ol>
  `;
}
