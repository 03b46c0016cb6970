// One plan as it is now: read once, then only what changed, whenever its events name a change.

import { useEffect, useRef, useState } from "./vendor/preact.js";
import { get, getText } from "./api.js";
import { follow } from "./live.js";

const REFRESH_MS = 250; // between two reads of a plan that changes
const PER_TASK_MS = 0.2; // a large plan is read less often

/** @typedef {import("./types.js").PlanDetail} PlanDetail */
/** @typedef {import("./types.js").LogEvent} LogEvent */

/**
 * The plan with what changed after a sequence; no detail if that cannot be told any more.
 * @param {PlanDetail} before
 * @param {number} after
 * @returns {Promise<{detail: PlanDetail | null, sequence: number}>}
 */
async function changed(before, after) {
  const path = `/v1/plans/${before.plan_id}`;
  /** @type {Map<string, import("./types.js").Task>} */
  const fresh = new Map();
  let page;
  do {
    page = await get(`${path}/tasks`, { changed_after: after, after: page?.next, limit: 200 });
    for (const task of page.items) fresh.set(task.task_id, task);
  } while (page.next);
  if (page.sequence < after) return { detail: null, sequence: 0 };
  const tasks = before.tasks.map((task) => fresh.get(task.task_id) ?? task);
  return { detail: { ...page.plan, tasks }, sequence: page.sequence };
}

/**
 * `missed` counts how often events were missed: who shows events reads them anew then. `text` is
 * that of a moment of the past, JSON.
 * @param {string} plan
 * @param {number | null} atSequence a moment of the past, or null for now
 */
export function usePlan(plan, atSequence) {
  const [detail, setDetail] = useState(/** @type {PlanDetail | null} */ (null));
  const [text, setText] = useState(""); // of the answer, whose numbers are exact
  const [error, setError] = useState(/** @type {Error | null} */ (null));
  const [events, setEvents] = useState(/** @type {LogEvent[]} */ ([]));
  const [missed, setMissed] = useState(0);
  const again = useRef(() => {});
  useEffect(() => {
    let over = false;
    /** @type {ReturnType<typeof setTimeout> | undefined} */
    let timer;
    let reading = false;
    let dirty = false;
    let size = 0;
    /** @type {PlanDetail | null} */
    let known = null;
    let reached = 0; // the sequence up to which the tasks are known
    const whole = async () => {
      const told = await getText(`/v1/plans/${plan}`, { at_sequence: atSequence });
      const found = JSON.parse(told);
      if (!over && atSequence !== null) setText(told);
      reached = found.sequence;
      return found;
    };
    const read = async () => {
      timer = undefined;
      if (reading) {
        dirty = true;
        return;
      }
      reading = true;
      dirty = false;
      try {
        const found = known ? await changed(known, reached) : { detail: null, sequence: 0 };
        const newest = found.detail ?? (await whole());
        if (over) return;
        reached = Math.max(found.sequence, reached);
        size = newest.tasks.length;
        known = newest;
        setDetail(newest);
        setError(null);
      } catch (problem) {
        if (!over) setError(/** @type {Error} */ (problem));
      } finally {
        reading = false;
        if (dirty && !over) later();
      }
    };
    const later = () => {
      if (atSequence === null) timer ??= setTimeout(read, Math.max(REFRESH_MS, size * PER_TASK_MS));
    };
    again.current = later;
    read();
    const leave = follow(plan, undefined, {
      onEvents: (fresh) => {
        setEvents(fresh);
        later();
      },
      onMissed: () => {
        setMissed((before) => before + 1);
        later();
      },
    });
    return () => {
      over = true;
      clearTimeout(timer);
      leave();
    };
  }, [plan, atSequence]);
  return { detail, text, error, events, missed, again: () => again.current() };
}
