// One task beside its plan: why, attempts with their errors first, what it streams, input, output.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { asCurl, get, getText } from "./api.js";
import { duration } from "./clock.js";
import { parseExact, textOf } from "./exact_json.js";
import { JsonText } from "./json_view.js";
import { lookAgain } from "./looking.js";
import { Copy, Failure, Status, When } from "./parts.js";
import { Streamed } from "./streamed.js";

const LOOK_MS = 5_000; // a running task's lease moves without an event

/** @typedef {import("./types.js").LogEvent} LogEvent */

/**
 * @param {{plan: string, task: string, now: number, events: LogEvent[], missed: number, close: () => void,
 *   past: string | null,
 *   ask: (action: import("./ask.js").Action) => void}} properties
 */
export function TaskPane({ plan, task, now, events, missed, past, close, ask }) {
  const { text, why, error } = useTask(plan, task, events, missed, past);
  const pane = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => pane.current?.focus(), [task]);
  if (!text) return html`<aside class="card pane" ref=${pane} tabindex="-1" aria-label="Task ${task}"><${Failure} error=${error} /></aside>`;
  const shown = /** @type {any} */ (JSON.parse(text));
  const exactly = /** @type {Map<string, any>} */ (parseExact(text));
  const path = `/v1/plans/${plan}/tasks/${task}`;
  return html`<aside class="card pane stack" ref=${pane} tabindex="-1" aria-label="Task ${task}">
    <div class="row">
      <h2 class="grow">${task}</h2><${Status} of=${shown.status} />
      <button onClick=${close} title="Close (Esc)" aria-label="Close">✕</button>
    </div>
    <div class="row">
      ${!past && shown.status === "FAILED" && html`<button class="main" onClick=${() => ask({ title: "Retry task", path: `${path}/retry` })}>Retry</button>`}
      ${!past && shown.status === "RUNNING" && html`<button class="danger" onClick=${() => ask({ title: "Release task", path: `${path}/take-back`, body: { attempt: shown.attempt }, danger: true })}>Release</button>`}
      <${Copy} text=${task} label="copy id" /><${Copy} text=${asCurl("GET", path)} label="copy as curl" />
    </div>
    <${Failure} error=${error} />
    ${why && html`<${WhyTask} why=${why} />`}
    ${!past && html`<${Streamed} plan=${plan} task=${task} events=${events} missed=${missed} />`}
    <${Attempts} executions=${shown.executions ?? []} total=${shown.executions_total ?? 0} now=${now} />
    <${Facts} task=${shown} now=${now} />
    ${["output", "feedback", "input"].filter((name) => shown[name] !== null && exactly.has(name)).map((name) => html`<${JsonText} key=${name} name=${name} text=${textOf(exactly.get(name))} />`)}
    ${shown.truncated?.length > 0 && html`<p class="soft">Too large to be shown here: ${shown.truncated.join(", ")}.</p>`}
  </aside>`;
}

/**
 * @param {string} plan @param {string} task @param {LogEvent[]} events @param {number} missed
 * @param {string | null} past the plan of a moment of the past, JSON
 */
function useTask(plan, task, events, missed, past) {
  const [state, setState] = useState(/** @type {{text: string, why: any, error: Error | null}} */ ({ text: "", why: null, error: null }));
  const touched = events.some((event) => event.task_id === task && event.type !== "task.progress") || events.some((event) => !event.task_id);
  const turn = useRef(0);
  if (touched) turn.current = events[events.length - 1].sequence;
  useEffect(() => {
    if (past !== null) {
      if (!past) return undefined; // not read yet
      const tasks = /** @type {Map<string, any>[]} */ (parseExact(past).get("tasks"));
      const then = tasks.find((each) => each.get("task_id") === task);
      setState({ text: then ? textOf(then) : "", why: null, error: then ? null : new Error("the task was not there yet") });
      return undefined;
    }
    let over = false;
    const look = async () => {
      try {
        const [text, why] = await Promise.all([
          getText(`/v1/plans/${plan}/tasks/${task}`),
          get(`/v1/plans/${plan}/tasks/${task}/why`).catch(() => null),
        ]);
        if (!over) setState({ text, why, error: null });
        return text;
      } catch (error) {
        if (!over) setState((before) => ({ ...before, error: /** @type {Error} */ (error) }));
        return null;
      }
    };
    const end = lookAgain(look, LOOK_MS);
    return () => {
      over = true;
      end();
    };
  }, [plan, task, turn.current, missed, past]);
  return state;
}

/** @param {{why: import("./types.js").Why}} properties */
function WhyTask({ why }) {
  return html`<section aria-label="Why">
    <p><b>Why?</b> ${why.answer}</p>
    ${why.reasons.map((reason) => html`<details key=${reason.code}>
      <summary><span class="chip">${reason.code}</span> ${reason.next}.</summary>
      <pre>${JSON.stringify(reason.evidence, null, 2)}</pre>
    </details>`)}
  </section>`;
}

/** @param {{task: any, now: number}} properties */
function Facts({ task, now }) {
  const left = task.lease_until ? (Date.parse(task.lease_until) - now) / 1000 : null;
  return html`<dl class="facts">
    <dt>kind</dt><dd><bdi>${task.kind}</bdi>${task.type === "critic" && html` (critic of ${task.target})`}</dd>
    <dt>attempt</dt><dd>${task.attempt}</dd>
    <dt>retries</dt><dd>${task.retry} of ${task.max_retries}, leases lost ${task.lost} of ${task.max_lost_leases}</dd>
    ${task.owner && html`<dt>owner</dt><dd><bdi>${task.owner}</bdi></dd>`}
    ${left !== null && html`<dt>lease</dt><dd>${left > 0 ? `${left.toFixed(0)} s left` : `expired ${(-left).toFixed(0)} s ago`}</dd>`}
    ${task.depends_on.length > 0 && html`<dt>needs</dt><dd>${task.join === "all" ? "" : `${task.join} of `}${task.depends_on.slice(0, 20).join(", ")}${task.depends_on.length > 20 ? ` and ${task.depends_on.length - 20} more` : ""}</dd>`}
    <dt>time-out</dt><dd>${duration(task.timeout_s)}</dd>
    <dt>changed</dt><dd><${When} at=${task.updated_at} now=${now} /> <span class="soft">at sequence ${task.sequence}</span></dd>
  </dl>`;
}

/** @param {{executions: import("./types.js").Execution[], total: number, now: number}} properties */
function Attempts({ executions, total, now }) {
  if (!executions.length) return null;
  return html`<section aria-label="Attempts">
    <h3>Attempts${total > executions.length ? ` (the last ${executions.length} of ${total})` : ""}</h3>
    ${executions.toReversed().map((each) => html`<div class="finding" key=${each.attempt}>
      <div class="row"><b>${each.attempt}</b><${Status} of=${each.status} /><span class="soft"><bdi>${each.owner}</bdi></span></div>
      ${each.error_type && html`<p class="is-failed"><b><bdi>${each.error_type}</bdi></b> <bdi>${each.error_message}</bdi></p>`}
      <div class="soft">
        <${When} at=${each.claimed_at} now=${now} />, ${each.duration_s === null ? "running" : duration(each.duration_s)}
        ${each.model_name && html`, <bdi>${each.model_name}</bdi>`}
        ${each.token_usage && html`, ${each.token_usage.input_tokens} + ${each.token_usage.output_tokens} tokens`}
      </div>
    </div>`)}
  </section>`;
}
