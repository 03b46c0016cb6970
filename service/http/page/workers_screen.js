// Who works: the owners of the last hour, what they hold, their last sign of life, refusals.

import { html, useEffect, useState } from "./vendor/preact.js";
import { get } from "./api.js";
import { follow } from "./live.js";
import { lookAgain } from "./looking.js";
import { Failure, useNow, When } from "./parts.js";
import { hashOf } from "./route.js";

const LOOK_MS = 3_000;

export function WorkersScreen() {
  const now = useNow();
  const { told, error } = useLook("/v1/workers", { limit: 200 }, LOOK_MS, (each) => each.workers);
  return html`<section class="card stack">
    <h1>Workers</h1>
    <p class="soft">Owners seen in the last hour. Leases and signs of life come from the log; claims and refusals are those of instance <code>${told?.instance ?? "…"}</code>.</p>
    <${Failure} error=${error} />
    <div class="scroll" tabindex="0" role="region" aria-label="Workers"><table class="table">
      <thead><tr><th scope="col">Owner</th><th scope="col">Kinds</th><th scope="col">Holds</th><th scope="col">Sign of life</th><th scope="col" class="minor">Asked</th><th scope="col">Refused</th></tr></thead>
      <tbody>${(told?.workers ?? []).map((/** @type {any} */ worker) => html`<tr key=${worker.owner}>
        <td><bdi>${worker.owner}</bdi></td>
        <td>${worker.kinds === null ? "any" : worker.kinds.slice(0, 8).join(", ") || "–"}</td>
        <td>${worker.leases_held || "none"}<div class="chips">${worker.leases.slice(0, 5).map((/** @type {any} */ lease) => html`<a class="chip" href=${hashOf(["plans", lease.plan_id], { task: lease.task_id })}>${lease.plan_id}/${lease.task_id} #${lease.attempt}</a>`)}</div></td>
        <td><${When} at=${worker.last_sign_of_life} now=${now} /></td>
        <td class="minor">${worker.asks > 0 && `${worker.asks}, `}<${When} at=${worker.last_asked_at} now=${now} /></td>
        <td class=${worker.refused ? "is-failed" : ""}>${worker.refused || "–"}${worker.last_refusals.slice(-2).map((/** @type {any} */ each) => html`<div><a href=${hashOf(["plans", each.plan_id], { task: each.task_id })}>${each.operation} of ${each.task_id} #${each.attempt}</a></div>`)}</td>
      </tr>`)}</tbody>
    </table></div>
    ${told && !told.workers.length && html`<p class="empty">No worker was seen. Start one: see docs/howto/write-a-worker.md.</p>`}
    ${told && told.total > told.workers.length && html`<p class="soft">${told.total - told.workers.length} more are not shown.</p>`}
  </section>`;
}

/**
 * An answer that is looked at again while the tab is visible; see `lookAgain`.
 * @param {string} path
 * @param {Record<string, any>} query
 * @param {number} everyMs
 * @param {(told: any) => unknown} [news] the part of it that counts as news
 */
export function useLook(path, query, everyMs, news = () => null) {
  const [state, setState] = useState(/** @type {{told: any, error: Error | null}} */ ({ told: null, error: null }));
  const key = JSON.stringify(query);
  useEffect(() => {
    let over = false;
    const look = async () => {
      try {
        const told = await get(path, query);
        if (!over) setState({ told, error: null });
        return news(told);
      } catch (error) {
        if (!over) setState((before) => ({ ...before, error: /** @type {Error} */ (error) }));
        return null;
      }
    };
    const leave = follow("", undefined, {});
    const end = lookAgain(look, everyMs);
    return () => {
      over = true;
      end();
      leave();
    };
  }, [path, key]);
  return state;
}
