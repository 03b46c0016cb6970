// One plan: what it is, why it does not move, its graph, timeline, tasks and events, and its past.

import { html, useEffect, useState } from "./vendor/preact.js";
import { asCurl, get } from "./api.js";
import { Ask } from "./ask.js";
import { duration } from "./clock.js";
import { EventList } from "./event_list.js";
import { Graph } from "./graph.js";
import { bindKeys } from "./keys.js";
import { lookAgain } from "./looking.js";
import { Copy, Failure, Progress, Status, useNow, When } from "./parts.js";
import { usePlan } from "./plan_store.js";
import { replay } from "./replay.js";
import { hashOf } from "./route.js";
import { hasEnded } from "./statuses.js";
import { TaskPane } from "./task_pane.js";
import { TaskTable } from "./task_table.js";
import { Timeline } from "./timeline.js";

const WHY_MS = 5_000;
const VIEWS = /** @type {const} */ (["graph", "timeline", "tasks", "events"]);

/** @param {{plan: string, query: Record<string, string>}} properties */
export function PlanScreen({ plan, query }) {
  const now = useNow();
  const at = query.at ? Number(query.at) : null;
  const { detail, text, error, events, missed, again } = usePlan(plan, at);
  const [action, setAction] = useState(/** @type {import("./ask.js").Action | null} */ (null));
  const view = query.view ?? "graph";
  const set = (/** @type {Record<string, string | null>} */ change) => {
    location.hash = hashOf(["plans", plan], { ...query, ...change });
  };
  const choose = (/** @type {string} */ task) => set({ task });
  useEffect(() => bindKeys({
    Escape: () => set({ task: null }),
    u: () => { location.hash = "#/plans"; },
    1: () => set({ view: "graph" }),
    2: () => set({ view: "timeline" }),
    3: () => set({ view: "tasks" }),
    4: () => set({ view: "events" }),
  }), [plan, JSON.stringify(query)]);
  if (!detail) return html`<div class="stack"><${Failure} error=${error} />${error && at !== null && html`<p><a href=${hashOf(["plans", plan], { ...query, at: null })}>Back to now</a></p>`}${!error && html`<p class="empty" aria-busy="true">Reading the plan …</p>`}</div>`;
  const done = () => {
    setAction(null);
    again();
  };
  return html`<div class="stack">
    <${Header} detail=${detail} now=${now} at=${at} ask=${setAction} />
    <${Failure} error=${error} />
    ${at === null && !hasEnded(detail.status) && html`<${WhyPlan} plan=${plan} sequence=${detail.sequence} />`}
    <${Slider} detail=${detail} at=${at} set=${set} />
    <div class="split ${query.task ? "with-pane" : ""}">
      <section class="card">
        <div class="tabs" role="tablist">
          ${VIEWS.map((each) => html`<button role="tab" aria-selected=${view === each} onClick=${() => set({ view: each })}>${each}</button>`)}
        </div>
        ${view === "graph" && html`<${Graph} tasks=${detail.tasks} chosen=${query.task ?? null} choose=${choose} />`}
        ${view === "timeline" && html`<${Timeline} plan=${plan} sequence=${detail.sequence} tasks=${detail.tasks} past=${at !== null} choose=${choose} />`}
        ${view === "tasks" && html`<${TaskTable} tasks=${detail.tasks} now=${now} query=${query} set=${set} />`}
        ${view === "events" && html`<${EventList} plan=${plan} at=${at} fresh=${events} missed=${missed} />`}
      </section>
      ${query.task && html`<${TaskPane} key=${query.task} plan=${plan} task=${query.task} now=${now} events=${events} missed=${missed} past=${at === null ? null : text} close=${() => set({ task: null })} ask=${setAction} />`}
    </div>
    ${action && html`<${Ask} action=${action} onDone=${done} />`}
  </div>`;
}

