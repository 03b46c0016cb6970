// The timeline of a plan: a lane per task, its attempts as bars; lost attempts are hatched.

import { html, useEffect, useMemo, useState } from "./vendor/preact.js";
import { duration, exact } from "./clock.js";
import { get } from "./api.js";
import { useNow } from "./parts.js";
import { classOf, glyphOf } from "./statuses.js";

const LANES = 100; // at a time
const PAGE = 200;
const TICKS = [0, 0.25, 0.5, 0.75, 1];

/** @typedef {import("./types.js").Execution} Execution */
/** @typedef {import("./types.js").Task} Task */

/**
 * @param {{plan: string, sequence: number, tasks: Task[], past: boolean, choose: (task: string) => void}} properties
 *   `past`: the tasks are those of an earlier moment
 */
export function Timeline({ plan, sequence, tasks, past, choose }) {
  const clock = useNow();
  const now = past ? Math.max(...tasks.map((task) => Date.parse(task.updated_at))) : clock;
  const [found, setFound] = useState(/** @type {Execution[]} */ ([]));
  const [shown, setShown] = useState(LANES);
  useEffect(() => {
    let over = false;
    readAll(plan, shown * 2).then((all) => over || setFound(all)).catch(() => undefined);
    return () => {
      over = true;
    };
  }, [plan, sequence, shown]);
  const executions = useMemo(() => (past ? asOf(found, tasks, now) : found), [found, tasks, past]);
  const lanes = useMemo(() => lanesOf(executions, tasks), [executions, tasks]);
  if (!lanes.length) return html`<p class="empty">No attempt has begun.</p>`;
  const from = Math.min(...lanes.map((lane) => lane.from));
  const running = executions.some((each) => !each.finished_at);
  const to = running ? leaseEnd(lanes, from, now) : Math.max(...executions.map((each) => Date.parse(each.finished_at ?? "") || from));
  const scale = 1000 / Math.max(to - from, 1);
  return html`<div>
    <p class="soft">From ${exact(new Date(from).toISOString()).slice(0, 23)}; pale: claimed and not begun; hatched: the lease was lost; dashed: what is left of the lease.</p>
    <div class="timeline" tabindex="0" role="region" aria-label="Timeline">
      <svg width="0" height="0" aria-hidden="true"><defs><pattern id="lost" class="is-lost" width="6" height="6" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><rect width="3" height="6" fill="currentColor" /></pattern></defs></svg>
      <div class="lane axis soft" aria-hidden="true"><span></span><div class="ticks">${TICKS.map((share) => html`<span>${duration((share * (to - from)) / 1000)}</span>`)}</div><span></span></div>
      ${lanes.slice(0, shown).map((lane) => html`<div class="lane" key=${lane.task}>
        <button class="link name" title=${lane.task} onClick=${() => choose(lane.task)}>${lane.task}</button>
        <svg viewBox="0 0 1000 22" preserveAspectRatio="none" role="img" aria-label=${laneTold(lane)}>
          ${lane.attempts.map((each) => html`<${Bar} key=${each.attempt} execution=${each} from=${from} scale=${scale} now=${now} count=${lane.attempts.length} lease=${lane.leaseUntil} />`)}
        </svg>
        <span class="left soft">${leftOf(lane, now)}</span>
      </div>`)}
    </div>
    ${lanes.length > shown && html`<button onClick=${() => setShown(shown + LANES)}>Show ${LANES} more</button>`}
  </div>`;
}

