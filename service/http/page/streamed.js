// What a task streams as it works: its progress, from the log's beginning and then live.
//
// Each attempt starts anew. The log is the source, so a reload or a killed service loses nothing.

import { html, useEffect, useRef, useState } from "./vendor/preact.js";
import { textOf } from "./exact_json.js";
import { exactData } from "./log_event.js";
import { replay } from "./replay.js";

const TYPES = "task.claimed,task.progress";
const MOST_CHARACTERS = 200_000;
const MOST_STEPS = 200;

/** @typedef {import("./types.js").LogEvent} LogEvent */
/** @typedef {{sequence: number, attempt: number, text: string, steps: string[]}} Told */

/** @type {Told} */
export const NOTHING = { sequence: 0, attempt: 0, text: "", steps: [] };

/**
 * What is known after more events; those that were seen before change nothing.
 * @param {Told} told
 * @param {LogEvent[]} events of one task, in order
 * @returns {Told}
 */
export function heard(told, events) {
  let { sequence, attempt, text, steps } = told;
  for (const event of events) {
    if (event.sequence <= sequence) continue;
    sequence = event.sequence;
    if (event.type === "task.claimed") {
      attempt = Number(event.data.attempt);
      text = "";
      steps = [];
    } else if (event.type === "task.progress") {
      const said = /** @type {any} */ (event.data.data);
      if (typeof said === "string") text += said;
      else if (said && typeof said.text === "string") text += said.text;
      else steps = [...steps.slice(-MOST_STEPS), textOf(exactData(event).get("data"))];
    }
  }
  return { sequence, attempt, text: text.slice(-MOST_CHARACTERS), steps };
}

/** @param {{plan: string, task: string, events: LogEvent[], missed: number}} properties */
export function Streamed({ plan, task, events, missed }) {
  const [told, setTold] = useState(NOTHING);
  const ready = useRef(false);
  const waiting = useRef(/** @type {LogEvent[]} */ ([]));
  const end = useRef(/** @type {HTMLElement | null} */ (null));
  useEffect(() => {
    const stop = new AbortController();
    let fresh = NOTHING; // shown when it is whole: text with a hole is never shown
    ready.current = false;
    const take = (/** @type {LogEvent[]} */ part) => {
      fresh = heard(fresh, part);
    };
    replay({ plan, task, types: TYPES }, take, stop.signal)
      .then(() => {
        if (stop.signal.aborted) return;
        setTold(heard(fresh, waiting.current.splice(0)));
        ready.current = true;
      })
      .catch(() => undefined);
    return () => stop.abort();
  }, [plan, task, missed]);
  useEffect(() => {
    const mine = events.filter((event) => event.task_id === task);
    if (!mine.length) return;
    if (ready.current) setTold((before) => heard(before, mine));
    else waiting.current.push(...mine);
  }, [events]);
  useEffect(() => {
    if (end.current) end.current.scrollTop = end.current.scrollHeight;
  }, [told.text]);
  if (!told.text && !told.steps.length) return null;
  return html`<section aria-label="Progress">
    <h3>Progress of attempt ${told.attempt}</h3>
    ${told.text && html`<div class="stream" data-stream ref=${end} tabindex="0" role="log" aria-label="Streamed text">${told.text}</div>`}
    ${told.steps.length > 0 && html`<pre class="stream">${told.steps.join("\n")}</pre>`}
  </section>`;
}