/** @param {{detail: import("./types.js").PlanDetail, now: number, at: number | null, ask: (action: import("./ask.js").Action) => void}} properties */
function Header({ detail, now, at, ask }) {
  const path = `/v1/plans/${detail.plan_id}`;
  const ended = detail.finished_at !== null;
  const act = (/** @type {string} */ verb, /** @type {string} */ title, danger = false) => html`<button class=${danger ? "danger" : ""} onClick=${() => ask({ title, path: `${path}/${verb}`, danger })}>${title}</button>`;
  const seconds = ((Date.parse(detail.finished_at ?? "") || now) - Date.parse(detail.created_at)) / 1000;
  return html`<header class="stack">
    <div class="row">
      <a href="#/plans" title="Back to the list (u)">Plans</a><span class="soft">/</span>
      <h1><bdi>${detail.name || detail.plan_id}</bdi></h1>
      <${Status} of=${detail.status} />
      <span class="grow"></span>
      ${at === null && html`<span class="row">
        ${(detail.status === "READY" || detail.status === "RUNNING") && act("pause", "Pause")}
        ${detail.status === "PAUSED" && act("resume", "Resume")}
        ${detail.status === "FAILED" && act("retry", "Retry failed tasks")}
        ${!ended && detail.status !== "CANCELLED" && act("cancel", "Cancel plan", true)}
      </span>`}
    </div>
    <div class="row soft">
      <span class="mono">${detail.plan_id}</span><${Copy} text=${detail.plan_id} label="copy id" />
      <${Copy} text=${asCurl("GET", path)} label="copy as curl" />
      <${Progress} counts=${detail.counts} />
      <span>submitted <${When} at=${detail.created_at} now=${now} /></span>
      <span>${ended ? "took" : "for"} ${duration(Math.max(seconds, 0))}</span>
      ${Object.entries(detail.labels).map(([key, value]) => html`<a class="chip" href=${hashOf(["plans"], { label: `${key}=${value}` })}><bdi>${key}=${value}</bdi></a>`)}
    </div>
  </header>`;
}

/** @param {{plan: string, sequence: number}} properties */
function WhyPlan({ plan, sequence }) {
  const [why, setWhy] = useState(/** @type {import("./types.js").Why | null} */ (null));
  useEffect(() => {
    let over = false;
    const ask = async () => {
      const told = await get(`/v1/plans/${plan}/why`).catch(() => null);
      if (told && !over) setWhy(told);
      return told?.answer;
    };
    /** @type {() => void} */
    let end = () => {};
    const soon = setTimeout(() => {
      end = lookAgain(ask, WHY_MS);
    }, 300);
    return () => {
      over = true;
      clearTimeout(soon);
      end();
    };
  }, [plan, sequence]);
  if (!why) return null;
  return html`<section class="card" aria-label="Why">
    <b>Why?</b> <span>${why.answer}</span>
    <div class="chips">${why.reasons.map((reason) => html`<span class="chip" title=${reason.next}>${reason.code}${reason.evidence.tasks ? ` · ${reason.evidence.tasks}` : ""}</span>`)}</div>
  </section>`;
}

/** @param {{detail: import("./types.js").PlanDetail, at: number | null, set: (change: Record<string, string | null>) => void}} properties */
function Slider({ detail, at, set }) {
  const [range, setRange] = useState({ first: 0, last: detail.sequence });
  const [wish, setWish] = useState(at);
  useEffect(() => {
    if (at === null) setRange((before) => ({ ...before, last: detail.sequence }));
  }, [detail.sequence, at]);
  useEffect(() => {
    const stop = new AbortController();
    firstAndLast(detail.plan_id, stop.signal).then((found) => stop.signal.aborted || setRange(found)).catch(() => undefined);
    return () => stop.abort();
  }, [detail.plan_id]);
  useEffect(() => {
    if (wish === at) return undefined;
    const timer = setTimeout(() => set({ at: wish === null ? null : String(wish) }), 120);
    return () => clearTimeout(timer);
  }, [wish]);
  useEffect(() => setWish(at), [at]);
  const shown = wish ?? range.last;
  return html`<section class="card row ${at === null ? "" : "notice"}" aria-label="Time slider">
    <label for="slider">As of sequence</label>
    <input id="slider" class="grow" type="range" min=${range.first} max=${range.last} value=${shown}
      onInput=${(/** @type {any} */ event) => {
        const value = Number(event.currentTarget.value);
        setWish(value >= range.last ? null : value);
      }} />
    <output for="slider" class="mono">${shown}</output>
    ${at === null ? html`<span class="soft">now</span>` : html`<b>the past</b><button onClick=${() => setWish(null)}>Back to now</button>`}
  </section>`;
}

/** @param {string} plan @param {AbortSignal} signal */
async function firstAndLast(plan, signal) {
  let first = 0;
  await replay({ plan, types: "plan.submitted" }, ([event]) => {
    first = event.sequence;
  }, signal);
  const { plan: now } = await get(`/v1/plans/${plan}/tasks`, { limit: 1 });
  return { first, last: now.sequence };
}
