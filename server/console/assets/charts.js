// Live charts: the hour that the server keeps, and what has come since.

import { html, useEffect, useMemo, useRef, useState } from "./vendor/preact.js";
import { ask } from "./api.js";
import { bytes, Choice, clock, Failure, usePolled } from "./widgets.js";

const NUMBER = (value) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3).replace(/\.?0+$/, ""));
const MS = (value) => `${NUMBER(value)} ms`;
const SHARE = (value) => `${(value * 100).toFixed(0)} %`;
const CHARTS = [
  { title: "Requests a second", unit: NUMBER, lines: [["answered", "requests"], ["failed", "failures"]] },
  { title: "Latency", unit: MS, lines: [["median", "p50_ms"], ["90 %", "p90_ms"], ["99 %", "p99_ms"]] },
  { title: "Waiting requests", unit: NUMBER, lines: [["waiting", "waiting"]] },
  { title: "Time in the queue", unit: MS, lines: [["mean", "queue_ms"]] },
  { title: "Batch size", unit: NUMBER, lines: [["mean", "batch"]] },
  { title: "Tokens a second", unit: NUMBER, lines: [["generated", "tokens"]] },
  { title: "Key/value cache in use", unit: SHARE, lines: [["fullest", "cache"]] },
  { title: "Answers from the cache a second", unit: NUMBER, lines: [["hits", "hits"]] },
];
const MACHINE = [
  { title: "Memory", unit: bytes, lines: [["server", "resident_bytes"], ["machine", "used_bytes"]] },
  { title: "Cores that the server takes", unit: NUMBER, lines: [["cores", "cores"]] },
  { title: "GPU memory", unit: bytes, lines: [["used", "gpu_used_bytes"]] },
];
const ALL = "";

export function Charts() {
  const kept = useRef({ started: 0, number: 0, columns: [], samples: [] });
  const found = usePolled(() => more(kept.current), 5);
  const [model, setModel] = useState(ALL);
  const { samples, columns } = kept.current;
  const names = useMemo(
    () => [...new Set(samples.flatMap((each) => Object.keys(each.models)))].sort(), [found.data]);
  const columnOf = (name) => {
    const at = columns.indexOf(name);
    return (sample) => (model === ALL ? sample.all : sample.models[model])?.[at] ?? null;
  };
  const times = samples.map((each) => each.t / 1000);
  const drawn = (charts, read) => charts.map((chart) => {
    const values = chart.lines.map(([, name]) => samples.map(read(name)));
    return values.every((each) => each.every((value) => value === null)) && samples.length
      ? null : html`<${Chart} key=${chart.title} chart=${chart} times=${times} values=${values} />`;
  });
  return html`
    <${Failure} error=${found.error} />
    <div class="row">
      <${Choice} id="chart-model" label="Of" value=${model} onChoose=${setModel}
        options=${[[ALL, "all models together"], ...names.map((each) => [each, each])]} />
      <span class="note" role="status">${samples.length
        ? `${Math.round((samples.length * 5) / 60)} minutes; a point every 5 s`
        : "The first point comes within 5 s."}</span>
    </div>
    <div class="charts">
      ${drawn(CHARTS, columnOf)}
      ${model === ALL && drawn(MACHINE, (name) => (sample) => sample.server[name] ?? null)}
    </div>
  `;
}

async function more(kept) {
  const answer = await ask(`/v2/console/charts?since=${kept.started ? kept.number : 0}`);
  if (answer.started !== kept.started) kept.samples = [];
  kept.started = answer.started;
  kept.number = answer.number;
  kept.columns = answer.columns;
  kept.samples = [...kept.samples, ...answer.samples].slice(-answer.kept);
  return { number: answer.number, started: answer.started };
}

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function Chart({ chart, times, values }) {
  const place = useRef(null);
  const plot = useRef(null);
  const [theme, setTheme] = useState(document.documentElement.dataset.theme);
  useEffect(() => {
    const changed = () => setTheme(document.documentElement.dataset.theme);
    addEventListener("themechange", changed);
    return () => removeEventListener("themechange", changed);
  }, []);
  useEffect(() => {
    const axis = { stroke: color("--soft"), grid: { stroke: color("--line"), width: 1 }, ticks: { show: false } };
    plot.current = new globalThis.uPlot({
      width: place.current.clientWidth || 300,
      height: 150,
      legend: { show: false },
      cursor: { drag: { x: false, y: false } },
      scales: { y: { range: (_, low, high) => [Math.min(0, low ?? 0), (high || 1) * 1.1] } },
      axes: [{ ...axis, values: (_, ticks) => ticks.map((each) => clock(each * 1000)), space: 90 }, { ...axis, size: 70, values: (_, ticks) => ticks.map(chart.unit) }],
      series: [{}, ...chart.lines.map(([label], at) => ({
        label, stroke: color(`--series-${at + 1}`), width: 2, spanGaps: false, points: { show: false } }))],
    }, [times, ...values], place.current);
    const watch = new ResizeObserver(() =>
      plot.current.setSize({ width: Math.max(120, place.current.clientWidth), height: 150 }));
    watch.observe(place.current);
    return () => {
      watch.disconnect();
      plot.current.destroy();
    };
  }, [theme]);
  useEffect(() => plot.current.setData([times, ...values]), [times.length, times.at(-1), ...values.map((each) => each.at(-1))]);
  return html`
    <figure>
      <figcaption>${chart.title}
        ${chart.lines.map(([label], at) => {
          const now = values[at].at(-1);
          return html`<span class="key"><span class=${`dot series-${at + 1}`} aria-hidden="true"></span>
            ${label} <b>${now === null || now === undefined ? "none" : chart.unit(now)}</b></span>`;
        })}
      </figcaption>
      <div class="plot" ref=${place} aria-hidden="true"></div>
    </figure>
  `;
}
