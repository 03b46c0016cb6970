// The first screen: what needs the operator, four numbers, and the list of plans.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { bindKeys } from "./keys.js";
import { follow } from "./live.js";
import { lookAgain } from "./looking.js";
import { Needs } from "./needs.js";
import { Numbers } from "./numbers.js";
import { Copy, Failure, Progress, Status, useNow, When } from "./parts.js";
import { added, renewed } from "./plan_rows.js";
import { hashOf } from "./route.js";
import { glyphOf, PLAN_STATUSES } from "./statuses.js";

const PAGE = 50;
const LOOK_MS = 5_000; // numbers and findings
const REFRESH_MS = 400; // after rows changed
const RENEWED = 4; // pages from the beginning whose rows are live

/** @typedef {import("./types.js").Plan} Plan */
/** @typedef {import("./plan_rows.js").Rows} Rows */

/** @param {{query: Record<string, string>}} properties */
export function PlansScreen({ query }) {
  const now = useNow();
  const { hour, report, counts, paused } = useOverview();
  const { plans, next, error, more, busy } = usePlans(query);
  const [chosen, setChosen] = useState(-1);
  const search = useRef(/** @type {HTMLInputElement | null} */ (null));
  const set = (/** @type {Record<string, string>} */ change) => {
    location.hash = hashOf(["plans"], { ...query, ...change });
  };
  useEffect(
    () =>
      bindKeys({
        "/": () => search.current?.focus(),
        j: () => setChosen((at) => Math.min(at + 1, plans.length - 1)),
        k: () => setChosen((at) => Math.max(at - 1, 0)),
        Enter: () => {
          const plan = plans[chosen];
          if (plan) location.hash = hashOf(["plans", plan.plan_id]);
        },
      }),
    [plans, chosen],
  );
  useEffect(() => {
    document.querySelector("tr.is-chosen")?.scrollIntoView({ block: "nearest" });
  }, [chosen]);
  return html`<div class="stack">
    <h1 class="visually-hidden">Plans</h1>
    <${Needs} report=${report} paused=${paused} />
    <${Numbers} hour=${hour} />
    <section class="card stack" aria-label="Plans">
      <${Filters} query=${query} set=${set} counts=${counts} search=${search} />
      <${Failure} error=${error} />
      <div class="scroll" tabindex="0" role="region" aria-label="List of plans">
        <table class="table">
          <thead><tr><th scope="col">Plan</th><th scope="col">Status</th><th scope="col">Tasks</th><th scope="col" class="minor">Labels</th><th scope="col">Submitted</th><th scope="col" class="minor">Took</th></tr></thead>
          <tbody>
            ${plans.map((plan, n) => html`<${Row} key=${plan.plan_id} plan=${plan} now=${now} chosen=${n === chosen} set=${set} />`)}
          </tbody>
        </table>
        ${!plans.length && !busy && html`<p class="empty">No plan fits. ${Object.keys(query).length ? html`<a href="#/plans">Show all</a>` : html`Submit one: <code>holdfast submit plan.json --follow</code>`}</p>`}
      </div>
      ${next && html`<div><button onClick=${more} disabled=${busy}>Show ${PAGE} more</button></div>`}
    </section>
  </div>`;
}

/** @param {{plan: Plan, now: number, chosen: boolean, set: (change: Record<string, string>) => void}} properties */
function Row({ plan, now, chosen, set }) {
  const took = (Date.parse(plan.finished_at ?? "") || now) - Date.parse(plan.created_at);
  return html`<tr class=${chosen ? "is-chosen" : ""} data-plan=${plan.plan_id}>
    <td><a href=${hashOf(["plans", plan.plan_id])}><bdi>${plan.name || plan.plan_id}</bdi></a>
      <div class="soft mono">${plan.plan_id} <${Copy} text=${plan.plan_id} /></div></td>
    <td><${Status} of=${plan.status} /></td>
    <td><${Progress} counts=${plan.counts} /></td>
    <td class="minor"><div class="chips">${Object.entries(plan.labels).slice(0, 4).map(([key, value]) => html`<button class="chip" onClick=${() => set({ label: `${key}=${value}` })}><bdi>${key}=${value}</bdi></button>`)}</div></td>
    <td><${When} at=${plan.created_at} now=${now} /></td>
    <td class="minor nowrap">${rough(took)}</td>
  </tr>`;
}

/** @param {number} ms */
function rough(ms) {
  const s = Math.max(ms, 0) / 1000;
  return s < 10 ? `${s.toFixed(1)} s` : s < 120 ? `${Math.round(s)} s` : s < 7200 ? `${Math.round(s / 60)} min` : `${Math.round(s / 3600)} h`;
}

const TIMES = /** @type {const} */ ([["", "any time"], ["900", "last 15 min"], ["3600", "last hour"], ["86400", "last day"], ["604800", "last week"]]);