/** @param {{execution: Execution, from: number, scale: number, now: number, count: number, lease: number}} properties */
function Bar({ execution, from, scale, now, count, lease }) {
  const claimed = Date.parse(execution.claimed_at);
  const started = Date.parse(execution.started_at ?? "") || claimed;
  const ended = Date.parse(execution.finished_at ?? "") || now;
  const height = Math.max(20 / count, 3);
  const top = 1 + height * ((execution.attempt - 1) % count);
  const at = (/** @type {number} */ time) => (time - from) * scale;
  const wide = (/** @type {number} */ a, /** @type {number} */ b) => Math.max((b - a) * scale, 1.5);
  const lost = execution.status === "lost";
  const told = `attempt ${execution.attempt}: ${execution.status}, ${execution.owner}, ${duration((ended - started) / 1000)}${execution.error_type ? `, ${execution.error_type}` : ""}`;
  return html`<g class=${classOf(execution.status)}>
    <rect class="wait" x=${at(claimed)} y=${top} width=${wide(claimed, started)} height=${height - 1} />
    <rect x=${at(started)} y=${top} width=${wide(started, ended)} height=${height - 1} fill=${lost ? "url(#lost)" : "currentColor"} />
    ${!execution.finished_at && lease > now && html`<rect class="lease" x=${at(now)} y=${top} width=${wide(now, lease)} height=${height - 1} />`}
    <title>${glyphOf(execution.status)} ${told}</title>
  </g>`;
}

/**
 * The attempts as they were when the tasks were as given.
 * @param {Execution[]} executions
 * @param {Task[]} tasks
 * @param {number} moment
 * @returns {Execution[]}
 */
export function asOf(executions, tasks, moment) {
  const then = new Map(tasks.map((task) => [task.task_id, task]));
  const begun = executions.filter((each) => each.attempt <= (then.get(each.task_id)?.attempt ?? 0));
  return begun.map((each) => {
    const task = then.get(each.task_id);
    if (task?.status !== "RUNNING" || task.attempt !== each.attempt) return each;
    const started = Date.parse(each.started_at ?? "") <= moment ? each.started_at : null;
    return { ...each, status: "running", started_at: started, finished_at: null, duration_s: null, error_type: null, error_message: null };
  });
}

const LEASE_SHARE = 0.25; // of the time until now: so much room leases that run on get at most

/**
 * Where the time shown ends: with the last lease, or some time after now.
 * @param {Lane[]} lanes @param {number} from @param {number} now
 */
function leaseEnd(lanes, from, now) {
  const last = Math.max(now, ...lanes.filter(isRunning).map((lane) => lane.leaseUntil));
  return Math.min(last, now + (now - from) * LEASE_SHARE);
}

/** @param {Lane} lane */
const isRunning = (lane) => lane.attempts.some((each) => !each.finished_at);

/** What is left of a running task's lease. @param {Lane} lane @param {number} now */
export function leftOf(lane, now) {
  if (!lane.leaseUntil || !isRunning(lane)) return "";
  const left = Math.round((lane.leaseUntil - now) / 1000);
  return left > 0 ? `${left} s left` : `lease expired`;
}

/** @typedef {{task: string, from: number, attempts: Execution[], leaseUntil: number}} Lane */

/**
 * Executions by task, those that began first at the top.
 * @param {Execution[]} executions
 * @param {Task[]} tasks
 * @returns {Lane[]}
 */
export function lanesOf(executions, tasks) {
  const leases = new Map(tasks.map((task) => [task.task_id, Date.parse(task.lease_until ?? "") || 0]));
  /** @type {Map<string, Lane>} */
  const lanes = new Map();
  for (const each of executions) {
    const from = Date.parse(each.claimed_at);
    const lane = lanes.get(each.task_id);
    if (lane) {
      lane.attempts.push(each);
      lane.from = Math.min(lane.from, from);
    } else {
      lanes.set(each.task_id, { task: each.task_id, from, attempts: [each], leaseUntil: leases.get(each.task_id) ?? 0 });
    }
  }
  for (const lane of lanes.values()) lane.attempts.sort((a, b) => a.attempt - b.attempt);
  return [...lanes.values()].sort((a, b) => a.from - b.from);
}

/** @param {Lane} lane */
function laneTold(lane) {
  return `${lane.task}: ${lane.attempts.map((each) => `attempt ${each.attempt} ${each.status}`).join(", ")}`;
}

/** @param {string} plan @param {number} most */
async function readAll(plan, most) {
  /** @type {Execution[]} */
  const found = [];
  let after = null;
  do {
    /** @type {{items: Execution[], next: string | null}} */
    const page = await get("/v1/executions", { plan_id: plan, limit: PAGE, after });
    found.push(...page.items);
    after = page.next;
  } while (after && found.length < most);
  return found;
}