/** @param {{query: Record<string, string>, set: (change: Record<string, string>) => void, counts: Record<string, number> | null, search: {current: HTMLInputElement | null}}} properties */
function Filters({ query, set, counts, search }) {
  const on = (/** @type {string} */ name) => (/** @type {any} */ event) => set({ [name]: event.currentTarget.value.trim() });
  return html`<div class="stack">
    <div class="chips" role="group" aria-label="Status">
      <button class="chip" aria-pressed=${!query.status} onClick=${() => set({ status: "" })}>all ${counts ? Object.values(counts).reduce((a, b) => a + b, 0) : ""}</button>
      ${PLAN_STATUSES.map((status) => html`<button class="chip" aria-pressed=${query.status === status} onClick=${() => set({ status: query.status === status ? "" : status })}>${glyphOf(status)} ${status} ${counts?.[status] ?? ""}</button>`)}
    </div>
    <div class="row">
      <input ref=${search} type="search" aria-label="Id or name" placeholder="id or name   /" value=${query.text ?? ""} onChange=${on("text")} />
      <input aria-label="Kind of a task" placeholder="kind" size="12" value=${query.kind ?? ""} onChange=${on("kind")} />
      <input aria-label="Label" placeholder="label or label=value" size="18" value=${query.label ?? ""} onChange=${on("label")} />
      <input aria-label="Error type" placeholder="error type" size="14" value=${query.error_type ?? ""} onChange=${on("error_type")} />
      <select aria-label="Submitted" value=${query.within ?? ""} onChange=${on("within")}>
        ${TIMES.map(([value, name]) => html`<option value=${value} selected=${(query.within ?? "") === value}>${name}</option>`)}
      </select>
    </div>
  </div>`;
}

/** Numbers, findings and counts, looked at every few seconds while the tab is visible. */
function useOverview() {
  const [seen, setSeen] = useState(/** @type {any} */ ({ hour: null, report: null, counts: null, paused: [] }));
  useEffect(() => {
    let over = false;
    const look = async () => {
      const [hour, report, counts, paused] = await Promise.all([
        get("/v1/ops/history").catch(() => null),
        get("/v1/ops/doctor").catch(() => null),
        get("/v1/ops/plans").then((told) => told.counts).catch(() => null),
        get("/v1/plans", { status: "PAUSED", limit: 10 }).then((told) => told.items).catch(() => []),
      ]);
      if (!over) setSeen({ hour, report, counts, paused });
      return [hour?.now.running, hour?.now.waiting, counts, report?.findings.map((/** @type {any} */ each) => each.code)];
    };
    const end = lookAgain(look, LOOK_MS);
    return () => {
      over = true;
      end();
    };
  }, []);
  return seen;
}

/**
 * The plans of a filter; pages that were shown stay, and rows near the beginning are live.
 * @param {Record<string, string>} query
 */
function usePlans(query) {
  const [state, setState] = useState({ plans: /** @type {Plan[]} */ ([]), next: /** @type {string | null} */ (null), error: /** @type {Error | null} */ (null), busy: true });
  const key = JSON.stringify(query);
  const wanted = useRef(key);
  wanted.current = key;
  const pages = useRef(1);
  const turn = useRef(0);
  /**
   * Read some pages, and put them into what is shown if it is still this filter's.
   * @param {string | null} from
   * @param {number} count
   * @param {(before: Rows, found: Rows) => Rows} put
   */
  const read = async (from, count, put) => {
    try {
      const found = await pagesOf(query, from, count);
      if (wanted.current === key) setState((before) => ({ ...put(before, found), error: null, busy: false }));
    } catch (error) {
      if (wanted.current === key) setState((before) => ({ ...before, error: /** @type {Error} */ (error), busy: false }));
    }
  };
  useEffect(() => {
    pages.current = 1;
    read(null, 1, (_, found) => found);
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    const later = () => {
      timer ??= setTimeout(() => {
        timer = undefined;
        const mine = (turn.current += 1); // of two readings the later one counts
        const put = (/** @type {Rows} */ before, /** @type {Rows} */ found) => (mine === turn.current ? renewed(before, found) : before);
        if (!document.hidden) read(null, Math.min(pages.current, RENEWED), put);
      }, REFRESH_MS);
    };
    const leave = follow("", undefined, { onChanged: later, onMissed: later });
    document.addEventListener("visibilitychange", later);
    return () => {
      leave();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", later);
    };
  }, [key]);
  const more = () => {
    pages.current += 1;
    const { next } = state;
    setState((before) => ({ ...before, busy: true }));
    read(next, 1, (before, found) => (before.next === next ? added(before, found) : before));
  };
  return { ...state, more };
}

/**
 * @param {Record<string, string>} query
 * @param {string | null} from
 * @param {number} count of pages
 * @returns {Promise<Rows>}
 */
async function pagesOf(query, from, count) {
  const { within, ...filter } = query;
  if (within) filter.submitted_from = String(Math.floor(Date.now() / 1000) - Number(within));
  /** @type {Plan[]} */
  const plans = [];
  let next = from;
  for (let page = 0; page < count && (page === 0 || next); page += 1) {
    const told = await get("/v1/plans", { ...filter, limit: PAGE, after: next });
    plans.push(...told.items);
    next = told.next;
  }
  return { plans, next };
}
